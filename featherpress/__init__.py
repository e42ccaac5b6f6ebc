"""Featherpress: distillation and parameter budgeting for PyTorch models."""

__all__ = ["__version__"]

__version__ = "0.1.0"
