"""Small networks, and Distillers between them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.terms import Features, Logits


class Net(nn.Module):
    """Classify (N, 3, 6, 6) into five classes."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).relu()).relu().mean(dim=(2, 3)))  # type: ignore[no-any-return]


def make_net(width: int = 4, seed: int = 1) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(width)


def distil(student: nn.Module, teacher: Any = None, terms: Any = None, **keywords: Any) -> Distiller:
    """Make a Distiller of `kl` and `pkd` from a net of width 6, unless other terms are given."""
    terms = (
        {"class": Logits("kl"), "map": Features("pkd", student="two", teacher="two", weight=2)}
        if terms is None
        else terms
    )
    teacher = make_net(6, seed=2) if teacher is None else teacher
    return Distiller(student, teacher, terms, **{"example": draw(), **keywords})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape or (4, 3, 6, 6), generator=torch.Generator().manual_seed(seed))


def take(kd: Distiller, model: Callable[..., Any], x: Any = None, **keywords: Any) -> Tensor:
    """Take the loss of one step, without labels."""
    x = draw() if x is None else x
    with kd.step(x, **keywords) as step:
        out = model(x)
    return step.loss(out)


@pytest.fixture
def student() -> Net:
    return make_net()
