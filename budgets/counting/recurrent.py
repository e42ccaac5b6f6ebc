"""LSTM, GRU and RNN at once, not step by step as PyTorch goes on tensors without values; batch norm without detours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any, Protocol

import torch
from torch import Tensor

NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class Ledger(Protocol):
    """Takes what an operator costs."""

    def book(self, name: str, read: list[Tensor], macs: int, elements: int) -> None:
        """Note the tensors an operator reads, its MACs and its element-wise work."""

    def note_values(self, name: str, what: str) -> None:
        """Note that the work depends on values."""


@contextmanager
def closed_form(ledger: Ledger) -> Iterator[None]:
    """Answer recurrent layers and batch norms on meta tensors of this thread as one operator each."""
    thread = get_ident()

    def answer(name: str, usual: Callable[..., Any], *args: Any) -> Any:
        out = _answer(ledger, name, args) if get_ident() == thread else None
        return usual(*args) if out is None else out

    for name in NAMES:
        setattr(torch._VF, name, partial(answer, name, getattr(torch._VF, name)))
    usual = torch.batch_norm

    def normalise(*args: Any, **kwargs: Any) -> Tensor:
        """Leave out the empty tensor that the usual one makes first."""
        if kwargs or get_ident() != thread:
            return usual(*args, **kwargs)
        return torch.native_batch_norm(*args[:8])[0]

    torch.batch_norm = normalise
    try:
        yield
    finally:
        torch.batch_norm = usual
        for name in NAMES:
            delattr(torch._VF, name)


def _answer(ledger: Ledger, name: str, args: Any) -> tuple[Tensor, ...] | None:
    """Make the results; rows are steps times batch, or those of a packed sequence. None where all is not as usual."""
    packed = len(args) > 3 and isinstance(args[3], (list, tuple))
    data, *rest = args[:1] + args[2:] if packed else args
    states, weights, _, layers, _, _, both_ways = rest[:7]
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    tensors = [data, *states, *weights]
    usual = all(isinstance(t, Tensor) and t.is_meta and t.dtype is data.dtype for t in tensors)
    ways = 1 + both_ways
    if not usual or data.shape[-1] != weights[0].shape[1]:
        return None
    rows = data.numel() // data.shape[-1]
    matrices = [weight for weight in weights if weight.dim() == 2]
    results = [data.new_empty((*data.shape[:-1], ways * states[0].shape[-1])), *map(torch.empty_like, states)]
    gates = sum(weight.shape[0] for weight in matrices[1 :: len(matrices) // (layers * ways)])
    if packed:
        ledger.note_values(f"aten::{name}", "works on as many steps as lengths say: other lengths cost otherwise")
    ledger.book(f"aten::{name}", tensors, rows * sum(w.numel() for w in matrices), rows * gates)
    return tuple(results)
