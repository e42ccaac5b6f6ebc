"""Figures as pictures: each against a small baseline, with a tolerance for other versions of matplotlib."""

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from featherpress.records.evaluation import AP
from featherpress.reports.figures.accuracy import ap_by_height, precision_recall
from featherpress.reports.figures.costs import costs_by_component, waterfall
from featherpress.reports.figures.differences import draw_differences
from featherpress.reports.figures.gallery import draw_gallery
from featherpress.reports.figures.learning import level_correlation, training_curves
from featherpress.reports.figures.style import save
from featherpress.reports.metrics import mean_score, scores
from featherpress.reports.runs import Run, load_run

BASELINE = Path(__file__).with_name("baseline")
SIDE, COARSE = 175, 44  # pixels: a quarter of a column's width, and a sixteenth, where letters hardly matter
# Roots of mean squared differences, of 255. The version that drew the baselines is held to every line. Others set
# letters and with them panels elsewhere: 3.9 against 3.11 gives up to 22 at a quarter, up to 6 at a sixteenth.
DRAWN_WITH = "3.11."
TOLERANCE, COARSE_TOLERANCE = 4.5, 9.0


Drawing = Callable[[Run], Figure]
DRAWINGS: dict[str, Drawing] = {
    "costs": lambda run: costs_by_component(run.audits),
    "waterfall": lambda run: waterfall(*run.audits),
    "training": lambda run: training_curves({r: run.logged[r] for r in ("control", "student")}, metric=AP),
    "differences": lambda run: draw_differences(run.comparison),  # type: ignore[arg-type]
    "correlation": lambda run: level_correlation(run.correlation),  # type: ignore[arg-type]
    "precision_recall": lambda run: precision_recall(
        {r: [(e.curve.recall, e.curve.precision) for e in run.detectors[r]] for r in run.roles},
        {r: mean_score(scores(run.detectors[r])) for r in run.roles},
        iou=0.5,
    ),
    "ap_by_height": lambda run: ap_by_height(run.detectors),
    "gallery": lambda run: draw_gallery(run.gallery, iou=0.5),  # type: ignore[arg-type]
}


def shrink(file: Path) -> Image.Image:
    """Return a drawing in grey at a quarter of its size."""
    with Image.open(file) as image:
        height = round(image.height * SIDE / image.width)
        return image.convert("L").resize((SIDE, height), Image.Resampling.BOX)


def difference(one: Image.Image, other: Image.Image, *, width: int) -> float:
    """Return the root of the mean squared difference at a width in pixels; infinite where sizes differ."""
    if one.size != other.size:
        return float("inf")
    size = (width, max(1, round(width * one.height / one.width)))
    pixels: list[NDArray[np.float64]] = [
        np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float64) for image in (one, other)
    ]
    return float(np.sqrt(np.mean((pixels[0] - pixels[1]) ** 2)))


@pytest.mark.parametrize("name", DRAWINGS)
def test_figure_looks_as_it_did(run_dir: Path, tmp_path: Path, name: str) -> None:
    """Every figure is the baseline's within the tolerance; FEATHERPRESS_REGENERATE=1 writes the baseline instead."""
    file = tmp_path / f"{name}.png"
    save(DRAWINGS[name](load_run(run_dir)), file)
    small = shrink(file)
    if os.environ.get("FEATHERPRESS_REGENERATE"):
        BASELINE.mkdir(exist_ok=True)
        small.save(BASELINE / f"{name}.png", optimize=True)
    with Image.open(BASELINE / f"{name}.png") as kept:
        assert difference(small, kept, width=COARSE) <= COARSE_TOLERANCE
        if mpl.__version__.startswith(DRAWN_WITH):
            assert difference(small, kept, width=SIDE) <= TOLERANCE


def test_another_drawing_is_told_apart(run_dir: Path, tmp_path: Path) -> None:
    """A waterfall of other numbers is farther from the baseline than the tolerance: the comparison can fail."""
    first, second = load_run(run_dir).audits
    save(waterfall(second, first), tmp_path / "other.png")
    with Image.open(BASELINE / "waterfall.png") as kept:
        assert difference(shrink(tmp_path / "other.png"), kept, width=COARSE) > 2 * COARSE_TOLERANCE
