"""compress/data."""
