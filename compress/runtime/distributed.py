"""Communication between the processes of a run, so that many with small batches equal one with a large batch.

With one process nothing is sent.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def process_count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_index() -> int:
    """Return this process's number among them."""
    return distributed.get_rank() if process_count() > 1 else 0


def mean_over_processes(value: Tensor) -> Tensor:
    """Average a tensor over processes; the gradient flows back to every process."""
    world = process_count()
    if world == 1:
        return value
    total: Tensor = _Sum.apply(value)
    return total / world


def gather_processes(value: Tensor) -> Tensor:
    """Collect a tensor from every process, without gradient.

    Shapes: (...) -> (processes, ...).
    """
    world = process_count()
    if world == 1:
        return value.detach()[None]
    parts = [torch.empty_like(value) for _ in range(world)]
    distributed.all_gather(parts, value.detach().contiguous())
    return torch.stack(parts)


class _Sum(torch.autograd.Function):
    """A sum over processes. Each part enters the losses of all processes, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        return _sum(value)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(value: Tensor) -> Tensor:
    total = value.clone()
    distributed.all_reduce(total)
    return total
