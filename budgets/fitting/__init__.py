"""The settings of a model that meet a budget."""
