"""The report of a run on any task: its metric, its classes, its pictures, and no word of faces."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from featherpress.errors import FileError
from featherpress.reports import write_report
from featherpress.reports.figures.accuracy import confusion_matrix, scores_by_group
from featherpress.reports.figures.pictures import draw_pictures, page_width, rows_shown
from featherpress.reports.runs import load_run

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
TaskRun = Callable[..., Path]

TOP1 = {"key": "top1", "name": "top-1 accuracy"}
MIOU = {"key": "miou", "name": "mIoU"}
PSNR = {"key": "psnr", "name": "PSNR", "unit": "dB"}
CLASSES = ("ant", "bee", "wasp")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("metric", "fields"),
    [
        (TOP1, {"classes": CLASSES, "further": {"top-5 accuracy": 0.99}, "confused": True}),
        (MIOU, {"classes": CLASSES, "confused": True, "pictures": True}),
        ({"key": "map", "name": "mAP"}, {"classes": CLASSES, "curve": True}),
        (PSNR, {"scale": 40.0}),
    ],
)
def test_nothing_is_said_of_faces(task_run: TaskRun, metric: dict[str, str], fields: dict[str, Any]) -> None:
    """Markdown, page and tables of another task name its metric alone: no faces, no AP, no heights."""
    file = write_report([task_run("own", metric=metric, **fields)], page=True, latex=True)
    for name in ("report.md", "report.html", "tables.tex"):
        text = file.with_name(name).read_text(encoding="utf-8")
        assert metric["name"] in text
        assert (
            re.search(r"\bfaces?\b|\bAP\b|height(?!:)|detections", re.sub(r"<style>.*?</style>", "", text, flags=re.S))
            is None
        )


@pytest.mark.usefixtures("undrawn")
def test_every_class_has_a_row(task_run: TaskRun) -> None:
    """A class's row holds its examples, each role's score with the spread over seeds, and how the arms differ."""
    text = write_report([task_run("own", metric=TOP1, classes=CLASSES)]).read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| `wasp`"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["`wasp`", "300", "0.880", "0.690 ± 0.014", "0.740 ± 0.014", "+0.050"]


@pytest.mark.usefixtures("undrawn")
def test_further_scores_stand_beside_the_metric(task_run: TaskRun) -> None:
    """What else was measured has a column of its own under its name."""
    run = task_run("own", metric=TOP1, classes=CLASSES, further={"top-5 accuracy": 0.99})
    text = write_report([run]).read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "mine:" in line]
    assert ["teacher", "`mine:big`", "3,072", "0.900", "0.990"] in rows
    assert re.search(r"\| top-1 accuracy +\| +top-5 accuracy +\|", text)


@pytest.mark.usefixtures("undrawn")
def test_a_unit_is_written(task_run: TaskRun) -> None:
    """A metric with a unit has it in the answer, in the tables and on the axis."""
    run = task_run("own", metric=PSNR, scale=40.0)
    text = write_report([run]).read_text(encoding="utf-8")
    assert "PSNR (dB): teacher 36.000" in text
    assert re.search(r"^\| PSNR \(dB\) +\| +seed 0", text, re.MULTILINE)
    assert "Difference in PSNR (dB), distilled less control: +2.000." in text


@pytest.mark.usefixtures("undrawn")
def test_of_many_classes_the_lowest_are_listed(task_run: TaskRun) -> None:
    """Of more classes than a table holds the lowest are listed and it is said; confusions are a table of pairs."""
    many = tuple(f"class {number}" for number in range(60))
    text = write_report([task_run("own", metric=TOP1, classes=many, confused=True)]).read_text(encoding="utf-8")
    assert len(re.findall(r"^\| `class \d+` +\| +\d[\d,]* \|", text, re.MULTILINE)) == 40
    assert "The 40 of 60 classes with the lowest score of the student." in text
    assert re.search(r"^\| `class 59` +\| `class 0` +\| +3,000 \| +25.0 % \|$", text, re.MULTILINE)
    assert "score_by_class" not in text
    assert "confusion.png" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_a_kind_has_its_figures(task_run: TaskRun) -> None:
    """A confusion matrix, a curve and pictures are shown where they were recorded, and are absent elsewhere."""
    shown = {}
    for name, fields in {
        "plain": {},
        "full": {"classes": CLASSES, "confused": True, "curve": True, "pictures": True},
    }.items():
        file = write_report([task_run(name, metric=MIOU, **fields)])
        shown[name] = {path.stem for path in (file.parent / "figures").iterdir()}
        assert "`eval/gallery" not in file.read_text(encoding="utf-8") or fields
    assert shown["full"] - shown["plain"] == {"score_by_class", "confusion", "precision_recall", "pictures"}


@pytest.mark.usefixtures("undrawn")
def test_logged_steps_alone_say_the_metric(task_run: TaskRun) -> None:
    """A training that was interrupted before it was evaluated is called by the column of its logged scores."""
    run = task_run("own", metric=MIOU)
    for file in run.rglob("*.json"):
        file.unlink()
    assert load_run(run).metric.key == "miou"


def test_metrics_of_two_scores_are_refused(task_run: TaskRun) -> None:
    """Two columns of scores are not one run's."""
    run = task_run("own", metric=MIOU)
    (run / "metrics.csv").write_text("step,epoch,task,val_a,val_b\n1,0,1,1,1\n", encoding="utf-8")
    with pytest.raises(FileError, match="val_"):
        load_run(run)


def test_a_confusion_is_the_share_of_its_row() -> None:
    """Cells are in % of the true class, rows say how many examples they are of, and empty cells stay empty."""
    axes = confusion_matrix(("ant", "a class with a very long name"), [[30, 10], [0, 5]]).axes[0]
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "75"),
        ((1, 0), "25"),
        ((1, 1), "100"),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant (40)", "a class with a ve… (5)"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25], [0, 100]])


def test_bars_of_any_metric_are_whole() -> None:
    """Scores beyond 1, or below 0, lie within the axis."""
    for values in ([[36.0], [30.0]], [[-3.0], [-1.0]]):
        axes = scores_by_group(["all", "one"], {"student": values}, x="PSNR", y="class").axes[0]
        low, high = axes.get_xlim()
        bars = [each for each in axes.patches if isinstance(each, Rectangle)]
        assert all(low <= each.get_x() + each.get_width() <= high for each in bars)


def test_pictures_stand_side_by_side(task_run: TaskRun, edit: Edit) -> None:
    """A row an image, a column a panel, each named once; a text stands below its panel; the legend has all colours."""
    run = task_run("own", metric=MIOU, classes=CLASSES, pictures=True)
    edit(run / "eval/gallery/pictures.json", lambda r: r["images"][1]["panels"][4].update(text="a wasp"))
    saved = load_run(run).pictures
    assert saved is not None
    figure = draw_pictures(saved)
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "teacher", "control", "student"] + 5 * [""]
    assert [text.get_text() for text in figure.axes[9].texts] == ["a wasp"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*CLASSES]
    tops = [axes.get_position().y0 for axes in figure.axes]
    assert min(tops[:5]) > max(tops[5:])
    many = saved.model_copy(update={"images": saved.images * 9})
    many._file = saved.file
    assert 1 < len(rows_shown(many)) < 18
    assert draw_pictures(many).get_figheight() < 10


def test_a_picture_that_is_missing_is_named(task_run: TaskRun) -> None:
    """A panel without its file is an error that names it."""
    run = task_run("own", metric=MIOU, classes=CLASSES, pictures=True)
    (run / "eval/gallery/001_truth.png").unlink()
    with pytest.raises(FileError, match=r"001_truth\.png: expected a picture"):
        write_report([run])
    assert json.loads((run / "eval/gallery/pictures.json").read_text(encoding="utf-8"))["images"]


@pytest.mark.usefixtures("undrawn")
def test_a_caption_says_which_pictures_they_are(task_run: TaskRun, edit: Edit) -> None:
    """What a task says of its pictures begins their caption, and of several seeds it is said which one is shown."""
    run = task_run("own", metric=TOP1, classes=CLASSES, pictures=True)
    edit(run / "eval/gallery/pictures.json", lambda r: r.update(caption="The wrong ones."))
    text = write_report([run]).read_text(encoding="utf-8")
    assert "The wrong ones. All 2 images that the run saved. The models are those of the first seed." in text


def test_a_text_stands_where_there_is_no_picture(task_run: TaskRun, edit: Edit) -> None:
    """It is wrapped, and cut after two lines; its columns are narrow, and nothing in a name is read as mathematics."""
    run = task_run("own", metric=TOP1, classes=CLASSES, pictures=True)
    name = "a class of $x_1$ with a name that would reach over the whole page"

    def without_files(record: dict[str, Any]) -> None:
        record["legend"] = []
        for panel in record["images"][0]["panels"][2:]:
            del panel["file"]
            panel["text"] = f"{name}\n97.0%"

    edit(run / "eval/gallery/pictures.json", without_files)
    saved = load_run(run).pictures
    assert saved is not None
    figure = draw_pictures(saved)
    said = figure.axes[2].texts[0]
    lines = said.get_text().split("\n")
    assert (len(lines), lines[-1]) == (3, "97.0%")
    assert lines[1].endswith("…")
    assert not said.get_parse_math()
    assert not figure.axes[2].images
    assert figure.get_figwidth() == page_width(saved) < 6


def test_examples_by_class_are_those_of_one_evaluation(task_run: Callable[..., Path]) -> None:
    """Where another was scored on other images, its examples are not said to be as many."""
    record = json.loads((task_run("own", metric=TOP1, classes=CLASSES) / "eval/teacher.json").read_text("utf-8"))
    paths = [Path("one.json"), Path("two.json")]
    for images, said in ((240, False), (100, True)):
        for path, count in zip(paths, (240, images), strict=True):
            path.write_text(json.dumps(record | {"model": path.stem, "data": record["data"] | {"images": count}}))
        text = write_report(paths, Path("out")).read_text(encoding="utf-8")
        assert ("The examples are those of one." in text) is said
