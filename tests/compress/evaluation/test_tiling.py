"""Tiles: they cover, they overlap, and no face is lost or found twice for being cut."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from featherpress.compress.evaluation import Detections
from featherpress.compress.evaluation.detector.inference import detect_faces
from featherpress.compress.evaluation.detector.predict import detect_photographs, find_photographs
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.compress.evaluation.detector.tiling import Tiling, _whole_ones, detect_tiled
from featherpress.errors import UsageError
from featherpress.models import Detector, PriorSpec
from featherpress.models.priors import encode_boxes


class Squares(Detector):
    """Finds white squares on black as a good detector would: what it sees of each, and surely if it sees all.

    Every square is found by looking at the pixels; its box goes to the prior that fits best.
    """

    def __init__(self) -> None:
        super().__init__(PriorSpec())
        self.mean = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        priors = self.priors(*images.shape[-2:])
        boxes = torch.zeros(len(images), len(priors), 4)
        logits = torch.zeros(len(images), len(priors), 2)
        logits[..., 1] = -20
        for number, image in enumerate(images):
            for row, box in enumerate(squares(image[0] > 60)):
                centre = (box[:2] + box[2:]) / 2
                place = ((priors[:, :2] - centre).abs().sum(dim=1) + (priors[:, 2] - (box[2] - box[0])).abs()).argmin()
                boxes[number, place] = encode_boxes(box, priors[place])
                logits[number, place, 1] = 3 + row / 100
        return boxes, logits, torch.zeros(len(images), len(priors), 10)


def squares(white: Tensor) -> list[Tensor]:
    """Give the bounding box of each connected white square; squares lie apart."""
    left = white.clone()
    found = []
    while left.any():
        top, start = left.nonzero()[0].tolist()
        row = white[top, start:]
        width = int((~row).nonzero()[0]) if (~row).any() else len(row)
        column = white[top:, start]
        height = int((~column).nonzero()[0]) if (~column).any() else len(column)
        left[top : top + height, start : start + width] = False
        if min(width, height) >= 4:
            found.append(torch.tensor([start, top, start + width, top + height], dtype=torch.float32))
    return found


def picture(height: int, width: int, boxes: list[tuple[int, int, int]]) -> Tensor:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for left, top, side in boxes:
        image[:, top : top + side, left : left + side] = 255
    return image


@given(st.integers(1, 900), st.integers(1, 900), st.integers(64, 300), st.data())
def test_tiles_cover_the_image_and_overlap(height: int, width: int, size: int, data: st.DataObject) -> None:
    """Along each side tiles begin at 0, end at the end, lie within, and share the overlap at least."""
    tiling = Tiling(size=size, overlap=data.draw(st.integers(0, size // 2)))
    for length in (height, width):
        starts = tiling.starts(length)
        assert starts[0] == 0
        assert starts[-1] == max(length - size, 0)
        assert all(0 < after - before <= size - tiling.overlap for before, after in pairwise(starts))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_face_on_an_edge_is_found_once_and_whole(batch: int) -> None:
    """Squares on edges, on a corner of four tiles and far from any are each found once; one larger than a tile too."""
    boxes = [(118, 20, 20), (120, 122, 24), (30, 30, 16), (260, 118, 24), (190, 100, 20), (20, 170, 130)]
    image = picture(320, 320, boxes)
    tiling = Tiling(size=128, overlap=40)
    done: list[str] = []
    found = detect_tiled(
        Squares(),
        image,
        settings=DetectionSettings(score_threshold=0.5),
        tiling=tiling,
        batch=batch,
        advance=lambda: done.append("tile"),
    )
    got = sorted((round(float(x)), round(float(y)), round(float(right - x))) for x, y, right, _ in found.boxes)
    expected = sorted(boxes)
    assert len(got) == len(expected)
    np.testing.assert_allclose(got, expected, atol=5)  # the large one is seen at less than half its size
    assert len(done) == len(tiling.corners(320, 320)) == 16
    assert (np.diff(found.scores) <= 0).all()


def test_cut_faces_would_be_found_twice_without_care() -> None:
    """The scene is a hard one: tiles on their own see some of its squares in several parts."""
    image = picture(320, 320, [(118, 20, 20), (120, 122, 24)])
    model, settings = Squares(), DetectionSettings(score_threshold=0.5)
    halves = [detect_faces(model, image[:, :, left : left + 128], settings=settings) for left in (0, 128)]
    assert sum(map(len, halves)) == 4


def test_an_image_of_one_tile_is_looked_at_once() -> None:
    """Where a tile holds it all, tiles change nothing."""
    image, settings = picture(100, 120, [(10, 10, 20)]), DetectionSettings(score_threshold=0.5)
    tiled = detect_tiled(Squares(), image, settings=settings, tiling=Tiling(size=128, overlap=32))
    np.testing.assert_array_equal(tiled.boxes, detect_faces(Squares(), image, settings=settings).boxes)


def test_tilings_that_make_no_sense_are_refused() -> None:
    """Tiles below 64 pixels, overlaps above a half, and tiles at a test scale."""
    with pytest.raises(UsageError, match="64 to 16384"):
        Tiling(size=63, overlap=0)
    with pytest.raises(UsageError, match="half a tile, 50 pixels here, got 51"):
        Tiling(size=100, overlap=51)
    with pytest.raises(UsageError, match="leave the long side out"):
        detect_tiled(
            Squares(), picture(64, 64, []), settings=DetectionSettings(long_side=64), tiling=Tiling(size=64, overlap=0)
        )


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((4.1, 20, 24.1, 40), True),  # four pixels and more from an inner edge
        ((4, 20, 24, 40), True),
        ((3.9, 20, 23.9, 40), False),
        ((6.1, 20, 66.1, 80), True),  # a tenth of the side, where that is more
        ((5.9, 20, 65.9, 80), False),
        ((20, 4.1, 40, 24.1), True),
        ((20, 3.9, 40, 23.9), False),
        ((75.9, 20, 95.9, 40), True),
        ((76.1, 20, 96.1, 40), False),
        ((20, 75.9, 40, 95.9), True),
        ((20, 76.1, 40, 96.1), False),
    ],
)
def test_what_an_inner_edge_may_cut_is_left_to_the_neighbour(box: tuple[float, ...], kept: bool) -> None:
    """A box nearer to an inner edge than the margin is left out; others come back in the image's coordinates."""
    found = Detections(
        boxes=np.array([box], dtype=np.float32),
        scores=np.array([0.5], dtype=np.float32),
        landmarks=np.zeros((1, 10), dtype=np.float32),
    )
    where = {"left": 300, "top": 200, "size": 100, "height": 900, "width": 900}
    left = _whole_ones(found, **where)
    assert len(left) == kept
    if kept:
        assert left.boxes[0] == pytest.approx([box[0] + 300, box[1] + 200, box[2] + 300, box[3] + 200])
        assert left.landmarks[0].tolist() == [300, 200] * 5
    outer = _whole_ones(found, **(where | {"left": 0, "top": 0, "height": 100, "width": 100}))
    assert len(outer) == 1


def test_photographs_in_tiles_are_detected_as_one_image_is(tmp_path: Path) -> None:
    """Of several photographs each comes with its own number and pixels, and what its tiles have found."""
    image = torch.zeros(3, 150, 200, dtype=torch.uint8)
    image[:, 70:90, 90:110] = 255
    for number, pixels in enumerate((image, image.flip(2))):
        to_pil_image(pixels).save(tmp_path / f"{number}.png")
    photographs, tiling = find_photographs([tmp_path]), Tiling(size=96, overlap=40)
    found = list(detect_photographs(Squares(), photographs, settings=DetectionSettings(), tiling=tiling, batch=2))
    assert [number for number, *_ in found] == [0, 1]
    for _, pixels, detections in found:
        whole = detect_tiled(Squares(), pixels, settings=DetectionSettings(), tiling=tiling)
        assert detections.boxes.tolist() == whole.boxes.tolist() != []
