"""Models on images: batches, the mirrored look, and evaluations."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from featherpress.compress.data import Sample, SyntheticFaces
from featherpress.compress.evaluation.detections import Detections
from featherpress.compress.evaluation.detector.inference import (
    DetectionSettings,
    detect_batch,
    detect_faces,
    evaluate_model,
    grouped_by_size,
)
from featherpress.errors import DataError
from featherpress.models import Detector, PriorSpec


class Blur(Detector):
    """Looks at the mean colour of each cell; its scores all differ, as an untrained network's do not."""

    def __init__(self) -> None:
        super().__init__(PriorSpec())
        random = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(3, 2 * 16, generator=random) / 20)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = images * torch.arange(images.shape[-1]).sin()  # left and right differ, as in any trained network
        levels = [torch.nn.functional.avg_pool2d(images, side, ceil_mode=True) for side in self.anchors.strides]
        rows = torch.cat([(level.permute(0, 2, 3, 1) @ self.weight).flatten(1, 2) for level in levels], dim=1)
        boxes, logits, landmarks = rows.unflatten(2, (2, 16)).flatten(1, 2).split((4, 2, 10), dim=2)
        return boxes, logits, landmarks


@pytest.fixture(scope="module")
def model() -> Detector:
    return Blur().eval()


def images(count: int, height: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=random)


def assert_close(first: Detections, second: Detections, tolerance: float = 2e-3) -> None:
    assert len(first) == len(second) > 0
    for field in ("scores", "boxes", "landmarks"):
        np.testing.assert_allclose(getattr(first, field), getattr(second, field), atol=tolerance)


def mirrored(found: Detections, width: int) -> Detections:
    boxes = found.boxes.copy()
    boxes[:, [2, 0]] = width - found.boxes[:, [0, 2]]
    points = found.landmarks.reshape(-1, 5, 2)[:, (1, 0, 2, 4, 3)].copy()
    points[..., 0] = width - points[..., 0]
    return replace(found, boxes=boxes, landmarks=points.reshape(-1, 10))


@pytest.mark.parametrize("settings", [DetectionSettings(), DetectionSettings(long_side=96, flip=True)])
def test_a_batch_finds_what_each_image_alone_does(model: Detector, settings: DetectionSettings) -> None:
    """Three images in one forward give the detections of three forwards, up to the order of additions."""
    pictures = images(3, 80, 100)
    for picture, found in zip(pictures, detect_batch(model, pictures, settings=settings), strict=True):
        assert_close(found, detect_faces(model, picture, settings=settings))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 50), (70, 101)])
def test_with_flip_a_mirrored_image_gives_mirrored_detections(model: Detector, height: int, width: int) -> None:
    """Both looks go into one suppression, so that left and right are alike; below 64 pixels, all but the padding is."""
    picture = images(1, height, width)[0]
    settings = DetectionSettings(flip=True, nms_iou=0.3)
    plain = detect_faces(model, picture, settings=replace(settings, flip=False))
    found = detect_faces(model, picture, settings=settings)
    if width >= 64:
        assert_close(mirrored(detect_faces(model, picture.flip(-1), settings=settings), width), found)
    assert len(found) != len(plain) or not np.allclose(found.scores, plain.scores)
    assert found.boxes.min() >= 0
    assert found.boxes[:, [0, 2]].max() <= width


def test_groups_hold_one_size_and_every_item_once() -> None:
    """Groups are full batches or leftovers, all of one size, and nothing waits without end."""
    sizes = [(3, 4 + index % 3, 5) for index in range(20)] + [(3, 50 + index, 5) for index in range(40)]
    items = [(index, torch.zeros(size)) for index, size in enumerate(sizes)]
    taken = 0

    def counting() -> Sequence[tuple[int, Tensor]]:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    given = 0
    seen = []
    for group, stack in grouped_by_size(counting(), lambda item: item[1], batch=4):
        assert stack.shape == (len(group), *group[0][1].shape)
        assert len(group) <= 4
        given += len(group)
        assert taken - given <= 8 * 4
        seen += [index for index, _ in group]
    assert sorted(seen) == list(range(60))


class Listed:
    """Samples from a list; a name in place of one stands for a broken image."""

    def __init__(self, samples: Sequence[Sample | str]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.samples[index]
        if isinstance(sample, str):
            raise DataError(f"{sample} is broken")
        return sample

    def name(self, index: int, /) -> str:
        return str(index)


def test_an_evaluation_keeps_the_order_whatever_the_batches(model: Detector) -> None:
    """Images of two sizes, batched or not, come out in the data set's order with equal scores."""
    faces = [SyntheticFaces(length=4, seed=1, size=size) for size in ((64, 64), (64, 96))]
    data = Listed([faces[index % 2][index // 2] for index in range(8)])
    without_teachers, batched = (
        evaluate_model(model, data, settings=DetectionSettings(), batch=batch).predictions for batch in (1, 3)
    )
    assert batched.names == without_teachers.names == tuple(sample.name for sample in data.samples)
    for first, second in zip(without_teachers.detections, batched.detections, strict=True):
        assert_close(first, second)


class Watched(Listed):
    """Samples of several sizes, each made when it is asked for; `most` of their images were there at once."""

    def __init__(self, length: int) -> None:
        self.length, self.alive, self.most = length, set[weakref.ref[Tensor]](), 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        sample = SyntheticFaces(length=1, seed=0, size=(64, 64 + 8 * (index % 5)))[0]
        self.alive.add(weakref.ref(sample.image, self.alive.remove))
        self.most = max(self.most, len(self.alive))
        return sample


@pytest.mark.parametrize("batch", [1, 2])
def test_images_are_not_kept(model: Detector, batch: int) -> None:
    """However many images are evaluated, as few are in memory as may wait for others of their size."""
    data = Watched(60)
    evaluate_model(model, data, settings=DetectionSettings(), batch=batch)
    assert data.most <= 8 * batch + batch + 1
    assert not data.alive


def test_broken_images_end_an_evaluation_or_are_counted(model: Detector, caplog: pytest.LogCaptureFixture) -> None:
    """Never silent: an error, or where skipping is asked for, a count and a warning each."""
    data = Listed([SyntheticFaces(length=1, seed=0, size=(64, 64))[0], "cut.jpg"])
    with pytest.raises(DataError, match=r"cut\.jpg is broken"):
        evaluate_model(model, data, settings=DetectionSettings())
    result = evaluate_model(model, data, settings=DetectionSettings(), skip_broken=True)
    assert (result.record["data"]["skipped"], len(result.predictions.names)) == (1, 1)
    assert "cut.jpg is broken" in caplog.text


def test_the_protocol_is_in_the_record(model: Detector, tmp_path: Path) -> None:
    """Scale, flip, suppression, thresholds and limits are stamped on every number."""
    settings = DetectionSettings(long_side=96, flip=True, nms_iou=0.3)
    data = SyntheticFaces(length=1, seed=0, size=(64, 64))
    record = evaluate_model(model, data, settings=settings).record
    assert record["protocol"] == {
        "iou": 0.5,
        "test_scale": "long side 96",
        "flip": True,
        "score_threshold": 0.02,
        "nms_iou": 0.3,
        "candidates": 5000,
        "top_k": 750,
    }
