"""Diffs: two models aligned by component."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import RenderableType
from torch import nn

from featherpress.budgets import Diff, count, diff
from featherpress.budgets.views.diff import render_diff, render_diff_markdown

Printer = Callable[[RenderableType], str]

GOLDEN = Path(__file__).parents[2] / "golden"


def model(**parts: nn.Module) -> nn.Module:
    made = nn.Sequential()
    for name, part in parts.items():
        made.add_module(name, part)
    return made


def result() -> Diff:
    before = model(stem=nn.Linear(8, 16), neck=nn.Linear(16, 16), head=nn.Linear(16, 2), old=nn.Linear(2, 2))
    new = nn.Sequential(nn.Linear(8, 2))
    after = model(stem=nn.Linear(8, 16), neck=nn.Linear(16, 4), head=nn.Linear(4, 8), new=new)
    x = torch.zeros(1, 8)
    return diff(count(before, x), count(after, x), names=("big", "small"))


def test_rows_are_aligned_and_sum() -> None:
    """Components of both models are there once, in order, with what became of them."""
    found = result()
    assert [(row.name, row.change, row.params.saved, row.macs.saved) for row in found.components] == [
        ("stem", "same", 0, 0),
        ("neck", "shrunk", 204, 192),
        ("head", "grown", -6, 0),
        ("old", "removed", 6, 4),
        ("new", "added", -18, -16),
    ]
    assert sum(row.params.saved for row in found.components) == found.total.params.saved == 186
    assert sum(row.macs.saved for row in found.components) == found.total.macs.saved == 180
    record = found.to_dict()
    assert record["total"]["params"] == {"before": 456, "after": 270, "saved": 186, "share": 186 / 456}
    assert json.loads(json.dumps(record)) == record


def test_output_is_as_the_golden_files(print_plain: Printer) -> None:
    """The table and the Markdown, letter by letter, within 80 columns."""
    text = print_plain(render_diff(result()))
    assert text == (GOLDEN / "diff.txt").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 80
    assert render_diff_markdown(result()) == (GOLDEN / "diff.md").read_text(encoding="utf-8")


def test_other_inputs_are_said(print_plain: Printer) -> None:
    """MACs at two input shapes are not compared in silence."""
    linear = nn.Linear(8, 2)
    text = print_plain(render_diff(diff(count(linear, torch.zeros(1, 8)), count(linear, torch.zeros(2, 8)))))
    assert "1x8 and 2x8: MACs are not comparable" in text


def renames(before: nn.Module, after: nn.Module) -> list[tuple[str, str]]:
    x = torch.zeros(1, 8)
    return [(row.name, row.change) for row in diff(count(before, x), count(after, x)).components]


def test_a_renamed_component_is_one_row() -> None:
    """Equal cost under another name is the same component; so is one of the same classes whose widths changed."""
    before = model(stem=nn.Linear(8, 16), neck=nn.Sequential(nn.Linear(16, 4), nn.ReLU()))
    equal = model(trunk=nn.Linear(8, 16), neck=nn.Sequential(nn.Linear(16, 4), nn.ReLU()))
    assert renames(before, equal) == [("stem -> trunk", "same"), ("neck", "same")]
    slimmer = model(trunk=nn.Linear(8, 4), middle=nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert renames(before, slimmer) == [("stem -> trunk", "shrunk"), ("neck -> middle", "shrunk")]


def test_no_rename_is_guessed() -> None:
    """Where two would do, or nothing alike is there, components are removed and added."""
    before = model(one=nn.Linear(8, 8), two=nn.Linear(8, 8))
    after = model(three=nn.Linear(8, 8), four=nn.Linear(8, 8))
    assert renames(before, after) == [("one", "removed"), ("two", "removed"), ("three", "added"), ("four", "added")]
    other = model(three=nn.Sequential(nn.Linear(8, 8), nn.PReLU()), two=nn.Linear(8, 8))
    assert renames(before, other) == [("one", "removed"), ("two", "same"), ("three", "added")]
