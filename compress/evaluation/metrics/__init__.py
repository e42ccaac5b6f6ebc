"""Scores of what a model found."""
