"""Recipes that are the tests' own."""

from pathlib import Path

DRAWN_FACES = str(Path(__file__).with_name("faces.toml"))
"""Drawn faces with all their labels, one seed; tests make it smaller."""
