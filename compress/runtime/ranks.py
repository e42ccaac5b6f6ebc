"""Which process of a run this is. There are several only where a launcher set WORLD_SIZE; needs no torch."""

import os


def world_size() -> int:
    """Return how many processes train together, by what a launcher says."""
    return max(_number("WORLD_SIZE", 1), 1)


def rank() -> int:
    """Return this process's number among them."""
    return _number("RANK", 0) if world_size() > 1 else 0


def local_rank() -> int | None:
    """Return this process's number on its machine; None of one alone."""
    return _number("LOCAL_RANK", 0) if world_size() > 1 else None


def is_leader() -> bool:
    """Return whether this process is the one that writes: the only one, or the first of several."""
    return rank() == 0


def _number(name: str, default: int) -> int:
    said = os.environ.get(name, "")
    return int(said) if said.isdecimal() else default
