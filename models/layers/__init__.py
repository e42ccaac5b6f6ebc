"""The mechanisms that the zoo's models are built from: one a file, each with its formula and its source."""
