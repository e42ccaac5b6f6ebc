"""An exponential moving average of a model, weights and buffers."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

__all__ = ["MovingAverage"]


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

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Move towards the model by one step; whole numbers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours, theirs = self.model.state_dict(), model.state_dict()
        floats = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], 1 - decay)
        for name in ours.keys() - set(floats):
            ours[name].copy_(theirs[name])
