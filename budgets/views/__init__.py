"""Counts and audits as tables, for terminals and for continuous integration."""
