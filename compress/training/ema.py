"""An exponential moving average of a model, weights and buffers."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class MovingAverage(Generic[Model]):
    """A second model that follows the first: average += (1 - d) * (model - average).

    The decay d grows from 2/11 to `decay` as min(decay, (1 + n) / (10 + n)), so that early weights are forgotten.

    Source: Polyak and Juditsky 1992; the growth is TensorFlow's `ExponentialMovingAverage(num_updates=...)`.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self.model.eval().requires_grad_(False)
        self.decay, self.updates = decay, 0
        self._followed: Model | None = None
        self._ours: list[list[Tensor]] = []
        self._theirs: list[list[Tensor]] = []

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Move towards the model by one step; whole numbers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        # Listing hundreds of tensors takes twenty times as long as moving them.
        if self._followed is not model:
            self._followed, self._ours, self._theirs = model, _listed(self.model), _listed(model)
        (floats, others), (their_floats, their_others) = self._ours, self._theirs
        torch._foreach_lerp_(floats, their_floats, 1 - decay)
        if others:
            torch._foreach_copy_(others, their_others)


def _listed(model: nn.Module) -> list[list[Tensor]]:
    """List what a model holds: the tensors of floats, and those of whole numbers."""
    # A tensor under several names moves once.
    values = {id(value): value for value in model.state_dict(keep_vars=True).values()}.values()
    return [[value for value in values if value.is_floating_point() is floats] for floats in (True, False)]
