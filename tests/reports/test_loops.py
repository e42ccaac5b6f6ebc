"""The report of a comparison in a loop of one's own: any metric, placebos, and nothing of recipes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex

from featherpress.errors import FileError
from featherpress.records.comparison import Comparison
from featherpress.reports import write_report
from featherpress.reports.figures.differences import draw_differences
from featherpress.reports.figures.style import ROLES

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def difference(mean: float, low: float, high: float) -> dict[str, Any]:
    """Return a difference over three seeds and 400 examples."""
    method = {"method": "t interval", "resamples": 2000, "confidence": 0.9}
    covered = {"covers": ["seeds", "examples"], "seeds": 3, "examples": 400, "v_seeds": 1e-4, "v_examples": 2e-4}
    return {"mean": mean, "low": low, "high": high, **method, **covered, "df": 4.2}


def arm(*scores: float) -> dict[str, Any]:
    """Return an arm; its deviation is not looked at."""
    return {"scores": scores, "mean": sum(scores) / 3, "std": 0.03}


RECORD = {
    "schema": "featherpress.comparison/1",
    "metric": {"key": "log-likelihood", "name": "log-likelihood", "unit": "nats"},
    "unit": "examples",
    "seeds": [4, 5, 6],
    "control": arm(-1.9, -1.86, -1.94),
    "distilled": arm(-1.66, -1.62, -1.66),
    "difference": difference(0.253, 0.15, 0.35),
    "verdict": "better",
    "sentence": "Distillation raised log-likelihood by 0.253.",
    "others": [
        {
            "name": name,
            "scores": arm(-1.9, -1.8, -1.88),
            "steps": [],
            "difference": difference(0.04, -0.1, 0.18),
            "verdict": "not shown",
            "p": 0.3,
        }
        for name in ("shuffled", "compute")
    ],
    "knowledge": {
        "placebo": "compute",
        "difference": difference(0.213, 0.1, 0.32),
        "verdict": "better",
        "sentence": "The teacher's knowledge, beyond compute, raised log-likelihood by 0.213.",
    },
}


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `compare_arms` leaves in `loops/mine`."""
    monkeypatch.chdir(tmp_path)
    folder = Path("loops/mine")
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text(json.dumps(RECORD), encoding="utf-8")
    (folder / "arms.json").write_text('{"schema": "featherpress.arms/1"}', encoding="utf-8")
    return folder


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("named", ["loops/mine", "loops/mine/comparison.json"])
def test_all_that_the_record_says_is_there(loop: Path, named: str) -> None:
    """The verdict in its words, both arms seed by seed, the interval, placebos, what remains, and one figure."""
    file = write_report([Path(named)], page=True, latex=True, vectors=["svg"])
    assert file == loop / "report" / "report.md"
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Distilling in a loop: `mine`\n\n**Distillation raised log-likelihood by 0.253.**")
    assert "student \u22121.647 ± 0.030, 3 seeds, on 400 examples. From `comparison.json`." in text
    assert re.search(r"\| distilled +\| +\u22121.660 \| +\u22121.620 \| +\u22121.660 \| +\u22121.647 \|", text)
    assert "distilled less control: +0.253. Its 90 % interval, [+0.150, +0.350], lies above 0" in text
    assert "the choice of 3 seeds and of 400 examples" in text
    assert re.search(r"\| arm +\| log-likelihood \(nats\) \| difference to the control \|", text)
    assert re.search(r"`compute` +\| +\u22121.860 ± 0.030 \| +\+0.040 \| \[\u22120.100, \+0.180\] \| not shown", text)
    assert "`shuffled` has a teacher whose outputs belong to other examples" in text
    assert "`public`" not in text
    assert "The teacher's knowledge, beyond compute, raised log-likelihood by 0.213." in text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Did distillation help?", "Reproduce it"]
    assert "missing" not in text
    assert re.search(r"^featherpress report loops/mine(/comparison.json)?( .*)?$", text, re.MULTILINE)
    assert sorted(each.name for each in (loop / "report/figures").iterdir()) == ["differences.png", "differences.svg"]
    for other in ("report.html", "tables.tex"):
        assert "+0.253" in file.with_name(other).read_text(encoding="utf-8").replace("{+}", "+")


@pytest.mark.usefixtures("undrawn")
def test_loops_and_runs_make_one_report(loop: Path, one_seed: Path) -> None:
    """Each with its metric in the common table; the record of a run stands for the run."""
    text = write_report([one_seed / "eval/comparison.json", loop], Path("both")).read_text(encoding="utf-8")
    assert text.startswith("# 2 runs side by side")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| `one`", "| `mine`"))]
    assert [row[4].strip() for row in rows] == ["AP", "log-likelihood (nats)"]
    assert "## Run 2, `mine`: Distilling in a loop: `mine`" in text
    assert "figures/2-mine-differences.png" in text
    head = text.partition("*All runs")[0]
    assert "`featherface_v2`, student, `one`" in head
    assert f"From `{one_seed}`." in head


@pytest.mark.usefixtures("undrawn")
def test_command(loop: Path, run_command: Callable[..., Any]) -> None:
    """`featherpress report` takes the folder; a record that contradicts itself is one sentence."""
    ending = run_command("report", str(loop))
    assert (ending.code, ending.out) == (0, "report: loops/mine/report/report.md\n")
    broken = RECORD | {"verdict": "worse"}
    (loop / "comparison.json").write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(FileError, match="expected the verdict 'better' from its interval, got 'worse'"):
        write_report([loop])


def test_the_figure_shows_intervals_and_seeds() -> None:
    """A row an arm: the line is the interval, the mark the mean, and a dot each seed less the same of the control."""
    axes = draw_differences(Comparison.model_validate(RECORD)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["student", "shuffled", "compute"]
    assert axes.get_xlabel() == "difference to the control, log-likelihood (nats)"
    zero, interval, mean, dots, *others = axes.lines
    assert list(zero.get_xdata()) == [0, 0]
    assert list(interval.get_xdata()) == [0.15, 0.35]
    assert list(mean.get_xdata()) == [0.253]
    assert list(dots.get_xdata()) == pytest.approx([0.24, 0.24, 0.28])
    assert to_hex(interval.get_color()).upper() == ROLES["student"].color.upper()
    assert list(others[0].get_xdata()) == [-0.1, 0.18]
