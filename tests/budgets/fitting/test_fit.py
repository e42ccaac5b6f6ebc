"""Fits: what functions say of a candidate is what a count says, and the best is the best of all."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from featherpress.budgets import count, fit
from featherpress.budgets.fitting.fit import render_fit
from featherpress.budgets.fitting.search_space import Knob, Space, parse_knob
from featherpress.budgets.views.tables import print_plain
from featherpress.errors import UsageError

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


KNOBS = tuple(map(parse_knob, ["width=8:64:4", "squeeze=1,2,4,8,16", "groups=1,2,4", "blocks=1:4"]))


def test_functions_say_what_a_count_says() -> None:
    """Nine hundred candidates from fewer than two hundred that are built, compared with direct counts."""
    space = Space(factory=Net, knobs=KNOBS)
    estimate = space.estimate()
    assert estimate is not None
    candidates = space.candidates
    assert len(candidates) == 900
    assert len(space.shapes) < 200
    some = [settings for settings in space.shapes if space.shapes[settings]]
    assert estimate.learn_macs([(space.shapes[s] or {}, count(space.make(s), IMAGE)) for s in some[:6]])
    for settings in candidates[::13]:
        cost = count(Net(*settings), IMAGE)
        assert estimate.params(settings) in {None, cost.params}
        assert estimate.macs(settings) in {None, cost.macs}
    assert sum(estimate.params(settings) is None for settings in candidates) < 100


@pytest.mark.parametrize(("params", "macs"), [(20_000, None), (None, 400_000), (20_000, 400_000)])
def test_the_best_is_the_best_of_all(params: int | None, macs: int | None) -> None:
    """Against counting every candidate of a smaller space directly."""
    knobs = [Knob(name="width", values=tuple(range(8, 40, 4))), Knob(name="blocks", values=(1, 2, 3))]
    costs = {s: count(Net(width=s[0], blocks=s[1]), IMAGE) for s in product(knobs[0].values, knobs[1].values)}
    inside = [
        (cost.params if params else 0, cost.macs)
        for cost in costs.values()
        if (params is None or cost.params <= params) and (macs is None or cost.macs <= macs)
    ]
    result = fit(Net, knobs, name="net", params=params, macs=macs, side=16)
    best = result.rows[0]
    assert (best.params if params else 0, best.macs if macs or params is None else max(inside)[1]) == max(inside)
    assert len(result.rows) == min(5, len(inside))
    assert all(row.fits for row in result.rows)
    assert not any(row.fits for row in result.neighbours)


def test_slack_and_neighbours_are_shown() -> None:
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


def test_nothing_fits_is_one() -> None:
    """The nearest are shown all the same."""
    result = fit(Net, [parse_knob("width=8:16:8")], name="net", params=10, side=16)
    assert (result.exit_code, result.rows) == (1, ())
    assert result.neighbours[0].settings == {"width": 8}
    assert "nothing fits 10 parameters" in print_plain(render_fit(result))


def test_refused_candidates_are_no_candidates() -> None:
    """Groups that do not divide the width are passed over and counted."""
    result = fit(Net, [parse_knob("width=8:12"), parse_knob("groups=1,4")], name="net", params=10**6, side=16)
    assert (result.candidates, result.refused) == (10, 3)
    assert dict(result.rows[0].settings) == {"width": 12, "groups": 1}
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
    ("text", "values"), [("a=1:7:3", (1, 4, 7)), ("a=2:4", (2, 3, 4)), ("a=5,3,5", (5, 3)), ("a=9", (9,))]
)
def test_knobs_are_read(text: str, values: tuple[int, ...]) -> None:
    """Ranges include their end; values keep their order."""
    assert parse_knob(text) == Knob(name="a", values=values)


@pytest.mark.parametrize("text", ["a", "a=", "=3", "a=x", "a=1:2:0", "a=9:1", "a=1:2:3:4", "a b=1", "a=1:99999"])
def test_knobs_that_cannot_be_read(text: str) -> None:
    """One sentence says what was expected."""
    with pytest.raises(UsageError, match="expected NAME=FIRST:LAST:STEP or NAME=VALUE,VALUE"):
        parse_knob(text)


def test_limits_and_knobs_are_needed() -> None:
    """Without either there is nothing to solve."""
    with pytest.raises(UsageError, match="fit needs a limit"):
        fit(Net, KNOBS, name="net")
    with pytest.raises(UsageError, match="more than 200,000 candidates"):
        fit(Net, [parse_knob("width=1:9000"), parse_knob("groups=1:30")], name="net", params=1)
    with pytest.raises(UsageError, match="fit needs knobs"):
        fit(Net, [], name="net", params=1)
