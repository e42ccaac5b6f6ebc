"""Pictures that are drawn: faces to find, shapes to tell apart."""
