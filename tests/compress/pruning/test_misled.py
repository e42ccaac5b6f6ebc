"""Models that compute from widths where no trace sees it: a smaller exact one, or none; never a wrong one."""

from collections.abc import Callable
from math import nan
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.compress import prune
from featherpress.compress.pruning import proven
from featherpress.compress.pruning.proven import DIFFERS
from featherpress.errors import FeatherpressError, PruneError

from .nets import IMAGE

WIDTH = 16


class Doubling(torch.autograd.Function):
    """Doubles what has more than a dozen channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * torch.tensor(2.0 if x.shape[1] > 12 else 1.0)


def root(x: Tensor, _: Tensor) -> Tensor:
    return x * torch.tensor(x.shape[1] ** 0.3)


def doubled(x: Tensor, _: Tensor) -> Tensor:
    return Doubling.apply(x)


def listed(x: Tensor, _: Tensor) -> Tensor:
    """The sum of as many numbers as there are channels, which the trace sees shrink but finds in no width."""
    return x * torch.tensor(list(range(x.shape[1]))).sum().float()


def product(x: Tensor, other: Tensor) -> Tensor:
    return x * torch.tensor(x.shape[1] / other.shape[1] * 1.5 + other.shape[1] ** 0.5)


def compared(x: Tensor, other: Tensor) -> Tensor:
    """Either of two widths may stay."""
    return x * torch.tensor(1.0 if x.shape[1] >= other.shape[1] else 3.0)


class Odd(nn.Module):
    """Three convolutions; what the second gives meets a number that the trace does not see."""

    def __init__(self, how: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how
        self.a, self.b = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.c, self.o = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.a(image).sigmoid()
        y = self.how(self.b(x), x).sigmoid()
        return self.o(self.c(y).sigmoid())


def make(how: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    return Odd(how)


@pytest.mark.parametrize(("how", "stay"), [(root, "b"), (doubled, "b"), (product, "ab")])
def test_the_widths_that_a_number_comes_from_stay(how: Callable[[Tensor, Tensor], Tensor], stay: str) -> None:
    """Those at fault stay, with the reason, and no other; the rest takes their share."""
    model = make(how)
    limit = int(count(model, IMAGE).params * 0.7)
    made = prune(model, IMAGE, params=limit)
    assert made.cost.params <= limit
    assert made.error < 1e-9
    locked = [unit.axes[0] for unit in made.units if unit.locked == DIFFERS and unit.before == unit.after == WIDTH]
    assert "".join(axis[0] for axis in locked if axis.endswith("weight[0]")) == stay
    assert all(getattr(made.model, name).out_channels == WIDTH for name in stay)


def vanishing(x: Tensor, _: Tensor) -> Tensor:
    return x * torch.tensor(float(x.shape[1] == WIDTH))


def test_a_result_that_is_the_same_for_all_inputs_is_a_difference() -> None:
    """Where nothing comes through what is left, and something does through the original, that is no rounding."""
    model = make(vanishing)
    made = prune(model, IMAGE, params=count(model, IMAGE).params // 2)
    assert made.model.b.out_channels == WIDTH
    assert any(unit.locked == DIFFERS for unit in made.units)


def test_a_fault_that_the_trace_sees_far_from_its_cause_locks_the_cause() -> None:
    """Of all widths the one that an operator elsewhere depends on stays, with the operator's name."""
    model = make(listed)
    limit = int(count(model, IMAGE).params * 0.5)
    made = prune(model, IMAGE, params=limit)
    assert made.cost.params <= limit
    assert made.error < 1e-9
    assert made.model.b.out_channels == WIDTH
    assert {unit.axes[0] for unit in made.units if "once narrower, " in unit.locked} >= {"b.weight[0]"}
    assert not {unit.axes[0] for unit in made.units if unit.locked} & {"a.weight[0]", "c.weight[0]"}


def test_of_two_widths_that_are_compared_one_stays() -> None:
    model = make(compared)
    made = prune(model, IMAGE, params=int(count(model, IMAGE).params * 0.4))
    assert made.error < 1e-9
    assert made.model.b.out_channels == WIDTH > made.model.a.out_channels
    assert any(unit.locked == DIFFERS for unit in made.units)


def test_where_the_rest_is_not_enough_the_least_is_one_that_can_be_had() -> None:
    """What is locked stands in the way; the least that is named has passed the proof, and can be asked for."""
    model = make(root)
    with pytest.raises(PruneError, match=DIFFERS) as caught:
        prune(model, IMAGE, params=100)
    least = caught.value.least["params"]
    made = prune(model, IMAGE, params=least)
    assert (made.cost.params, made.model.b.out_channels) == (least, WIDTH)
    assert made.error < 1e-9


def test_where_no_signal_comes_through_the_cut_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be proven is not returned, and the reason is another one; a limit out of reach is refused as ever."""
    model = make(lambda x, _: x)

    def measure(_: Any, cut: Any) -> float:
        return 1e-15 if cut.shape(model.b.weight)[0] == WIDTH else nan

    monkeypatch.setattr(proven, "measure_error", measure)
    made = prune(model, IMAGE, params=count(model, IMAGE).params // 2)
    assert made.model.b.out_channels == WIDTH
    assert any(unit.locked == proven.SILENT for unit in made.units)
    with pytest.raises(PruneError) as caught:
        prune(model, IMAGE, params=10)
    assert not any(proven.SILENT in reason for reason in caught.value.reasons)


class Everywhere(nn.Module):
    """Every width is in a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(some, 8, 1) for some in (3, 8, 8))
        self.o = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = root(layer(x), x).sigmoid()
        return self.o(x)


def test_a_model_of_which_all_is_locked_is_refused() -> None:
    """Nothing is left to cut: the least is the whole."""
    torch.manual_seed(0)
    model = Everywhere()
    whole = count(model, IMAGE).params
    with pytest.raises(PruneError) as caught:
        prune(model, IMAGE, params=whole - 1)
    assert caught.value.least["params"] == whole


class Whole(nn.Module):
    """A number that is computed from values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.o(x[:, : 8 + int(x.mean() > 1e9)].repeat(1, 2, 1, 1))


class Found(Whole):
    """Places that are found by values, as a detector's suppression does."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.o(self.a(x))
        return x.flatten()[(x.flatten() > 0).nonzero()]


@pytest.mark.parametrize("make", [Whole, Found])
def test_what_goes_by_values_is_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(FeatherpressError, match=r"goes by values.*: prune the part before that"):
        prune(make(), IMAGE, params=50)
