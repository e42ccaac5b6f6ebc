"""mIoU: by hand, when images are drawn again, and when it is read from a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherpress.compress.evaluation.metrics.overlap import MaskOverlaps, weighted_miou
from featherpress.compress.evaluation.saved_scores import miou_scores, read_saved
from featherpress.errors import DataError


def overlaps(**changes: Any) -> MaskOverlaps:
    """Two images and three classes, the last of which no label shows."""
    tables = {
        "names": ("a", "b"),
        "classes": ("sky", "road", "moon"),
        "intersections": np.array([[3, 0, 0], [1, 4, 0]]),
        "unions": np.array([[4, 1, 1], [2, 5, 0]]),
        "labelled": np.array([[4, 0, 0], [1, 5, 0]]),
        "confusion": np.array([[4, 0, 1], [1, 4, 0], [0, 0, 0]]),
    }
    return MaskOverlaps(**(tables | changes))


def test_by_hand() -> None:
    """IoU is of all images together; its mean is over the classes that labels show; accuracy is of pixels."""
    found = overlaps()
    assert found.ious[:2].tolist() == pytest.approx([4 / 6, 4 / 6])
    assert np.isnan(found.ious[2])
    assert found.miou == pytest.approx(4 / 6)
    assert found.pixel_accuracy == pytest.approx(8 / 10)
    assert found.list_classes()[1:] == [
        {"name": "road", "examples": 5, "score": pytest.approx(4 / 6)},
        {"name": "moon", "examples": 0, "score": None},
    ]


def test_images_are_drawn_again() -> None:
    """A set's mIoU is that of its images as often as it holds each; without a label of a class that is left out."""
    weights = np.array([[1.0, 1], [2, 0], [0, 3], [1, 2]])
    twice = np.mean([(3 + 2) / (4 + 4), 8 / 11])
    assert weighted_miou(overlaps(), weights).tolist() == pytest.approx([4 / 6, 3 / 4, (1 / 2 + 4 / 5) / 2, twice])
    assert weighted_miou(overlaps(), np.zeros((1, 2))).tolist() == [0]


def test_nothing_labelled_has_no_score() -> None:
    """None, rather than a 0 that no model earned."""
    none = overlaps(labelled=np.zeros((2, 3), np.int64))
    assert (none.miou, none.pixel_accuracy) == (None, None)


def test_saved_and_read(tmp_path: Path) -> None:
    """A saved file is told by its arrays, and gives the score, its name and its images."""
    shown = {"b": np.array([[1, 2]], np.uint8)}
    overlaps(shown=shown).save(tmp_path / "validation.npz")
    again = MaskOverlaps.load(tmp_path / "validation.npz")
    assert again.classes == ("sky", "road", "moon")
    assert {name: mask.tolist() for name, mask in again.shown.items()} == {"b": [[1, 2]]}
    side = read_saved(tmp_path / "validation.npz")
    assert (side.metric, side.examples) == ("mIoU", ("a", "b"))
    assert side.scores.observed().tolist() == pytest.approx([4 / 6])
    assert side.scores.objects.tolist() == [4, 6]


@pytest.mark.parametrize(
    "changes", [{"names": ("a", "c")}, {"labelled": np.array([[4, 0, 0], [1, 4, 0]])}, {"classes": ("x", "y", "z")}]
)
def test_other_images_do_not_compare(changes: dict[str, Any]) -> None:
    """Names, classes and labels must be the same on both sides."""
    with pytest.raises(DataError, match="evaluate both models on one set"):
        miou_scores([overlaps(), overlaps(**changes)])


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """So is a file with them, in one sentence that names it."""
    with pytest.raises(DataError, match="3 classes in each of 2 images"):
        overlaps(unions=np.zeros((2, 2), np.int64))
    with pytest.raises(DataError, match="one or more"):
        overlaps(names=())
    np.savez(tmp_path / "x.npz", intersections=np.zeros(3))
    with pytest.raises(DataError, match="not a complete file of saved masks"):
        MaskOverlaps.load(tmp_path / "x.npz")
