"""The same count by module and by operator, sorted, in every format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from rich.console import RenderableType
from torch import Tensor, nn

from featherpress.budgets import Breakdown, audit, breakdown, count
from featherpress.budgets.views.breakdown import render_breakdown, render_breakdown_csv, render_breakdown_markdown
from featherpress.budgets.views.printing import choose_breakdown, print_audit, sort_components
from featherpress.errors import UsageError

Printer = Callable[[RenderableType], str]


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU()), nn.Conv2d(4, 4, 1))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(self.stem(image)) * self.scale


COST = count(Toy(), torch.zeros(1, 3, 6, 6))


def rows(shown: Breakdown) -> list[tuple[str, int, int]]:
    return [(row.name, row.params, row.macs) for row in shown.rows]


def test_modules_to_a_depth() -> None:
    """A module at the depth stands for all below it, one above it for itself; every depth has the same sums."""
    assert rows(breakdown(COST, depth=1)) == [("(root)", 1, 0), ("stem", 224, 3456), ("body", 56, 768)]
    assert rows(breakdown(COST, depth=2))[2:] == [("body.0", 36, 512), ("body.1", 20, 256)]
    assert [row.name for row in breakdown(COST, depth=9).rows] == ["(root)", "stem", "body.0.0", "body.0.1", "body.1"]
    for depth in (1, 2, 3):
        shown = breakdown(COST, depth=depth)
        assert sum(row.activations for row in shown.rows) == shown.total.activations == COST.activations


def test_operators() -> None:
    """Convolutions have all MACs, element-wise operators none, and free ones are listed."""
    shown = breakdown(COST, by="operator", sort="macs")
    assert (shown.rows[0].name, shown.rows[0].calls, shown.rows[0].macs) == ("aten::convolution", 3, COST.macs)
    assert {row.name: row.elementwise for row in shown.rows}["aten::relu"] == 64
    assert sum(row.elementwise for row in shown.rows) == COST.elementwise


def test_orders() -> None:
    """Largest first, or by name; an unknown order is a mistake in one sentence."""
    assert [row.name for row in breakdown(COST, depth=1, sort="macs").rows] == ["stem", "body", "(root)"]
    assert [row.name for row in breakdown(COST, depth=1, sort="name").rows] == ["(root)", "body", "stem"]
    result = audit(Toy(), name="toy", example_inputs=torch.zeros(1, 3, 6, 6))
    assert [row.name for row in sort_components(result, "params").components] == ["stem", "body", "(root)"]
    with pytest.raises(UsageError, match="cannot sort by 'size'; expected one of model, name"):
        breakdown(COST, sort="size")
    with pytest.raises(UsageError, match="depth is at least 1"):
        breakdown(COST, depth=0)


@pytest.mark.parametrize(("file", "by"), [("modules.txt", "module"), ("operators.txt", "operator")])
def test_output_is_as_the_golden_file(print_plain: Printer, file: str, by: Literal["module", "operator"]) -> None:
    """Both tables, letter by letter."""
    text = print_plain(render_breakdown(breakdown(COST, by=by, depth=2)))
    assert text == (Path(__file__).parents[2] / "golden" / file).read_text(encoding="utf-8")


def test_formats(capsys: pytest.CaptureFixture[str]) -> None:
    """A view is printed in every format, with exact numbers where machines read."""
    result = audit(Toy(), name="toy", example_inputs=torch.zeros(1, 3, 6, 6))
    shown = choose_breakdown(result, by="component", depth=2, sort="model")
    assert shown is not None
    printed = {}
    for style in ("table", "json", "markdown", "csv", "junit"):
        print_audit(result, style=style, shown=shown)
        printed[style] = capsys.readouterr().out
    assert "body.0" in printed["table"]
    assert max(map(len, printed["table"].splitlines())) <= 80
    assert json.loads(printed["json"])["view"]["rows"][1]["name"] == "stem"
    assert printed["csv"] == render_breakdown_csv(shown)
    assert printed["csv"].splitlines()[2] == "stem,224,3456,0,512,1"
    assert render_breakdown_markdown(shown) in printed["markdown"]
    assert printed["junit"].startswith("<?xml version=")
    assert '<testsuite name="toy"' in printed["junit"]


def test_memory_shared_and_unused_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Tied tensors are named with their owners, parameters that nobody reads by name, memory at each precision."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model.register_parameter("idle", nn.Parameter(torch.zeros(3), requires_grad=False))
    result = audit(model, name="toy", example_inputs=torch.zeros(1, 4))
    print_audit(result, style="table")
    printed = capsys.readouterr().out
    assert "shared: 0.weight, 1.weight: 16 parameters" in printed
    assert "24 trainable, 3 frozen, 3 never read (idle)" in printed
    record = result.to_dict()
    assert record["shared"] == [{"names": ["0.weight", "1.weight"], "params": 16}]
    assert record["unused"] == ["idle"]
    assert record["memory"]["weights"] == {"fp32": 108, "fp16": 54, "int8": 27}
    assert record["memory"]["peak"]["fp32"] == 32
