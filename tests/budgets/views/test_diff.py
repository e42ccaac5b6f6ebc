"""Diffs: two models aligned by component."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import RenderableType
from torch import nn

from featherpress.budgets import Diff, audit, count, diff
from featherpress.budgets.auditing.baseline import dump_baseline
from featherpress.budgets.files.weights import count_weights, list_checkpoint
from featherpress.budgets.views.diff import render_diff, render_diff_markdown
from featherpress.records.audit import Audit as AuditRecord
from featherpress.records.audit import Pin

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


def test_a_count_and_records_of_counts_are_compared_alike(tmp_path: Path, print_plain: Printer) -> None:
    """What --json and --pin wrote stands for the model; weights alone have no MACs; renamed parts are found by cost."""
    x = torch.zeros(1, 8)
    before, after = (
        model(stem=nn.Linear(8, 16), head=nn.Linear(16, 2)),
        model(trunk=nn.Linear(8, 16), head=nn.Linear(16, 3)),
    )
    one, two = (audit(each, name=name, example_inputs=x) for each, name in ((before, "one"), (after, "two")))
    (tmp_path / "one.json").write_text(json.dumps(one.to_dict()))
    (tmp_path / "two.json").write_text(dump_baseline(two))
    sides = (one.cost, AuditRecord.load(tmp_path / "one.json")), (two.cost, Pin.load(tmp_path / "two.json"))
    found = {
        tuple((row.name, row.params.saved, row.macs.saved if row.macs else None) for row in diff(a, b).components)
        for a in sides[0]
        for b in sides[1]
    }
    assert found == {(("stem -> trunk", 0, 0), ("head", -17, -16))}
    held = count_weights(list_checkpoint(before.state_dict()), name="w.pth", size=9)[0]
    weights = diff(held, two.cost)
    assert (weights.total.macs, weights.total.params.saved) == (None, -17)
    text = print_plain(render_diff(weights))
    assert "MACs are not known" in text
    assert "\nMACs  " not in text


NET = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Linear(4, WIDTH))\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A repository whose main has a model of width 3, and whose branch one of width 2 after main went on."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words: str) -> str:
        options = ["-c", "user.name=x", "-c", "user.email=x@y.z", "-c", "init.defaultBranch=main"]
        return subprocess.run(
            ["git", *options, *words],  # noqa: S607
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def commit(width: int, where: str = "pkg") -> None:
        (tmp_path / where).mkdir(exist_ok=True)
        (tmp_path / where / "nets_of_git.py").write_text(NET.replace("WIDTH", str(width)))
        git("add", "-A")
        git("commit", "-qm", f"width {width}")

    git("init", "-q")
    commit(3)
    git("branch", "topic")
    commit(9)
    git("checkout", "-q", "topic")
    commit(2)
    (tmp_path / "pkg" / "nets_of_git.py").write_text("raise RuntimeError('not committed')\n")
    return git


def test_two_revisions_are_compared(
    run_command: Callable[..., Any], repository: Callable[..., str], tmp_path: Path
) -> None:
    """Each in a worktree of its own, which is gone afterwards; three dots start where the branch left."""
    words = ("--target", "pkg.nets_of_git:net", "--input", "1x4", "--json")
    for revisions, before in ((["main...HEAD"], 15), (["main..topic"], 45), (["main", "HEAD"], 45), (["main..."], 15)):
        code, out, err = run_command("diff", *revisions, *words)
        assert code == 0, err
        total = json.loads(out)["total"]
        assert (total["params"]["before"], total["params"]["after"]) == (before, 10)
    assert len(repository("worktree", "list").splitlines()) == 1
    code, _, err = run_command("diff", "main...HEAD", "--target", "pkg.nets_of_git:gone", "--input", "1x4")
    assert (code, "has no 'gone'" in err, err.count("\n")) == (2, True, 1)
    for wrong in (["nowhere..HEAD"], ["main"], ["main...HEAD", "topic"]):
        code, out, err = run_command("diff", *wrong, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
    assert "at nowhere: " in run_command("diff", "nowhere..HEAD", *words)[2]
    assert run_command("diff", "main...HEAD", "--target", "featherface_v2")[0] == 2
    assert run_command("diff", "featherface_v2")[0] == 2


def test_anything_beside_anything(run_command: Callable[..., Any], tmp_path: Path) -> None:
    """A model beside its record and its file of weights."""
    linear = ("torch.nn:Linear", "--set", "in_features=4", "--set", "out_features=2", "--input", "1x4")
    (tmp_path / "l.json").write_text(run_command("audit", *linear, "--json")[1])
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "l.pth")
    (tmp_path / "w.json").write_text(run_command("audit", "l.pth", "--json")[1])
    for other in ("l.json", "l.pth", "w.json"):
        code, out, err = run_command("diff", linear[0], other, *linear[1:], "--json")
        assert (code, json.loads(out)["total"]["params"]["saved"]) == (0, 0), err
    (tmp_path / "x.json").write_text('{"schema": "other"}')
    assert run_command("diff", "x.json", "l.pth")[0] == 2


def test_what_no_side_takes_is_refused(run_command: Callable[..., Any], tmp_path: Path) -> None:
    """Settings are for models, inputs and formulas for what is counted; one side that takes them is enough."""
    linear = ("torch.nn:Linear", "--set", "in_features=4", "--set", "out_features=2", "--input", "1x4")
    (tmp_path / "l.json").write_text(run_command("audit", *linear, "--json")[1])
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "l.pth")
    for other, option, words in (
        ("l.json", "--set=a=1", "--set is for a model: l.json and l.json are none"),
        ("l.pth", "--set=a=1", "--set is for a model: l.json and l.pth are none"),
        ("l.json", "--input=1x4", "--input and --formula are for what is counted"),
        ("l.json", "--formula=a::b=1", "--input and --formula are for what is counted"),
    ):
        code, out, err = run_command("diff", "l.json", other, option)
        assert (code, out, words in err) == (2, "", True)
