"""Records without a run: evaluations side by side, a benchmark or an export alone, audits with what was exported."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherpress.errors import DataError, FileError, UsageError
from featherpress.reports import write_report
from featherpress.reports.formats import DASH, MINUS
from featherpress.verdicts import Scores
from featherpress.verdicts.tables import Side

pytestmark = pytest.mark.usefixtures("undrawn")

GATE = "The int8 file is not worse than the float32 file by a margin of 0.005."


def evaluations(run: Path, *names: str, **changes: Any) -> list[Path]:
    """Write folders as `evaluate --out` does, the first with the teacher's record, the others with the student's."""
    for name, source in zip(names, ("teacher", *["validation"] * len(names)), strict=False):
        record = json.loads((run / f"eval/{source}.json").read_text(encoding="utf-8"))
        record |= changes if name == names[-1] else {}
        Path(name).mkdir(parents=True)
        (Path(name) / "evaluation.json").write_text(json.dumps(record), encoding="utf-8")
    return [Path(name) for name in names]


def audits(run: Path) -> list[Path]:
    """Write both audits of a run into files of their own."""
    budget = json.loads((run / "budget.json").read_text(encoding="utf-8"))
    for role in ("teacher", "student"):
        Path(f"{role}.json").write_text(json.dumps(budget[role]), encoding="utf-8")
    return [Path("teacher.json"), Path("student.json")]


def export(score: float | None = 0.596) -> Path:
    """Write the record of an export of V2 in both precisions."""
    files = [
        {"kind": "onnx", "precision": "float32", "bytes": 1_100_000, "opset": 17},
        {"kind": "int8", "precision": "int8", "bytes": 400_000, "opset": 17},
    ]
    evaluation = {"float32": {"score": score}, "int8": {"score": 0.581}, "gate": GATE}
    record = {"schema": "featherpress.export/1", "model": "featherface_v2", "params": 256_812, "files": files}
    Path("v2.export.json").write_text(json.dumps(record | {"evaluation": evaluation}), encoding="utf-8")
    return Path("v2.export.json")


def read_values(files: Sequence[Path], order: Sequence[str] | None) -> Side:
    """Stand for what lies beside each evaluation: 0.812 on average in `old`, 0.594 elsewhere, nothing in `bare`."""
    if files[0].parent.name == "bare":
        raise DataError("the record alone has no value per image.")
    mean = 0.812 if files[0].parent.name == "old" else 0.594
    values = np.random.default_rng(0).permutation([0.0, 2 * mean] * 50) if order else np.array([0.0, 2 * mean] * 50)
    side = {"name": "", "metric": "AP", "seeds": ("0",), "examples": tuple(map(str, range(100))), "bounded": True}
    return Side(scores=Scores.of([values]), **side)  # type: ignore[arg-type]


def rows(text: str, begins: str) -> dict[str, list[str]]:
    """Return the table whose head begins so, by its first column."""
    _, _, after = text.partition(f"\n| {begins}")
    lines = f"{begins}{after}".partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_two_evaluations_are_set_side_by_side(run_dir: Path) -> None:
    """Folders of `evaluate --out` alone give the table, AP by height, working points, curves and the difference."""
    old, new = evaluations(run_dir, "old", "new")
    report = write_report([old, new], read_scores=read_values)
    assert report == old / "report" / "report.md"
    text = report.read_text(encoding="utf-8")
    assert text.startswith("# Evaluations: `old`, `new`\n")
    decided = rows(text, "model ")
    assert decided["`featherface_v1`, old"][:2] == ["485,599", "0.812"]
    assert decided["`featherface_v2`, new"][:2] == ["256,812", "0.594"]
    assert rows(text, "face height")["all"] == ["500", "0.812", "0.594"]
    difference, interval, images = rows(text, "evaluation ")["new"]
    assert (difference, images) == (f"{MINUS}0.218", "100")
    assert interval.startswith(f"[{MINUS}")
    for name in ("precision_recall", "ap_by_height"):
        assert (report.parent / "figures" / f"{name}.png").is_file()
    assert "`old/evaluation.json` and `new/evaluation.json`" in text
    assert "best F1" in text
    assert "Protocol behind every AP" in text
    assert "featherpress report old new\n" in text
    assert "distil" not in text.lower()
    files = [each / "evaluation.json" for each in (old, new)]
    assert rows(write_report(files).read_text(encoding="utf-8"), "model ").keys() == decided.keys()


def test_evaluations_of_other_data_are_not_judged(run_dir: Path) -> None:
    """No score is the best, no difference is given, and both are said; without values per image that is said too."""
    other = {"data": {"name": "album", "images": 3, "skipped": 0, "faces": 3, "ignored": 0}}
    text = write_report(evaluations(run_dir, "old", "new", **other), read_scores=read_values).read_text(
        encoding="utf-8"
    )
    assert "scores are not of the same data and protocol" in text
    assert "**0.812**" not in text.partition("## ")[0]
    assert "No interval of the difference of new and old: they are of other data." in text
    assert "AP: old 0.812, new 0.594, not all on the same data, so that they do not compare." in text
    assert "The faces are those of old." in text
    text = write_report(evaluations(run_dir, "a/old", "bare"), read_scores=read_values).read_text(encoding="utf-8")
    assert "**0.812**" in text.partition("## ")[0]
    assert "No interval of the difference of bare and old: the record alone has no value per image." in text
    text = write_report(evaluations(run_dir, "c/old", "c/new", ap=0.7), read_scores=read_values).read_text("utf-8")
    assert "No interval of the difference of new and old: what lies beside the records is of other scores." in text


def test_classifiers_of_other_data_are_not_said_to_be_of_one(classifier: Path) -> None:
    """Neither the sentence nor a title gives the images of one evaluation to all."""
    record = json.loads((classifier / "eval/validation.json").read_text(encoding="utf-8"))
    for name, split in (("val", "val"), ("train", "train")):
        Path(name).mkdir()
        changed = record | {"data": record["data"] | {"split": split}}
        (Path(name) / "evaluation.json").write_text(json.dumps(changed), encoding="utf-8")
    text = write_report([Path("val"), Path("train")]).read_text(encoding="utf-8")
    assert "not all on the same data, so that they do not compare" in text
    assert " images (" not in text
    assert "on validation images" not in text
    text = write_report([Path("val")]).read_text(encoding="utf-8")
    assert " images (" in text


def test_protocols_that_differ_are_told_apart(run_dir: Path) -> None:
    """Mirrored images and candidates are in the table of protocols, which the warning points to."""
    record = json.loads((run_dir / "eval/validation.json").read_text(encoding="utf-8"))
    other = {"protocol": record["protocol"] | {"flip": True, "candidates": 5_000}}
    text = write_report(evaluations(run_dir, "old", "new", **other)).read_text(encoding="utf-8")
    found = rows(text, "models | match IoU")
    assert found["old"][2:6:3] == ["no", DASH]
    assert found["new"][2:6:3] == ["yes", "5,000"]


def test_few_images_decide_nothing(run_dir: Path) -> None:
    """An interval over fewer than 30 images has this beside it."""

    def few(files: Sequence[Path], order: Sequence[str] | None) -> Side:
        values = [0.0, 2 * (0.812 if files[0].parent.name == "old" else 0.594)] * 5
        side = {"name": "", "metric": "AP", "seeds": ("0",), "examples": tuple("0123456789"), "bounded": True}
        return Side(scores=Scores.of([values]), **side)  # type: ignore[arg-type]

    paths = evaluations(run_dir, "old", "new")
    assert "decide nothing" not in write_report(paths, read_scores=read_values).read_text(encoding="utf-8")
    text = write_report(paths, read_scores=few).read_text(encoding="utf-8")
    assert rows(text, "evaluation ")["new"][2] == "10"
    assert "Fewer than 30 images decide nothing." in text


def test_evaluations_stand_beside_audits(run_dir: Path) -> None:
    """An evaluated model has the MACs of its audit in one row, and folders of one name are told apart."""
    paths = [*audits(run_dir), *evaluations(run_dir, "one/out", "two/out")]
    text = write_report(paths, Path("all")).read_text(encoding="utf-8")
    decided = rows(text, "model ")
    assert decided["`featherface_v2`, two/out"][:2] == ["256,812", "429,603,776"]
    assert len(decided) == 2
    assert "nothing is said of accuracy" not in text
    assert "2 models counted and 2 evaluations" in text


def test_a_benchmark_alone_is_reported(run_dir: Path, bench: Path) -> None:
    """Its models, their parameters and latency come first, then all that was measured."""
    with pytest.raises(UsageError, match="expected --out DIR"):
        write_report([bench])
    text = write_report([bench], run_dir / "timed").read_text(encoding="utf-8")
    assert text.startswith("# Timing `featherface_v1`, `featherface_v2`\n")
    assert rows(text, "model ")["`featherface_v2`"] == ["256,812", "20.0 ms"]
    assert "## Latency, throughput and memory" in text
    assert "onnx-int8" not in text
    record = json.loads(bench.read_text(encoding="utf-8")) | {"plan": {"by": "all"}}
    bench.write_text(json.dumps(record), encoding="utf-8")
    planned = write_report([bench], run_dir / "planned").read_text(encoding="utf-8")
    assert "int8: plan all, every convolution that eight bits do not hurt" in planned
    assert f"featherpress report {bench} --out {run_dir / 'timed'}\n" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latency_ms": {"median": -1.0, "p10": 1.0, "p90": 2.0}}, "latency_ms.median: expected at least 0"),
        ({"latency_ms": {"median": 1.0, "p10": 3.0, "p90": 2.0}}, "expected p10, median and p90 in order, got 3, 1, 2"),
        ({"images_per_second": -1.0}, "images_per_second: expected at least 0"),
        ({"peak_memory_bytes": -1}, "peak_memory_bytes: expected at least 0"),
    ],
)
@pytest.mark.usefixtures("run_dir")
def test_a_benchmark_that_cannot_be_is_refused(bench: Path, changes: dict[str, Any], said: str) -> None:
    """Negative times and percentiles out of order are one sentence, and no model is the fastest by them."""
    record = json.loads(bench.read_text(encoding="utf-8"))
    record["results"][0] |= changes
    bench.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(FileError, match=re.escape(said)):
        write_report([bench], Path("out"))


def test_an_export_alone_is_reported(run_dir: Path) -> None:
    """Files, bytes and scores of both precisions, with the verdict that the export printed."""
    text = write_report([export()], run_dir / "exported").read_text(encoding="utf-8")
    assert text.startswith("# Exporting `featherface_v2`\n")
    assert re.search(r"^\| model +\| +parameters \| +AP \| +file \|$", text, re.MULTILINE)
    decided = rows(text, "model ")
    assert decided["`featherface_v2`, float32 file"] == ["256,812", "0.596", "1,100,000 B (1.10 MB)"]
    assert decided["`featherface_v2`, int8 file"] == ["256,812", "0.581", "400,000 B (0.40 MB)"]
    assert "## Exported files" in text
    assert f"AP of `featherface_v2`: 0.596 in float32, 0.581 in int8, {MINUS}0.015. {GATE}\n" in text
    text = write_report([export(score=None)], run_dir / "unscored").read_text(encoding="utf-8")
    assert "What each model costs" not in text
    assert "## Exported files" in text


def test_audits_with_an_export_say_its_scores(run_dir: Path, bench: Path) -> None:
    """The table to decide by has AP and a row for int8, which was not timed; nothing says that no accuracy is known."""
    text = write_report([*audits(run_dir), bench, export()], Path("all")).read_text(encoding="utf-8")
    decided = rows(text, "model ")
    assert [*decided] == ["`featherface_v1`", "`featherface_v2`, float32 file", "`featherface_v2`, int8 file"]
    assert decided["`featherface_v2`, float32 file"][:4] == ["256,812", "429,603,776", "0.596", "20.0 ms"]
    assert decided["`featherface_v2`, int8 file"][1:4] == ["429,603,776", "0.581", DASH]
    assert "nothing is said of accuracy" not in text
    assert "`v2.export.json`" in text.partition("\n## ")[0]
    text = write_report([*audits(run_dir), bench, export(score=None)], Path("all")).read_text(encoding="utf-8")
    assert "nothing is said of accuracy" in text


def test_a_models_record_alone_says_what_goes_with_it(tmp_path: Path) -> None:
    """What `models show` prints is of no use by itself, and the sentence says beside what it is."""
    file = tmp_path / "v2.json"
    file.write_text(json.dumps({"schema": "featherpress.model/1", "name": "featherface_v2", "settings": {}}), "utf-8")
    with pytest.raises(UsageError, match="goes beside one of these"):
        write_report([file], tmp_path / "out")
