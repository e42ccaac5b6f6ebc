"""Fits: the best is the best of all, and every number shown is counted."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from rich.console import RenderableType
from torch import Tensor, nn

from featherpress.budgets import Cost, count, fit
from featherpress.budgets.fitting.fit import FitRow, Knob, parse_knob, render_fit
from featherpress.errors import UsageError

Printer = Callable[[RenderableType], str]

IMAGE = torch.zeros(1, 3, 16, 16)


class Net(nn.Module):
    """Widths, a squeeze by whole division, groups, repeats and a tied layer: what real factories do."""

    def __init__(self, width: int = 16, squeeze: int = 4, groups: int = 1, blocks: int = 2) -> None:
        super().__init__()
        hidden = max(width // squeeze, 1)
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.gate = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1))
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=groups) for _ in range(blocks))
        self.head = nn.Linear(width, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = x * self.gate(x.mean((2, 3), keepdim=True))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(("params", "macs"), [(20_000, None), (None, 400_000), (20_000, 400_000)])
def test_the_best_is_the_best_of_all(params: int | None, macs: int | None) -> None:
    """Against counting every candidate directly; more groups and a greater squeeze cost less, not more."""
    knobs = [parse_knob(text) for text in ("width=8:24:4", "squeeze=1,4", "groups=1,2,4", "blocks=1,2")]
    costs = {s: count(Net(*s), IMAGE) for s in product(*(knob.values for knob in knobs))}
    inside = [
        (cost.params if params else 0, cost.macs)
        for cost in costs.values()
        if (params is None or cost.params <= params) and (macs is None or cost.macs <= macs)
    ]
    result = fit(Net, knobs, name="net", params=params, macs=macs, side=16)
    best = result.rows[0]
    assert (best.params if params else 0, best.macs if macs or params is None else max(inside)[1]) == max(inside)
    assert len(result.rows) == min(5, len(inside))
    assert all(_fits(row) for row in result.rows)
    assert all((row.params, row.macs) == _costs(costs[tuple(row.settings.values())]) for row in result.rows)
    assert not any(_fits(row) for row in result.neighbours)
    assert len(result.rows) + len(result.neighbours) == min(5, len(inside)) + min(3, len(costs) - len(inside))


def _fits(row: FitRow) -> bool:
    return all(slack is None or slack >= 0 for slack in (row.params_slack, row.macs_slack))


def _costs(cost: Cost) -> tuple[int, int]:
    return cost.params, cost.macs


def test_the_nearest_is_the_one_that_breaks_its_worst_limit_least() -> None:
    """By hand: a linear layer of n weights has n parameters and n MACs for one row of input."""

    class Line(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.line = nn.Linear(3, n, bias=False)

        def forward(self, image: Tensor) -> Tensor:
            return self.line(image.mean((2, 3)))

    result = fit(Line, [parse_knob("n=1:9")], name="line", params=15, macs=12, side=4)
    assert [row.settings["n"] for row in result.rows] == [4, 3, 2, 1]
    assert [row.settings["n"] for row in result.neighbours] == [5, 6, 7]
    assert (result.rows[0].params_slack, result.rows[0].macs_slack) == (3, 0)
    assert (result.neighbours[0].params_slack, result.neighbours[0].macs_slack) == (0, -3)


def test_slack_and_neighbours_are_shown(print_plain: Printer) -> None:
    """A sentence says what is left, the tables what else is near; JSON is exact."""
    result = fit(Net, [parse_knob("width=8:32:8")], name="net", params=6_000, side=16)
    assert (result.exit_code, dict(result.rows[0].settings)) == (0, {"width": 16})
    left = 6_000 - result.rows[0].params
    text = print_plain(render_fit(result))
    assert f"{left:,} parameters left" in " ".join(text.split())
    assert text == (Path(__file__).parents[2] / "golden" / "fit.txt").read_text(encoding="utf-8")
    record = result.to_dict()
    assert record["rows"][0]["params_slack"] == left
    assert json.loads(json.dumps(record)) == record


def test_nothing_fits_is_one(print_plain: Printer) -> None:
    """The nearest are shown all the same."""
    result = fit(Net, [parse_knob("width=8:16:8")], name="net", params=10, side=16)
    assert (result.exit_code, result.rows) == (1, ())
    assert result.neighbours[0].settings == {"width": 8}
    assert "nothing fits 10 parameters" in print_plain(render_fit(result))


def test_refused_candidates_are_no_candidates(print_plain: Printer) -> None:
    """Groups that do not divide the width are passed over and counted."""
    result = fit(Net, [parse_knob("width=8:12"), parse_knob("groups=1,4")], name="net", params=10**6, side=16)
    assert (result.candidates, result.refused) == (10, 3)
    assert dict(result.rows[0].settings) == {"width": 12, "groups": 1}
    assert "10 candidates, 3 that cannot be built" in print_plain(render_fit(result))
    with pytest.raises(UsageError, match=r"none of the 2 candidates can be built: .*colour"):
        fit(Net, [parse_knob("colour=1,2")], name="net", params=1)


def test_work_that_no_weight_explains_is_traced() -> None:
    """A stride is a knob that moves places, and attention has products without weights: both are still exact."""

    class Strided(nn.Module):
        def __init__(self, stride: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride)

        def forward(self, image: Tensor) -> Tensor:
            x = self.conv(image).flatten(2)
            return x @ x.transpose(1, 2)

    result = fit(Strided, [parse_knob("stride=1:6")], name="net", macs=10_000, side=16)
    macs = {stride: count(Strided(stride), IMAGE).macs for stride in range(1, 7)}
    best = max((amount, stride) for stride, amount in macs.items() if amount <= 10_000)
    assert (result.rows[0].macs, result.rows[0].settings["stride"]) == best


@pytest.mark.parametrize(
    ("text", "values"),
    [("a=1:7:3", (1, 4, 7)), ("a=2:4", (2, 3, 4)), ("a=5,3,5", (5, 3)), ("a=9", (9,)), ("a=1_000,1e3,.5", (1000, 0.5))],
)
def test_knobs_are_read(text: str, values: tuple[int, ...]) -> None:
    """Ranges include their end; values keep their order."""
    assert parse_knob(text) == Knob(name="a", values=values)


# Numbers that take minutes to read, or more than any machine's memory.
UNREADABLE = ("a=1e99999999", "a=1:1e99999999", "a=1:9:1e-99999999", f"a={'9' * 5000}", "a=nan", "a=1e400", "a=٣")


@pytest.mark.parametrize(
    "text", ["a", "a=", "=3", "a=x", "a=1:2:0", "a=9:1", "a=1:2:3:4", "a b=1", "a=1:99999", *UNREADABLE]
)
def test_knobs_that_cannot_be_read(text: str) -> None:
    """One sentence says what was expected."""
    with pytest.raises(UsageError, match="expected NAME=FIRST:LAST:STEP or NAME=VALUE,VALUE"):
        parse_knob(text)


def test_limits_and_knobs_are_needed() -> None:
    """Without either there is nothing to solve."""
    with pytest.raises(UsageError, match="fit needs a limit"):
        fit(Net, [parse_knob("width=8")], name="net")
    with pytest.raises(UsageError, match="limit of at least 1"):
        fit(Net, [parse_knob("width=8")], name="net", params=0)
    with pytest.raises(UsageError, match="more than 2,000 candidates"):
        fit(Net, [parse_knob("width=1:667"), parse_knob("groups=1:3")], name="net", params=1)
    with pytest.raises(UsageError, match="fit needs knobs"):
        fit(Net, [], name="net", params=1)


def test_a_candidate_that_memory_does_not_hold_is_no_traceback() -> None:
    """What cannot be counted on meta is built with memory; where there is too little, the count's own error stands."""

    class Wide(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            if not torch.empty(0).is_meta:
                raise RuntimeError("no memory")
            self.weight = nn.Parameter(torch.ones(n))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * float(self.weight.sum())

    with pytest.raises(UsageError, match="Wide reads values"):
        fit(Wide, [parse_knob("n=4")], name="wide", params=9, macs=9, side=4)
