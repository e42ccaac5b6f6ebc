"""Figures: that what is drawn is what the records say."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from featherpress.errors import FileError
from featherpress.records.evaluation import ACCURACY, AP
from featherpress.records.run import Prediction, Truth
from featherpress.reports.figures.accuracy import ap_by_height, confusion_matrix, precision_recall, scores_by_group
from featherpress.reports.figures.costs import costs_by_component, waterfall
from featherpress.reports.figures.gallery import PENS, draw_gallery, mark, pictures_shown
from featherpress.reports.figures.learning import level_correlation, training_curves
from featherpress.reports.figures.style import OTHERS, ROLES, fitted, save, short
from featherpress.reports.formats import MINUS
from featherpress.reports.metrics import mean_score, scores
from featherpress.reports.report import render
from featherpress.reports.runs import Run, load_run


@pytest.fixture
def run(run_dir: Path) -> Run:
    """The records of the complete run."""
    return load_run(run_dir)


def bars(axes: object) -> list[Rectangle]:
    """Return the filled bars of a plot."""
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()]  # type: ignore[attr-defined]


def test_bars_are_as_long_as_the_counts(run: Run) -> None:
    """The bars of each model add up to its total, parameters above and MACs below."""
    above, below = costs_by_component(run.audits).axes
    for axes, totals in ((above, (485_599, 256_812)), (below, (927_736_256, 429_603_776))):
        lengths = [round(bar.get_width()) for bar in bars(axes)]
        assert (sum(lengths[:7]), sum(lengths[7:])) == totals


def test_waterfall_falls_from_total_to_total(run: Run) -> None:
    """The steps between the two totals are exactly what lies between them, each starting where the last one ended."""
    first, last, *steps = bars(waterfall(*run.audits).axes[0])
    level = first.get_width()
    for step in steps:
        left, right = step.get_x(), step.get_x() + step.get_width()
        assert level in (left, right)
        level = left if level == right else right
    assert level == last.get_width() == 256_812


def test_roles_differ_by_more_than_colour() -> None:
    """Lines and boxes can be told apart in grey: no two share their dashes."""
    assert len({ROLES[role].dashes for role in ("teacher", "control", "student")}) == 3
    assert len({pen.dashes for pen in PENS.values()}) == len(PENS)


def test_curves_are_the_mean_of_the_seeds(run: Run) -> None:
    """The bold line of validation AP is the mean of the thin ones, at every epoch."""
    axes = training_curves({"student": run.logged["student"]}, metric=AP).axes[1]
    one, other, bold = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert len(bold) == 12
    np.testing.assert_allclose(bold, (one + other) / 2)


def test_a_run_without_evaluations_shows_no_empty_axes(run: Run) -> None:
    """Where nothing was evaluated between epochs there is no panel for it, and the losses get its room."""
    seeds = [each.assign(score=np.nan) for each in run.logged["student"]]
    axes = training_curves({"student": seeds}, metric=AP).axes
    assert [each.get_title(loc="left") for each in axes] == ["Task loss", "Distillation terms", "Gradient norms"]
    assert axes[0].get_subplotspec().colspan == range(2)


def test_scores_are_named_by_their_metric(run: Run) -> None:
    """A classifier's panel is headed by its accuracy."""
    axes = training_curves({"student": run.logged["student"]}, metric=ACCURACY).axes[1]
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("Validation accuracy", "accuracy")


def test_control_alone_has_no_panel_of_distillation(run: Run) -> None:
    """Without distillation terms there are two panels, with them four."""
    assert len(training_curves({"control": run.logged["control"]}, metric=AP).axes) == 2
    assert len(training_curves({"student": run.logged["student"]}, metric=AP).axes) == 4


def test_losses_are_smoothed_over_a_25th_of_the_steps() -> None:
    """The running mean is centred, and makes nothing up at the ends."""
    steps = pd.DataFrame({"step": range(75), "epoch": 1.0, "task": [3.0 * step for step in range(75)], "score": np.nan})
    _thin, bold = (
        np.asarray(line.get_ydata()) for line in training_curves({"student": [steps]}, metric=AP).axes[0].lines
    )
    np.testing.assert_allclose(bold, [1.5, *(3.0 * step for step in range(1, 74)), 220.5])


def test_legend_of_precision_and_recall_has_the_ap(run: Run) -> None:
    """Each curve is named with the AP of the records, three decimals."""
    curves = {role: [(e.curve.recall, e.curve.precision) for e in run.detectors[role]] for role in run.roles}
    figure = precision_recall(curves, {r: mean_score(scores(run.detectors[r])) for r in run.roles}, iou=0.5)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["teacher: AP 0.812", "control: AP 0.569", "student: AP 0.596"]


def test_key_of_precision_and_recall_covers_no_curve(run: Run) -> None:
    """The key stands above the panel, wherever the curves go."""
    curves = {role: [(e.curve.recall, e.curve.precision) for e in run.detectors[role]] for role in run.roles}
    figure = precision_recall(curves, dict.fromkeys(run.roles, 0.5))
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().y0 >= figure.axes[0].get_window_extent().y1


def test_no_share_of_the_gradient_is_called_good(run: Run) -> None:
    """Which is best is not known: the panel has lines, and neither a band nor words of praise."""
    axes = training_curves({"student": run.logged["student"]}, metric=AP).axes[3]
    assert axes.lines
    assert [*axes.patches, *axes.texts] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (996, "996"), (11_528, "11.5K"), (999_999, "1M"), (1_200_000, "1.2M"), (332_851_200, "333M")],
)
def test_large_numbers_in_figures_are_short(value: int, text: str) -> None:
    """Three digits and a letter; a change has its sign."""
    assert short(value) == text
    assert short(-value, signed=True) == (f"{MINUS}{text}" if value else "+0")


def test_height_bars_are_means_over_seeds(run: Run) -> None:
    """Five groups of three bars, each the mean of its seeds."""
    lengths = [bar.get_width() for bar in bars(ap_by_height(run.detectors).axes[0])]
    assert len(lengths) == 15
    assert lengths[5] == pytest.approx((0.571 + 0.567) / 2)
    assert lengths[11] == pytest.approx((0.117 + 0.121) / 2)


def test_correlation_has_a_bar_for_each_arm_and_level(run: Run) -> None:
    """Each arm has a bar at each level, as high as its CKA."""
    assert run.correlation is not None
    bars = level_correlation(run.correlation).axes[0].patches
    heights = [round(bar.get_height(), 4) for bar in bars]  # type: ignore[attr-defined]
    assert heights == [0.3931, 0.4813, 0.5824, 0.5912, 0.7254, 0.8101]


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_drawn_again_it_is_the_same_file(run: Run, tmp_path: Path, kind: str) -> None:
    """The same records give the same bytes, as raster and as vectors, at the same size."""
    files = [tmp_path / f"{name}.{kind}" for name in ("a", "b")]
    for file in files:
        save(waterfall(*run.audits), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    if kind == "svg":
        assert 'width="252pt"' in files[0].read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_figure(run: Run, tmp_path: Path) -> None:
    """What could not be written is said, by the library that writes too."""
    (tmp_path / "full.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*full\.png'"):
        save(waterfall(*run.audits), tmp_path / "full.png")


def test_marks_tell_hits_misses_and_false_alarms_apart() -> None:
    """Each labelled face is found or missed once; what lies on an ignored face is neither."""
    truth = [
        Truth(box=(0, 0, 10, 10), ignored=False),
        Truth(box=(20, 0, 30, 10), ignored=False),
        Truth(box=(40, 0, 50, 10), ignored=True),
    ]
    found = [
        Prediction(box=(1, 0, 11, 10), score=0.9, hit=True),
        Prediction(box=(41, 0, 51, 10), score=0.8, hit=False),
        Prediction(box=(0, 1, 10, 11), score=0.7, hit=False),
    ]
    marks = mark(truth, found, iou=0.5)
    assert marks == {
        "hit": [(1, 0, 11, 10)],
        "missed face": [(20, 0, 30, 10)],
        "false alarm": [(0, 1, 10, 11)],
        "ignored by the protocol": [(40, 0, 50, 10)],
    }


def test_gallery_counts_what_the_record_holds(run: Run) -> None:
    """Each cell says how many were found, missed and wrong."""
    assert run.gallery is not None
    figure = draw_gallery(run.gallery, iou=0.5)
    assert [axes.get_xlabel() for axes in figure.axes[:3]] == [
        "4 hits, 0 missed, 0 false alarms",
        "2 hits, 2 missed, 1 false alarm",
        "3 hits, 1 missed, 1 false alarm",
    ]


def test_gallery_stops_at_a_page(run: Run) -> None:
    """Of many pictures the first are drawn, as many as a page holds; of one that is too high, that one."""
    assert run.gallery is not None
    gallery = run.gallery
    many = gallery.model_copy(update={"images": gallery.images * 4})
    assert pictures_shown(many) == many.images[:5]
    assert draw_gallery(many, iou=0.5).get_figheight() < 10
    tall = gallery.images[0].model_copy(update={"height": 9_999})
    assert pictures_shown(gallery.model_copy(update={"images": (tall, tall)})) == (tall,)


def test_broken_picture_is_named(run: Run) -> None:
    """A picture that cannot be opened is an error that names it."""
    assert run.gallery is not None
    (run.gallery.file.parent / run.gallery.images[1].file).write_bytes(b"no picture")
    with pytest.raises(FileError, match=r"001\.jpg: expected a picture"):
        draw_gallery(run.gallery, iou=0.5)


def test_numbers_stand_beyond_the_dots_of_all_seeds() -> None:
    """A number has a white ground, which would hide what lies below it."""
    figure = scores_by_group(
        ["all", "small"], {"teacher": [[0.5], [0.4]], "student": [[0.1, 0.3], [0.0, 0.7]]}, x="AP", y=""
    )
    [axes] = figure.axes
    beside = {text.get_text(): text.xy[0] for text in axes.texts}
    assert beside == {"0.500": 0.5, "0.400": 0.4, "0.200": 0.3, "0.350": 0.7}


def test_evaluations_by_their_own_names_have_colours_of_their_own() -> None:
    """What is no role is drawn all the same, bars and keys in one colour each."""
    figure = scores_by_group(["all"], {"old": [[0.5]], "new": [[0.6]]}, x="AP", y="")
    [axes] = figure.axes
    colors = [bars[0].get_facecolor() for bars in axes.containers]  # type: ignore[index]
    assert colors == [handle.get_facecolor() for handle in figure.legends[0].legend_handles]  # type: ignore[union-attr]
    assert len({*colors}) == 2


def test_names_are_drawn_as_they_are(run: Run, tmp_path: Path) -> None:
    """A $ begins no formula, and a name longer than a column is shortened where both ends still tell."""
    teacher, student = (audit for _, audit in run.audits)
    named = student.model_copy(update={"model": "a$\\frac{$b"})
    render(partial(waterfall, ("first", teacher), ("second", named)), [tmp_path / "formula.png"])
    assert (tmp_path / "formula.png").is_file()
    assert fitted("a\N{FIRE}é\N{MINUS SIGN}") == "a\\U0001f525é\N{MINUS SIGN}"  # which the font has not, in part
    named = student.model_copy(update={"model": "\N{FIRE}"})
    with warnings.catch_warnings(action="error"):
        render(partial(waterfall, ("first", teacher), ("second", named)), [tmp_path / "fire.png"])
        render(partial(confusion_matrix, ["\N{FIRE}", "b"], np.eye(2)), [tmp_path / "matrix.png"])
    long = {f"{'x' * 100}-{end}": [[0.5]] for end in "ab"}
    assert scores_by_group(["all"], long, x="score", y="class").legends[0]._ncols == 1
    ends = [text.get_text()[-2:] for text in scores_by_group(["all"], long, x="", y="").legends[0].get_texts()]
    assert ends == ["-a", "-b"]
    assert max(len(fitted(name)) for name in long) == 52
    assert scores_by_group(["all"], {"a": [[1.0]], "b": [[1.0]]}, x="", y="").legends[0]._ncols == 2
    parts = [part.model_copy(update={"name": "of_a_long_name " * 5}) for part in student.components[:1]]
    drawn = costs_by_component([("model", student.model_copy(update={"components": tuple(parts)}))])
    assert "\n" in drawn.axes[0].get_yticklabels()[0].get_text()


def test_twenty_evaluations_look_different() -> None:
    """No two of twenty lines share colour and dashes."""
    assert len({(stroke.color, stroke.dashes) for stroke in OTHERS}) == 20
