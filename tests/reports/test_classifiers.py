"""The report of a classifier's run: accuracy in the place of AP, and nothing about faces."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherpress.reports import write_report

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
pytestmark = pytest.mark.usefixtures("undrawn")


def test_markdown_is_the_golden_file(classifier: Path, golden: Callable[[str, str], None]) -> None:
    """A classifier's run gives exactly the agreed text."""
    golden("report_classifier.md", write_report([classifier]).read_text(encoding="utf-8"))


def test_page_and_tables_have_the_accuracy(classifier: Path) -> None:
    """HTML and LaTeX give the same three scores and the same verdict, with accuracy in every place of AP."""
    file = write_report([classifier], page=True, latex=True)
    for name in ("report.html", "tables.tex"):
        text = file.with_name(name).read_text(encoding="utf-8")
        scores = re.search(r"teacher\W.*?0\.887.*?control\W.*?0\.662.*?student\W.*?0\.750", text, re.DOTALL)
        assert scores is not None
        assert re.search(r"\bAP\b", text) is None
    assert "there is <strong>no verdict</strong>" in file.with_name("report.html").read_text(encoding="utf-8")


def test_nothing_is_asked_of_a_classifier_that_only_detectors_have(classifier: Path) -> None:
    """No section asks for what a classifier does not have, no figure shows it, and no word is of faces."""
    file = write_report([classifier])
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"^## (Detections|Beside|Precision|How far)", text, re.MULTILINE)
    assert not re.search("gallery|faces?\\b", text)
    assert {path.stem for path in (file.parent / "figures").iterdir()} == {
        *("costs", "waterfall", "differences", "training")
    }


def test_a_teacher_trained_here_has_its_curve(classifier: Path) -> None:
    """The losses of a teacher that the run trained are drawn beside those of its pupils, and named as a source."""
    text = write_report([classifier]).read_text(encoding="utf-8")
    assert "From `teacher/metrics.csv`, `control/metrics.csv` and `metrics.csv`." in text
    shutil.rmtree(classifier / "teacher")
    assert "teacher/metrics.csv" not in write_report([classifier]).read_text(encoding="utf-8")


def test_a_detector_and_a_classifier_make_one_report(classifier: Path, one_seed: Path) -> None:
    """Each run is scored by its own metric, which the common table names."""
    text = write_report([one_seed, classifier], Path("both")).read_text(encoding="utf-8")
    assert text.startswith("# 2 runs side by side")
    lines = [line for line in text.splitlines() if line.startswith(("| `one`", "| `shapes`"))]
    assert [line.split(" | ")[4].strip() for line in lines] == ["AP", "accuracy"]
    assert "## Run 1, `one`" in text
    assert "## Run 2, `shapes`" in text


def test_classifiers_of_several_seeds_have_a_deviation(classifier: Path, edit: Edit) -> None:
    """Two seeds are summed up as mean and deviation, and the folders of further seeds are named."""
    shutil.copytree(classifier / "control", classifier / "seed-1/control")
    shutil.copytree(classifier / "eval", classifier / "seed-1/eval")
    edit(classifier / "seed-1/eval/validation.json", lambda record: record.update(accuracy=0.8))
    text = write_report([classifier]).read_text(encoding="utf-8")
    assert "student 0.775 ± 0.035" in text
    assert "`seed-*/`" in text


def test_different_images_are_warned_about(classifier: Path, edit: Edit) -> None:
    """Accuracies over two sets of images are not set side by side without a warning."""
    edit(classifier / "control/eval/validation.json", lambda record: record["data"].update(images=100))
    text = write_report([classifier]).read_text(encoding="utf-8")
    assert "not evaluated on the same data" in text


def test_a_printed_difference_is_the_recorded_one(classifier: Path) -> None:
    """A difference computed from two scores is printed as the recorded one is, whatever floats make of it."""
    record = json.loads((classifier / "eval/comparison.json").read_text(encoding="utf-8"))
    assert 0.75 - 0.6625 != record["difference"]["mean"] == 0.0875
    text = write_report([classifier]).read_text(encoding="utf-8")
    assert set(re.findall(r"\+0\.08\d", text)) == {"+0.087"}
