"""The gate on the command line: CSV files, runs, records, COCO results, and every bad input in one sentence."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from featherpress.cli import app
from featherpress.commands.gating import run_gate
from featherpress.compress.evaluation import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.errors import FeatherpressError, UsageError


def table(path: Path, scores: Sequence[float], *, seed: str = "", names: Sequence[str] = ()) -> Path:
    """Write one value per example."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["example", "score", *(["seed"] if seed else [])])
        for number, score in enumerate(scores):
            writer.writerow([names[number] if names else f"{number}.jpg", score, *([seed] if seed else [])])
    return path


def gate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


def test_annotations_that_nobody_reads(tmp_path: Path) -> None:
    """Ground truth is refused where no side holds COCO results."""
    scores = table(tmp_path / "old.csv", [0.0, 1.0])
    ended = gate(scores, "--baseline", scores, "--margin", "0.1", "--ground-truth", tmp_path / "nothing.json")
    assert isinstance(ended.exception, UsageError)
    assert "goes with COCO results" in str(ended.exception)


def test_tabs_are_read_as_commas_are(tmp_path: Path) -> None:
    """A table with tabs is decided as one with commas."""
    old, new = table(tmp_path / "old.csv", [0.0, 1.0] * 20), tmp_path / "new.tsv"
    new.write_text(old.read_text().replace(",", "\t"))
    assert run_gate([new], [old], margin=0.1).outcome == "not worse"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """40 examples, half of them right."""
    return table(tmp_path / "old.csv", [0.0, 1.0] * 20)


@pytest.mark.parametrize(
    ("scores", "code", "outcome"),
    [
        ([0.0, 1.0] * 20, 0, "not worse"),
        ([0.0, 0.5] * 20, 1, "worse"),
        ([0.0, 1.0] * 19 + [0.0, -3.0], 3, "undecided"),
    ],
)
def test_the_exit_code_says_the_outcome(
    tmp_path: Path, old: Path, scores: list[float], code: int, outcome: str
) -> None:
    found = gate(table(tmp_path / "new.csv", scores), "--baseline", old, "--margin", "0.1", "--metric", "IoU")
    assert (found.exit_code, found.stdout.startswith(f"{outcome}: ")) == (code, True)
    assert "in IoU" in found.stdout
    assert "margin is 0.100" in found.stdout


@pytest.mark.parametrize(("choice", "code"), [("pass", 0), ("fail", 1)])
def test_a_build_may_pass_or_fail_what_is_undecided(tmp_path: Path, old: Path, choice: str, code: int) -> None:
    new = table(tmp_path / "new.csv", [0.0, 1.0] * 19 + [0.0, -3.0])
    arguments = [new, "--baseline", old, "--margin", "0.1", "--undecided", choice, "--format", "junit"]
    found = gate(*arguments)
    assert found.exit_code == code
    case = ElementTree.fromstring(found.stdout).find("testcase")  # noqa: S314 - our own
    assert case is not None
    assert (case.find("failure") is not None, case.find("skipped") is not None) == (code == 1, code == 0)


def test_json_and_markdown_have_the_numbers(tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's summary gets the Markdown too."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    arguments = [old, "--baseline", old, "--margin", "0.1", "--format"]
    record = json.loads(gate(*arguments, "json").stdout)
    assert (record["outcome"], record["margin"], record["difference"]) == ("not worse", 0.1, 0)
    assert "| 0.5000 | 0.5000 | +0.0000 | +0.0000 to +0.0000 | 0.1 | not worse |" in gate(*arguments, "markdown").stdout
    assert "not worse:" in (tmp_path / "summary.md").read_text()


def test_rows_in_another_order_are_put_in_order(tmp_path: Path) -> None:
    """Examples are paired by name, and seeds by theirs, not by where they stand."""
    names = [f"{number}.jpg" for number in range(40)]
    scores = np.random.default_rng(0).random(40)
    one = table(tmp_path / "one.csv", scores.tolist(), names=names)
    other = table(tmp_path / "other.csv", scores[::-1].tolist(), names=names[::-1])
    found = run_gate([one], [other], margin=0.01)
    assert (found.interval.difference, found.interval.low) == (0, 0)


def test_seeds_are_files_or_a_column(tmp_path: Path) -> None:
    """Three files, or one with three seeds in any order, are the same comparison, over seeds."""
    random = np.random.default_rng(1)
    new, old = random.random((3, 40)), random.random((3, 40))
    files = {
        name: [table(tmp_path / f"{name}{seed}.csv", row.tolist()) for seed, row in enumerate(rows)]
        for name, rows in (("new", new), ("old", old))
    }
    joined = {}
    for name, rows, order in (("new", new, (0, 1, 2)), ("old", old, (2, 0, 1))):
        parts = [table(tmp_path / "part.csv", rows[seed].tolist(), seed=str(seed)).read_text() for seed in order]
        joined[name] = tmp_path / f"{name}.csv"
        joined[name].write_text(parts[0] + "".join(part.split("\n", 1)[1] for part in parts[1:]))
    by_files = run_gate(files["new"], files["old"], margin=0.1)
    by_column = run_gate([joined["new"]], [joined["old"]], margin=0.1)
    assert by_files.interval == by_column.interval
    assert by_files.interval.covers == ("seeds", "examples")
    assert run_gate(files["new"], files["old"][:1], margin=0.1).interval.seeds == 3


def test_csv_files_are_decided_without_torch(tmp_path: Path, old: Path) -> None:
    code = (
        "import sys; sys.argv = ['featherpress', 'gate', sys.argv[1], '--baseline', sys.argv[1], '--margin', '0.1']\n"
        "from featherpress.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    sys.exit(end.code or 5 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(old)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "not worse"), done.stderr


def detections(*, shift: float) -> DetectionSet:
    """40 images with a face each, found with boxes that are moved to the side."""
    box = np.array([[10.0, 10, 30, 30]])
    one = Detections(boxes=box + shift, scores=np.array([0.9]), landmarks=np.zeros((1, 10)))
    truth = Truth(boxes=box, ignored=np.array([False]))
    names = tuple(f"{number}.jpg" for number in range(40))
    return DetectionSet(names=names, detections=(one,) * 40, truths=(truth,) * 40)


def run_folder(root: Path, *, shift: float, seeds: Sequence[int] = (4,)) -> Path:
    for number, seed in enumerate(seeds):
        folder = root / (f"seed-{seed}" if number else "") / "eval"
        folder.mkdir(parents=True)
        detections(shift=shift).save(folder / "validation.npz")
        (folder / "validation.json").write_text("{}")
    (root / "recipe.toml").write_text(f"seeds = {list(seeds)}\n")
    return root


def test_runs_records_and_evaluations_are_read(tmp_path: Path) -> None:
    """A run with its seeds, its record, and what `evaluate --out` wrote; misplaced boxes are worse by all of AP."""
    good, bad = (run_folder(tmp_path / name, shift=shift, seeds=(4, 1, 2)) for name, shift in (("g", 0), ("b", 15)))
    found = run_gate([bad], [good], margin=0.1, metric="ap")
    assert (found.outcome, found.metric, found.interval.seeds) == ("worse", "AP", 3)
    assert run_gate([good], [good], margin=0.1).outcome == "not worse"
    alone = run_gate([good / "eval/validation.json"], [bad / "eval/validation.npz"], margin=0.1)
    assert (alone.outcome, alone.interval.seeds, alone.unit) == ("not worse", 1, "images")
    folder = tmp_path / "scored"
    folder.mkdir()
    detections(shift=0).save(folder / "detections.npz")
    assert run_gate([folder], [good / "eval/validation.npz"], margin=0.1).outcome == "not worse"


def test_the_control_of_a_run_is_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", shift=0, seeds=(0, 1, 2))
    for folder in (run, run / "seed-1", run / "seed-2"):
        target = folder / "control" / "eval"
        target.mkdir(parents=True)
        detections(shift=15).save(target / "validation.npz")
    found = run_gate([run], [run / "control"], margin=0.1)
    assert (found.scores, found.interval.seeds) == ((1.0, 0.0), 3)


def test_classifiers_are_scored_by_accuracy(tmp_path: Path) -> None:
    names = tuple(f"{number}" for number in range(40))
    labels = np.arange(40) % 4
    ClassPredictions(names=names, labels=labels, predicted=labels).save(tmp_path / "good.npz")
    ClassPredictions(names=names, labels=labels, predicted=labels * 0).save(tmp_path / "bad.npz")
    found = run_gate([tmp_path / "bad.npz"], [tmp_path / "good.npz"], margin=0.1)
    assert (found.outcome, found.metric, found.scores) == ("worse", "accuracy", (0.25, 1.0))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """40 images, two categories, of which every second image has the second."""
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(40)]
    kinds = [(number, kind) for number in range(40) for kind in ((1, 2) if number % 2 else (1,))]
    labels = [{"image_id": image, "category_id": kind, "bbox": [10, 10, 20, 20]} for image, kind in kinds]
    truth = {"images": images, "annotations": labels, "categories": [{"id": kind} for kind in (1, 2, 3)]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for name, wanted in (("all", (1, 2)), ("first", (1,))):
        rows = [{**row, "score": 0.5} for row in labels if row["category_id"] in wanted]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def test_coco_results_are_scored_over_categories(coco: Path) -> None:
    """One category of two found is an AP of a half; a third without objects does not count."""
    found = run_gate(
        [coco / "first.json"], [coco / "all.json"], margin=0.1, metric="AP", ground_truth=coco / "truth.json"
    )
    assert (found.outcome, found.scores) == ("worse", (0.5, 1.0))


def test_coco_results_of_other_images_are_refused(coco: Path) -> None:
    (coco / "few.json").write_text(json.dumps([{"image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]))
    found = gate(
        coco / "few.json", "--baseline", coco / "all.json", "--margin", "0.1", "--ground-truth", coco / "truth.json"
    )
    assert isinstance(found.exception, FeatherpressError)
    assert "1 images are not in" in str(found.exception)


BAD = {
    "text as a score": ("example,score\na,1\nb,high\n", {}, "line 3: expected a number as score, got 'high'"),
    "NaN": ("example,score\na,nan\n", {}, "line 2: expected a number as score, got 'nan'"),
    "empty": ("", {}, "is empty"),
    "a header alone": ("example,score\n", {}, "is empty: it has a header and no row"),
    "other columns": ("image,iou\na,1\n", {}, r"expected the columns example,score \(and seed\), got image,iou"),
    "twice": ("example,score\na,1\na,1\n", {}, "the example 'a' is there a second time"),
    "too short": ("example,score\na\n", {}, "line 2: expected 2 values, got fewer"),
    "other ids": (
        "example,score\na,1\nb,1\n",
        {},
        "40 are missing and 2 are unknown there",
    ),
    "no margin": (None, {"margin": "0"}, "a margin is a positive number in the unit of score, got 0"),
    "a negative margin": (None, {"margin": "-1"}, "a margin is a positive number"),
    "a margin with a unit": (
        None,
        {"margin": "0.5%"},
        "a margin is a positive number in the unit of score, as",
    ),
    "a margin in points": (
        None,
        {"margin": "1.5"},
        "the margin 1.5 is in another unit: score lies",
    ),
    "a confidence in percent": (None, {"confidence": 95}, "a confidence is above 0.5 and below 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(tmp_path: Path, old: Path, name: str) -> None:
    text, changes, message = BAD[name]
    new = tmp_path / "new.csv"
    new.write_text(old.read_text() if text is None else text)
    with pytest.raises(FeatherpressError, match=message) as caught:
        run_gate([new], [old], **({"margin": "0.1"} | changes))  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_two_metrics_other_seeds_and_missing_files_are_refused(tmp_path: Path, old: Path, coco: Path) -> None:
    run = run_folder(tmp_path / "run", shift=0)
    names = tuple(f"{number}.jpg" for number in range(40))
    labels = np.zeros(40, int)
    ClassPredictions(names=names, labels=labels, predicted=labels).save(tmp_path / "answers.npz")
    seeded = [table(tmp_path / f"s{seed}.csv", [1.0] * 40) for seed in range(3)]
    cases: list[tuple[list[Path], list[Path], str, str]] = [
        ([tmp_path / "answers.npz"], [run], "", "is scored by accuracy and .* by AP; a gate compares one metric"),
        ([run], [run], "accuracy", "--metric is accuracy, and both sides are scored by AP"),
        (seeded[:2], seeded, "", "has the seeds 0, 1 and .* has 0, 1, 2"),
        ([tmp_path / "none.csv"], [old], "", "there is no file or folder"),
        ([old, run], [old], "", "several files are seeds only where all are CSV"),
        ([coco / "all.json"], [coco / "all.json"], "", "holds COCO results: give --ground-truth"),
        ([tmp_path], [tmp_path], "", "expected a run or an evaluation, found no"),
    ]
    for candidate, baseline, metric, message in cases:
        with pytest.raises(FeatherpressError, match=message):
            run_gate(candidate, baseline, margin=0.1, metric=metric)
