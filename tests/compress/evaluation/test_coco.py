"""COCO's AP: a case worked out by hand, and how far ours may lie from it."""

import numpy as np
import pytest

from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.metrics.average_precision import average_precision, match
from featherpress.compress.evaluation.metrics.coco import score_coco

Box = tuple[float, float, float, float]


def one_image(found: list[tuple[Box, float]], faces: list[Box], ignored: list[Box] | None = None) -> DetectionSet:
    boxes = [*faces, *(ignored or [])]
    return DetectionSet(
        names=("a",),
        detections=(
            Detections(
                boxes=np.array([box for box, _ in found], np.float32).reshape(-1, 4),
                scores=np.array([score for _, score in found], np.float32),
                landmarks=np.zeros((len(found), 10), np.float32),
            ),
        ),
        truths=(Truth(boxes=np.array(boxes, np.float32).reshape(-1, 4), ignored=np.arange(len(boxes)) >= len(faces)),),
    )


def test_a_hand_computed_case() -> None:
    """Two faces: one met at IoU 1, one at 0.72, a false alarm between.

    From IoU 0.50 to 0.70 (five of the ten) both are hits: precision 1 at the 51 recalls up to 0.50, then 2/3 at the 50
    beyond, (51 + 50 * 2/3) / 101. From 0.75 to 0.95 the second misses: 51/101 each. AP is the mean of the ten.
    """
    found = [((0, 0, 40, 40), 0.9), ((500, 0, 540, 40), 0.8), ((100, 0, 136, 80), 0.7)]
    scores = score_coco(one_image(found, [(0, 0, 40, 40), (100, 0, 150, 80)]))
    both, one = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert scores["ap50"] == pytest.approx(both, abs=1e-6)
    assert scores["ap75"] == pytest.approx(one, abs=1e-6)
    assert scores["ap"] == pytest.approx((5 * both + 5 * one) / 10, abs=1e-6)
    assert scores["recall"] == pytest.approx((5 * 1 + 5 * 0.5) / 10, abs=1e-6)
    assert (scores["small"], scores["large"]) == (None, None)


def test_an_ignored_face_is_a_crowd() -> None:
    """Detections on it are no false alarms, many at once, and it need not be found."""
    ignored: list[Box] = [(200, 200, 300, 300)]
    found = [((200, 200, 300, 300), 0.9), ((210, 210, 250, 250), 0.8), ((0, 0, 40, 40), 0.5)]
    assert score_coco(one_image(found, [(0, 0, 40, 40)], ignored))["ap"] == pytest.approx(1.0)
    assert score_coco(one_image(found, [(0, 0, 40, 40)]))["ap"] == pytest.approx(1 / 3, abs=1e-6)


def test_without_a_face_there_is_no_score() -> None:
    """None, and not COCO's -1, which would average as a number."""
    assert score_coco(one_image([((0, 0, 9, 9), 0.5)], []))["ap"] is None
    assert score_coco(one_image([], [(0, 0, 9, 9)]))["ap"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_our_ap_lies_within_a_hundredth_of_ap50(seed: int) -> None:
    """The area under the envelope against its mean at 101 recalls: at most a step of the grid, 0.01, apart.

    Noisy detections of 60 faces in each of 10 images, false alarms and misses among them, none ignored.
    """
    rng = np.random.default_rng(seed)
    names, detections, truths = [], [], []
    for image in range(10):
        corners = rng.uniform(0, 900, (60, 2))
        sides = rng.uniform(10, 60, (60, 1))
        faces = np.concatenate([corners, corners + sides], axis=1)
        noisy = faces[:50] + rng.normal(0, 0.08, (50, 4)) * sides[:50]
        noisy = np.concatenate([noisy, faces[:30] + 1000])
        scores = np.sort(rng.beta(2, 2, 80).astype(np.float32))[::-1]
        order = rng.permutation(80)
        names.append(str(image))
        detections.append(
            Detections(boxes=noisy[order].astype(np.float32), scores=scores, landmarks=np.zeros((80, 10)))
        )
        truths.append(Truth(boxes=faces.astype(np.float32), ignored=np.zeros(60, bool)))
    found = DetectionSet(names=tuple(names), detections=tuple(detections), truths=tuple(truths))
    ours = average_precision(match(found.detections, found.truths)).ap
    theirs = score_coco(found)["ap50"]
    assert ours is not None
    assert 0.1 < ours < 0.9
    assert ours == pytest.approx(theirs, abs=0.01)


@pytest.mark.parametrize(("before", "ap"), [(99, 1 / 100), (100, 0)])
def test_the_hundred_surest_detections_of_an_image_count(before: int, ap: float) -> None:
    """A face that the hundredth meets is found, with a precision of 1 in 100; one that the next meets is not."""
    alarms: list[tuple[Box, float]] = [((500 + 50 * number, 0, 540 + 50 * number, 40), 0.9) for number in range(before)]
    assert score_coco(one_image([*alarms, ((0, 0, 40, 40), 0.1)], [(0, 0, 40, 40)]))["ap50"] == pytest.approx(
        ap, abs=1e-6
    )
