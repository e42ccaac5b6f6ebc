"""Taps, adapters and losses between student and teacher. Knows no task, recipe or file."""
