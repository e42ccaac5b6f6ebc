"""Losses as pure functions on tensors, for a whole batch at once."""
