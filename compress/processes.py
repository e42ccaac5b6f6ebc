"""What the processes of one run tell each other, so that many with small batches equal one with a large batch.

With one process nothing is sent.
"""

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce

__all__ = ["gather_processes", "mean_over_processes", "process_count", "process_index"]


def process_count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_index() -> int:
    """Return this process's number among them."""
    return distributed.get_rank() if process_count() > 1 else 0


def mean_over_processes(value: Tensor) -> Tensor:
    """Average a tensor over processes; its gradient reaches every process that gave a part."""
    world = process_count()
    if world == 1:
        return value
    total: Tensor = all_reduce(value) if value.requires_grad else _sum(value)  # type: ignore[no-untyped-call]
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


def _sum(value: Tensor) -> Tensor:
    total = value.clone()
    distributed.all_reduce(total)
    return total
