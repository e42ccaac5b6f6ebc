"""The detection of faces."""
