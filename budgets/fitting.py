"""Stub."""

__all__ = ["Fit", "fit"]


class Fit:
    """Stub."""


def fit() -> Fit:
    """Stub."""
    return Fit()
