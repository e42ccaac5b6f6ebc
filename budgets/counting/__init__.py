"""The exact count of a model."""
