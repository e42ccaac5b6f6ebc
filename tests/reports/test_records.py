"""Records: what is read, and the one sentence about what cannot be."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherpress.errors import FileError
from featherpress.records.comparison import Difference
from featherpress.records.evaluation import AP
from featherpress.reports.metrics import read_metrics, scores, series
from featherpress.reports.runs import load_run

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def test_all_seeds_are_found(run_dir: Path) -> None:
    """Further seeds lie in `seed-<n>/`, each with its control, and come after the first by number."""
    (run_dir / "seed-10").mkdir()
    run = load_run(run_dir)
    assert list(scores(run.evaluated["student"])) == [0.594, 0.598]
    assert list(scores(run.evaluated["control"])) == [0.571, 0.567]
    assert len(run.logged["student"]) == len(run.logged["control"]) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("budget.json", '{"schema": "featherpress.budget/1", "teacher"'),
        ("eval/comparison.json", "[]"),
        ("eval/teacher.json", '{"schema": "featherpress.budget/1"}'),
        ("environment.json", "\0"),
        ("eval/gallery/gallery.json", '{"schema": "featherpress.gallery/1", "thresholds": NaN, "images": []}'),
        ("metrics.csv", "step,epoch\n1,1\n"),
        ("control/metrics.csv", "step,epoch,task,val_ap\n1,1,much,\n"),
        ("control/metrics.csv", ""),
        ("metrics.csv", "step,epoch,task\n1,1,2.0\n"),
    ],
)
def test_broken_record_is_named(run_dir: Path, name: str, content: str) -> None:
    """A record that is cut off, of another kind or not numbers is an error of one line that names the file."""
    (run_dir / name).write_text(content, encoding="utf-8")
    with pytest.raises(FileError) as raised:
        load_run(run_dir)
    assert str(run_dir / name) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "change", "place"),
    [
        (
            "budget.json",
            lambda r: r["teacher"]["total"].update(params="485,599"),
            "teacher.total.params: expected a whole number, got '485,599'",
        ),
        (
            "budget.json",
            lambda r: r["student"]["components"][2].pop("macs"),
            "key 'macs' is missing in student.components[3]",
        ),
        ("budget.json", lambda r: r["student"]["components"].pop(), "student: expected the components' params to sum"),
        ("eval/teacher.json", lambda r: r["data"].update(faces=True), "data.faces: expected a whole number, got True"),
        ("eval/teacher.json", lambda r: r["curve"]["recall"].pop(), "curve: expected as many precisions"),
        ("eval/validation.json", lambda r: r["by_height"].append(3), "by_height[5]: expected a table, got 3"),
        ("eval/comparison.json", lambda r: r["control"]["scores"].pop(), "control.scores"),
        ("eval/comparison.json", lambda r: r["control"].update(mean=0.6), "control.mean"),
        ("eval/comparison.json", lambda r: r["difference"].update(mean=0.9), "expected `difference.mean` to be 0.0"),
        ("eval/comparison.json", lambda r: r["difference"].update(low=0.5), "difference: expected the lower end"),
        ("eval/comparison.json", lambda r: r["difference"].update(confidence=95), "difference.confidence: expected"),
        ("budget.json", lambda r: r["student"]["total"].update(params=-1), "student.total.params: expected"),
        (
            "budget.json",
            lambda r: r["student"]["components"][0].update(macs=-1),
            "student.components[1].macs: expected",
        ),
        ("budget.json", lambda r: r["student"]["total"].update(bytes=-4), "student.total.bytes: expected"),
        ("eval/teacher.json", lambda r: r.update(ap=81.2), "ap: expected"),
        ("eval/teacher.json", lambda r: r.update(params=-1), "params: expected"),
        ("eval/teacher.json", lambda r: r.update(file_bytes=-1), "file_bytes: expected"),
        ("eval/teacher.json", lambda r: r["data"].update(images=-1), "data.images: expected"),
        (
            "eval/gallery/gallery.json",
            lambda r: r["images"][0]["truth"][0]["box"].pop(),
            "key 3 is missing in images[1].truth[1].box",
        ),
    ],
)
def test_wrong_value_is_named_with_its_place(
    run_dir: Path, edit: Edit, name: str, change: Callable[[dict[str, Any]], object], place: str
) -> None:
    """A value that is missing, of another type or at odds with its neighbours is an error that says where it stands."""
    edit(run_dir / name, change)
    with pytest.raises(FileError) as raised:
        load_run(run_dir)
    assert str(run_dir / name) in str(raised.value)
    assert place in str(raised.value)


def test_an_accuracy_is_a_share(classifier: Path, edit: Edit) -> None:
    """One in percent is refused; one that rounding left above 1 is not."""
    edit(classifier / "eval/validation.json", lambda r: r.update(accuracy=1 + 1e-12))
    assert load_run(classifier).evaluated["student"]
    edit(classifier / "eval/validation.json", lambda r: r.update(accuracy=87.3))
    with pytest.raises(FileError, match="accuracy: expected"):
        load_run(classifier)


def test_directory_without_a_record_is_refused(tmp_path: Path) -> None:
    """An empty directory, a file and nothing at all are not runs."""
    (tmp_path / "recipe.toml").write_text("", encoding="utf-8")
    with pytest.raises(FileError, match="got none; name a directory"):
        load_run(tmp_path)
    with pytest.raises(FileError, match="got a file"):
        load_run(tmp_path / "recipe.toml")
    with pytest.raises(FileError, match="got nothing there"):
        load_run(tmp_path / "nowhere")


def test_metrics_survive_a_kill_and_a_resume(tmp_path: Path) -> None:
    """Losses and AP of a step become one row, a step logged again counts once, a half-written row not at all."""
    file = tmp_path / "metrics.csv"
    lines = ["step,epoch,task,val_ap", "1,0,5.0,", "2,0,4.0,", "2,0,,0.1", "2,0,3.0,", "2,0,,0.2", "3,1,2.0,", "4,1"]
    file.write_text("\n".join(lines), encoding="utf-8")
    metrics = read_metrics(file)
    assert metrics is not None
    np.testing.assert_array_equal(metrics["task"], [5.0, 3.0, 2.0])
    assert series(metrics, "epoch", "score").to_dict() == {1.0: 0.2}
    assert series(metrics, "step", "kd_feature").empty


def test_metrics_without_a_step_are_no_metrics(tmp_path: Path) -> None:
    """A run that stopped before its first logged step has nothing to draw."""
    file = tmp_path / "metrics.csv"
    file.write_text("step,epoch,task,val_ap\n", encoding="utf-8")
    assert read_metrics(file) is None


def test_records_of_before_are_read(run_dir: Path, edit: Edit) -> None:
    """Scores that a comparison has under its metric's name, and a metric that is its key alone, count as well."""

    def old(record: dict[str, Any]) -> None:
        for arm in (record["control"], record["distilled"]):
            arm["ap"] = arm.pop("scores")
        assert record["metric"] == "ap"

    new = load_run(run_dir).comparison
    edit(run_dir / "eval/comparison.json", old)
    assert load_run(run_dir).comparison == new
    assert new is not None
    assert new.scored_by == AP


def test_models_of_one_run_are_scored_alike(run_dir: Path, classifier: Path) -> None:
    """A detector's run with the evaluation of a classifier in it is refused in one sentence."""
    shutil.copy(classifier / "eval/teacher.json", run_dir / "eval/teacher.json")
    with pytest.raises(FileError, match="expected models scored by one metric, got AP and accuracy"):
        load_run(run_dir)


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "undecided"), (2, "undecided"), (3, "better")])
def test_a_record_of_few_seeds_has_no_verdict_on_the_method(seeds: int, verdict: str) -> None:
    """An interval that leaves 0 out says nothing of a method below three seeds, or where it covers images alone."""
    found = Difference(
        mean=0.1, low=0.05, high=0.15, confidence=0.95, resamples=2000, method="", covers=("seeds",), seeds=seeds
    )
    assert found.verdict == verdict
    assert found.model_copy(update={"covers": ("examples",)}).verdict == "undecided"
