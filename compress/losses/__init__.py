"""compress/losses."""
