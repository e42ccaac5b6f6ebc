"""How strongly distillation pulls, beside the task: the ratio of their gradients where the student is tapped."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from featherpress.compress.runtime.distributed import mean_over_processes

_EVERY = 20
_KEPT = 0.8
_LIMITS = (1e-3, 1e3)
_SCALE = 2.0**14  # keeps small gradients from vanishing in float16


def gradient_ratio(kd: Tensor, task: Tensor, levels: Sequence[Tensor]) -> float:
    """Return the ratio of distillation's gradient norm to the task's at some tensors of the student."""

    def norm(loss: Tensor) -> float:
        gradients = torch.autograd.grad(loss, levels, retain_graph=True, allow_unused=True)
        squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
        return float(mean_over_processes(torch.stack(squares).sum()).sqrt()) if squares else 0.0

    half = any(level.dtype == torch.float16 for level in levels)
    pair = [norm(each * _SCALE if half else each) for each in (kd, task)]
    return pair[0] / max(pair[1], 1e-12)


class Balance:
    """A factor on distillation that brings its gradient, once terms have grown, to a share of the task's.

    The ratio is measured at the first step and then at every twentieth, and smoothed.
    """

    def __init__(self, share: float) -> None:
        self.share, self.factor = share, 1.0
        self._ratio: float | None = None

    def due(self, step: int) -> bool:
        """Return whether a step measures."""
        return self._ratio is None or step % _EVERY == 0

    def update(self, step: int, kd: Tensor, task: Tensor, levels: Sequence[Tensor]) -> None:
        """Measure, when it is time, the gradient of all terms at their full weights, and set the factor."""
        if not self.due(step):
            return
        measured = gradient_ratio(kd, task, levels)
        if not 0 < measured < float("inf"):
            return
        self._ratio = measured if self._ratio is None else _KEPT * self._ratio + (1 - _KEPT) * measured
        low, high = _LIMITS
        self.factor = min(max(self.share / self._ratio, low), high)

    def state(self) -> dict[str, Any]:
        """Return what it goes on from."""
        return {"factor": self.factor, "ratio": self._ratio}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.factor, self._ratio = state["factor"], state["ratio"]
