"""How many threads PyTorch computes with, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Compute with so many threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    try:
        if number != before:
            torch.set_num_threads(number)
        yield
    finally:
        if number != before:
            torch.set_num_threads(before)
