"""WIDER FACE's protocol and its files."""
