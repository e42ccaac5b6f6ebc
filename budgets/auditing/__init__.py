"""A count against a budget file."""
