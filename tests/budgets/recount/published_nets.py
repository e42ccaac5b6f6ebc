"""Models of a small table: one for each thing that a published figure may be."""

import os

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two branches that fold into one, as re-parameterised models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide: nn.Module | None = nn.Conv2d(8, 8, 3, padding=1)
        self.narrow: nn.Module | None = nn.Conv2d(8, 8, 1)
        self.folded: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.folded is not None:
            y: Tensor = self.folded(x)
            return y
        assert self.wide is not None
        assert self.narrow is not None
        z: Tensor = self.wide(x) + self.narrow(x)
        return z

    def reparameterize(self) -> None:
        self.folded, self.wide, self.narrow = nn.Conv2d(8, 8, 3, padding=1), None, None


class Recurrent(nn.Module):
    """A projection and an LSTM, which other counters pass over."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.cells = nn.Conv2d(3, 8, 4, 4), nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cells(self.rows(x).flatten(2).transpose(1, 2))[0]
        return y


def make(name: str, *, width: int = 8) -> nn.Module:
    """Build a model of the table by its name."""
    if name == "killer":
        os._exit(9)
    if name == "recurrent":
        return Recurrent()
    if name == "reads":  # while it is built, so that it cannot be built on meta
        assert float(torch.ones(1)) == 1
    layers: dict[str, list[nn.Module]] = {
        "plain": [nn.Conv2d(3, width, 3, padding=1)],
        "reads": [nn.Conv2d(3, 4, 3, padding=1)],
        "normed": [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(2)],
        "folding": [nn.Conv2d(3, 8, 1), Block()],
        "wide": [nn.Conv2d(3, 64, 3, padding=1)],
        "wider": [nn.Conv2d(3, 64, 3, padding=1)],
    }
    return nn.Sequential(*layers[name])


def fetching(name: str, *, weights_backbone: str | None = "from afar") -> nn.Module:
    """Build a model that would load a backbone unless told not to."""
    if weights_backbone is not None:
        raise OSError("no network")
    return make(name)
