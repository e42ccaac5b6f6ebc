"""The sections of a report: each a function from a context to its blocks, empty when it has nothing to say."""
