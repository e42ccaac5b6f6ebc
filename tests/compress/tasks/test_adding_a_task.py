"""The document on adding a task, run as it is written."""

import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from featherpress.compress import Metric
from featherpress.compress.evaluation.metrics.values import ExampleValues
from featherpress.compress.evaluation.saved_scores import read_saved
from featherpress.errors import DataError

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "adding_a_task.md"


def test_the_document_works_as_written(
    run_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file is a task: it passes preflight, is distilled with its control, resumed, gated, and reported by name."""
    monkeypatch.chdir(tmp_path)
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\S+\.\w+)\n", text)
        if name:
            Path(name[1]).write_text(text)
        elif language == "sh":
            for line in text.splitlines():
                short = ["--set", "schedule.epochs=2"] if " distill " in line else []
                ending = run_command(*shlex.split(line)[1:], *short)
                assert ending.code == 0, ending.err
    report = Path("runs/dots/report/report.md").read_text()
    assert "Dots found on validation images" in report
    assert re.search(r"`width` +\| `16` +\| `4`", report), "two models of one name have settings of their own"
    assert not re.search(r"\bfaces?\b|\bAP\b", report)
    assert run_command("distill", "dots.toml", "--out", "runs/dots", "--resume").code == 0
    side = read_saved(Path("runs/dots"))
    assert (side.metric, len(side.examples)) == ("dots found", 128)
    assert run_command("gate", "runs/dots", "--baseline", "runs/dots/control", "--margin", "0.5").code == 0
    importlib.invalidate_caches()
    sys.modules.pop("dots", None)


def test_a_metric_knows_no_direction() -> None:
    """Of every score more is better: whoever says otherwise is not passed over."""
    with pytest.raises(ValidationError, match="higher_is_better"):
        Metric(key="error", name="error", higher_is_better=False)  # type: ignore[call-arg]


def test_values_are_finite_and_one_per_example(tmp_path: Path) -> None:
    """What is saved is read again; anything else is refused."""
    values = ExampleValues(metric="found", names=("a", "b"), values=np.array([1.0, 0.0]))
    values.save(tmp_path / "v.npz")
    again = ExampleValues.load(tmp_path / "v.npz")
    assert (again.metric, again.names, again.mean) == ("found", ("a", "b"), 0.5)
    for wrong in ([1.0], [1.0, np.nan], [[1.0, 2.0]]):
        with pytest.raises(DataError, match="a finite value for each of 2 examples"):
            ExampleValues(metric="found", names=("a", "b"), values=np.array(wrong))


@pytest.mark.parametrize(("values", "bounded"), [([0.0, 1.0], True), ([31.2, 36.0], False), ([-0.1, 0.5], False)])
def test_values_beyond_shares_are_not_held_within_them(tmp_path: Path, values: list[float], bounded: bool) -> None:
    """Decibels, say: an interval of theirs is not cut at 1, and a margin of 1 can be meant."""
    ExampleValues(metric="PSNR", names=("a", "b"), values=np.array(values)).save(tmp_path / "evaluation.npz")
    assert read_saved(tmp_path / "evaluation.npz").bounded is bounded
