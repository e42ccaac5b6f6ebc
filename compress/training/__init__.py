"""The trainer, and what it keeps: checkpoints, averaged weights, frozen parts."""
