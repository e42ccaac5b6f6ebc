"""Communication between the processes of a run, so that many with small batches equal one with a large batch.

With one process nothing is sent.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from featherpress.compress.runtime.ranks import is_leader, world_size
from featherpress.errors import FeatherpressError, UsageError

_RANKS = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
)
"""What launchers tell a process, and what accelerate takes for such a word."""

_LOST = ("gloo", "nccl", "connection", "socket", "broken pipe", "timed out")

WAIT = timedelta(hours=6)
"""How long the others wait while the first process evaluates."""


def open_processes() -> None:
    """Find the other processes of a run, which are there only where WORLD_SIZE says so; other words are removed."""
    if world_size() == 1:
        for name in _RANKS:
            os.environ.pop(name, None)
        return
    # A detector asks for its device, and needs nothing of this.
    from accelerate import PartialState  # noqa: PLC0415

    PartialState(cpu=not torch.cuda.is_available(), timeout=WAIT)


def by_leader(work: Callable[[], str]) -> str:
    """Let the first process do something while the others wait, and return its text to all.

    Errors: the first process's own, in one sentence on all.
    """
    if world_size() == 1:
        return work()
    open_processes()
    said, problem = "", None
    if is_leader():
        try:
            said = f" {work()}"
        except (FeatherpressError, OSError) as error:
            said, problem = f"!{error}", error
    said = _broadcast(said)
    if problem is not None:
        raise problem
    if said.startswith("!"):
        raise UsageError(said[1:])
    return said[1:]


def _broadcast(text: str) -> str:
    """Send the first process's text to all, as numbers: nothing is unpickled."""
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    content = torch.tensor([*text.encode(errors="surrogatepass")], dtype=torch.uint8, device=device)
    size = torch.tensor([len(content)], device=device)
    distributed.broadcast(size, 0)
    content = content if is_leader() else content.new_zeros(int(size))
    distributed.broadcast(content, 0)
    return bytes(content.tolist()).decode(errors="surrogatepass")


def is_lost(error: BaseException) -> bool:
    """Return whether an error is that another process of the run has ended."""
    return world_size() > 1 and any(word in str(error).lower() for word in _LOST)


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


def average_gradients(weights: Sequence[Tensor]) -> None:
    """Average the gradients of weights over processes; a weight that has none on any of them stays without."""
    if process_count() == 1:
        return
    held = torch.tensor([float(weight.grad is not None) for weight in weights], device=weights[0].device)
    distributed.all_reduce(held)
    shared = [weight for weight, count in zip(weights, held.tolist(), strict=True) if count]
    for weight in shared:
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    flat = torch.cat([weight.grad.float().flatten() for weight in shared if weight.grad is not None])
    distributed.all_reduce(flat)
    flat /= process_count()
    parts = torch.split(flat, [weight.numel() for weight in shared])
    for weight, part in zip(shared, parts, strict=True):
        assert weight.grad is not None
        weight.grad.copy_(part.view(weight.shape))


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
