"""Whole experiments from a recipe: teachers, arms, checks before a run, and the comparison after it."""
