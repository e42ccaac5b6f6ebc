"""From raw outputs to detections: a batch at once gives what one image, one box at a time would."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from featherpress.compress.evaluation.detections import Detections
from featherpress.compress.evaluation.detector import postprocess
from featherpress.compress.evaluation.detector.postprocess import Candidates, decode_outputs, select_detections
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.errors import UsageError
from featherpress.models import PriorSpec
from featherpress.models.priors import decode_boxes, decode_landmarks

PRIORS = PriorSpec().priors(64, 64)


def outputs(count: int, *, seed: int, spread: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Raw outputs of a model that finds something everywhere."""
    random = torch.Generator().manual_seed(seed)
    shapes = ((count, len(PRIORS), width) for width in (4, 2, 10))
    boxes, logits, landmarks = (torch.randn(shape, generator=random) * spread for shape in shapes)
    return boxes, logits, landmarks


def plain(
    boxes: Tensor, logits: Tensor, landmarks: Tensor, settings: DetectionSettings, limits: tuple[int, int]
) -> list[tuple[float, ...]]:
    """One image, one box at a time: (score, box, landmarks) rows of what is kept."""
    scores = logits.softmax(dim=-1)[:, 1].tolist()
    corners, points = decode_boxes(boxes, PRIORS).tolist(), decode_landmarks(landmarks, PRIORS).tolist()
    rows = [row for row in range(len(scores)) if scores[row] >= settings.score_threshold]
    rows = sorted(rows, key=lambda row: -scores[row])[: limits[0]]
    kept: list[int] = []
    for row in rows:
        if all(overlap(corners[row], corners[other]) <= settings.nms_iou for other in kept):
            kept.append(row)
    return [(scores[row], *corners[row], *points[row]) for row in kept[: limits[1]]]


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)


def table(found: Detections) -> np.ndarray:
    return np.column_stack([found.scores, found.boxes, found.landmarks])


def select(raw: tuple[Tensor, Tensor, Tensor], settings: DetectionSettings) -> list[Detections]:
    found = decode_outputs(raw, PRIORS, score_threshold=settings.score_threshold)
    return select_detections(found, count=len(raw[0]), settings=settings)


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        (DetectionSettings(), (5000, 750)),
        (DetectionSettings(score_threshold=0.9), (5000, 750)),
        (DetectionSettings(), (17, 750)),
        (DetectionSettings(nms_iou=0.1), (5000, 3)),
    ],
)
def test_a_batch_gives_what_one_box_at_a_time_does(
    settings: DetectionSettings, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholds, both limits and suppression act on each image as the plain loop does."""
    monkeypatch.setattr(postprocess, "CANDIDATES", limits[0])
    monkeypatch.setattr(postprocess, "TOP_K", limits[1])
    raw = outputs(3, seed=1)
    found = select(raw, settings)
    for image in range(3):
        expected = plain(*(each[image] for each in raw), settings, limits)
        assert expected
        np.testing.assert_allclose(table(found[image]), np.array(expected), rtol=1e-5, atol=1e-4)


@given(st.integers(0, 2**20), st.integers(1, 4))
def test_an_image_does_not_depend_on_its_batch(seed: int, count: int) -> None:
    """Bit for bit, each image of a batch comes out as it does alone; images without anything stay in their place."""
    boxes, logits, landmarks = outputs(count, seed=seed)
    logits[seed % count, :, 1] = -50
    settings = DetectionSettings(score_threshold=0.5)
    together = select((boxes, logits, landmarks), settings)
    assert len(together) == count
    assert len(together[seed % count]) == 0
    for image in range(count):
        without_teachers = select(
            (boxes[image : image + 1], logits[image : image + 1], landmarks[image : image + 1]), settings
        )[0]
        np.testing.assert_array_equal(table(together[image]), table(without_teachers))


def test_a_threshold_lets_its_own_score_through() -> None:
    """A score of exactly the threshold is kept: it says from which score on."""
    raw = (torch.zeros(1, len(PRIORS), 4), torch.zeros(1, len(PRIORS), 2), torch.zeros(1, len(PRIORS), 10))
    assert len(decode_outputs(raw, PRIORS, score_threshold=0.5).scores) == len(PRIORS)
    assert len(decode_outputs(raw, PRIORS, score_threshold=0.5001).scores) == 0


def test_candidates_mirrored_twice_are_themselves() -> None:
    """Mirroring moves boxes and points, and renames left and right."""
    points = torch.tensor([[10.0, 10, 30, 10, 20, 20, 12, 30, 28, 30]])
    found = Candidates(
        images=torch.tensor([0]),
        boxes=torch.tensor([[5.0, 0, 35, 40]]),
        scores=torch.tensor([0.5]),
        landmarks=points,
    )
    mirrored = found.mirrored(100)
    assert mirrored.boxes.tolist() == [[65, 0, 95, 40]]
    assert mirrored.landmarks.tolist() == [[70, 10, 90, 10, 80, 20, 72, 30, 88, 30]]
    assert torch.equal(mirrored.mirrored(100).landmarks, points)


@pytest.mark.parametrize(("name", "value"), [("score_threshold", 1.5), ("nms_iou", -0.1), ("long_side", 7)])
def test_settings_that_make_no_sense_are_refused(name: str, value: float) -> None:
    """Shares beyond 0..1 and scales of no pixels end in a sentence."""
    with pytest.raises(UsageError, match=str(value)):
        DetectionSettings(**{name: value})


def test_the_protocol_that_the_documents_name() -> None:
    """Scores from 0.02, suppression at 0.4, the image as it is, no mirrored look, at most 750 an image."""
    settings = DetectionSettings()
    assert (settings.score_threshold, settings.nms_iou) == (0.02, 0.4)
    assert (settings.long_side, settings.flip) == (0, False)
    assert (postprocess.CANDIDATES, postprocess.TOP_K) == (5000, 750)
