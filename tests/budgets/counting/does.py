"""A module of one function, of which the tests here make theirs."""

from collections.abc import Callable
from typing import Any

from torch import nn


class Does(nn.Module):
    """A module whose forward is one function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], **held: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)
