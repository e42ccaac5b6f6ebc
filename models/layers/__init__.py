"""The building blocks of the zoo's models, each with its formula and its source."""
