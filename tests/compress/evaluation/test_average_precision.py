"""Average precision on cases worked out by hand, and what must not change it."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featherpress.compress.evaluation.detections import Detections, FloatArray, Truth
from featherpress.compress.evaluation.metrics.average_precision import (
    HEIGHTS,
    Matches,
    average_precision,
    average_precision_by_height,
    best_threshold,
    match,
    match_image,
    pairwise_iou,
    working_point,
)
from featherpress.errors import DataError

Box = tuple[float, float, float, float]

LEFT, MIDDLE, RIGHT, FAR = (0, 0, 10, 10), (100, 0, 110, 10), (200, 0, 210, 10), (900, 0, 910, 10)


def found(*rows: tuple[Box, float]) -> Detections:
    rows = tuple(sorted(rows, key=lambda row: -row[1]))
    return Detections(
        boxes=np.array([box for box, _ in rows], dtype=np.float64).reshape(-1, 4),
        scores=np.array([score for _, score in rows], dtype=np.float64),
        landmarks=np.zeros((len(rows), 10)),
    )


def labelled(*boxes: Box, ignored: tuple[Box, ...] = ()) -> Truth:
    both = np.array([*boxes, *ignored], dtype=np.float64).reshape(-1, 4)
    return Truth(boxes=both, ignored=np.arange(len(both)) >= len(boxes))


def ap(detections: Detections, truth: Truth) -> float | None:
    return average_precision(match([detections], [truth])).ap


def test_ap_of_a_false_alarm_between_two_hits() -> None:
    """Hit, false alarm, hit of 2 faces: recall 1/2 at precision 1, recall 1 at 2/3; 1/2 * 1 + 1/2 * 2/3 = 5/6."""
    detections = found((LEFT, 0.9), (FAR, 0.8), (MIDDLE, 0.7))
    assert ap(detections, labelled(LEFT, MIDDLE)) == pytest.approx(5 / 6, abs=1e-15)


def test_ap_uses_the_precision_envelope() -> None:
    """False alarm, hit, hit of 4 faces: precisions 1/2 and 2/3, the envelope lifts the first; 2 * 1/4 * 2/3 = 1/3."""
    detections = found((FAR, 0.9), (LEFT, 0.8), (MIDDLE, 0.7))
    assert ap(detections, labelled(LEFT, MIDDLE, RIGHT, (300, 0, 310, 10))) == pytest.approx(1 / 3, abs=1e-15)


def test_best_threshold_is_where_f1_is_best() -> None:
    """Hit, false alarm, hit, false alarm of 2 faces: F1 is 2/3, 1/2, 4/5, 2/3; without a hit nothing is shown."""
    detections = found((LEFT, 0.9), (FAR, 0.8), (MIDDLE, 0.25), (RIGHT, 0.1))
    assert best_threshold(match([detections], [labelled(LEFT, MIDDLE)])) == 0.25
    assert best_threshold(match([found((FAR, 0.9))], [labelled(LEFT)])) == 1.0


@pytest.mark.parametrize(
    ("threshold", "precision", "recall", "f1"),
    [(0.9, 1.0, 0.5, 2 / 3), (0.5, 0.5, 0.5, 0.5), (0.25, 2 / 3, 1.0, 0.8), (0.95, None, 0.0, 0.0)],
)
def test_a_working_point_by_hand(threshold: float, precision: float | None, recall: float, f1: float) -> None:
    """Hit, false alarm, hit, false alarm of 2 faces, from a score on, that score itself with it."""
    detections = found((LEFT, 0.9), (FAR, 0.5), (MIDDLE, 0.25), (FAR, 0.1))
    point = working_point(match([detections], [labelled(LEFT, MIDDLE)]), threshold)
    assert (point.precision, point.recall, point.f1) == pytest.approx((precision, recall, f1))


def test_without_a_face_there_is_no_recall() -> None:
    """Precision is known, recall and F1 are not."""
    point = working_point(match([found((FAR, 0.9))], [labelled()]), 0.5)
    assert (point.precision, point.recall, point.f1) == (0.0, None, None)


def test_ap_over_two_images_orders_scores_across_them() -> None:
    """Image 1: hit 0.9, false alarm 0.5; image 2: hit 0.7, missed face; 3 faces: 1/3 * 1 + 1/3 * 1 = 2/3."""
    matches = match(
        [found((LEFT, 0.9), (FAR, 0.5)), found((LEFT, 0.7))],
        [labelled(LEFT), labelled(LEFT, RIGHT)],
    )
    score = average_precision(matches)
    assert score.ap == pytest.approx(2 / 3, abs=1e-15)
    assert score.recall == pytest.approx(2 / 3)
    assert score.faces == 3


def test_equal_scores_enter_together() -> None:
    """A hit and a false alarm of one score make one point, recall 1 at precision 1/2, whichever is listed first."""
    first_hit = found((LEFT, 0.5), (FAR, 0.5))
    first_false = found((FAR, 0.5), (LEFT, 0.5))
    assert ap(first_hit, labelled(LEFT)) == ap(first_false, labelled(LEFT)) == 0.5


def test_a_duplicate_is_a_false_alarm() -> None:
    """Hit, duplicate of it, hit of 2 faces: as with a false alarm between, 5/6."""
    detections = found((LEFT, 0.9), (LEFT, 0.8), (MIDDLE, 0.7))
    assert ap(detections, labelled(LEFT, MIDDLE)) == pytest.approx(5 / 6, abs=1e-15)


def test_the_curve_has_101_points_of_the_envelope() -> None:
    """Hit, false alarm, hit of 2 faces: precision 1 up to recall 0.50, 2/3 from 0.51 to 1."""
    score = average_precision(match([found((LEFT, 0.9), (FAR, 0.8), (MIDDLE, 0.7))], [labelled(LEFT, MIDDLE)]))
    np.testing.assert_allclose(score.recall_curve, np.arange(101) / 100, atol=1e-15)
    np.testing.assert_allclose(score.precision_curve, np.where(np.arange(101) <= 50, 1, 2 / 3))
    curve = score.to_dict()["curve"]
    assert len(curve["recall"]) == len(curve["precision"]) == 101


@pytest.mark.parametrize(("hits", "faces"), [(0, 1), (2, 3), (6, 7), (7, 100), (29, 100), (57, 100), (99, 100)])
def test_the_curve_ends_where_recall_does(hits: int, faces: int) -> None:
    """With some of n faces found and no false alarm, the curve is 1 up to that recall and 0 beyond."""
    boxes: list[Box] = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(faces)]
    score = average_precision(match([found(*((box, 0.5) for box in boxes[:hits]))], [labelled(*boxes)]))
    reached = (np.arange(101) * faces <= 100 * hits) & (hits > 0)  # in integers: percent / 100 <= hits / faces
    np.testing.assert_array_equal(score.precision_curve, reached.astype(float))


def test_an_ignored_face_neither_helps_nor_hurts() -> None:
    """Found, found twice or missed, a face to ignore leaves AP as it is without it."""
    hits = ((LEFT, 0.9), (FAR, 0.8), (MIDDLE, 0.7))
    truth = labelled(LEFT, MIDDLE, ignored=(RIGHT,))
    plain = ap(found(*hits), labelled(LEFT, MIDDLE))
    assert ap(found(*hits), truth) == plain
    assert ap(found(*hits, (RIGHT, 0.99)), truth) == plain
    assert ap(found(*hits, (RIGHT, 0.99), (RIGHT, 0.95)), truth) == plain
    assert ap(found(*hits, (RIGHT, 0.99)), labelled(LEFT, MIDDLE)) != plain


def test_a_small_false_alarm_inside_an_ignored_face_still_counts() -> None:
    """A detection of a tenth of an ignored face's area, wholly inside it, is a false alarm."""
    hits, counted = match_image(found(((10, 10, 20, 20), 0.9)), labelled(ignored=((0, 0, 32, 32),)))
    assert not hits.any()
    assert counted.all()


def test_a_face_to_find_is_preferred_to_one_to_ignore() -> None:
    """A detection that overlaps an ignored face more still takes the face to be found."""
    truth = labelled((0, 0, 10, 8), ignored=(LEFT,))
    hits, counted = match_image(found((LEFT, 0.9)), truth)
    assert hits.tolist() == counted.tolist() == [True]


def test_each_detection_takes_the_free_face_it_overlaps_most() -> None:
    """The surer detection takes its best face, the other the one left over, and a third finds none."""
    truth = labelled((0, 0, 10, 10), (0, 2, 10, 12))
    detections = found(((0, 2, 10, 12), 0.9), ((0, 2, 10, 12), 0.8), ((0, 2, 10, 12), 0.7))
    hits, counted = match_image(detections, truth)
    assert hits.tolist() == [True, True, False]
    assert counted.all()


def test_iou_at_the_threshold_is_a_hit_and_just_below_is_not() -> None:
    """Half of a face is IoU 1/2 and found; a hair less is not."""
    assert match_image(found(((0, 0, 10, 5), 0.9)), labelled(LEFT))[0].all()
    assert not match_image(found(((0, 0, 10, 4.999), 0.9)), labelled(LEFT))[0].any()


def test_iou_of_known_pairs() -> None:
    """Equal boxes 1, a third shared 1/3, apart 0, without area 0."""
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60], [0, 0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(pairwise_iou(boxes[:1], boxes), [[1, 1 / 3, 0, 0]], atol=1e-15)
    assert pairwise_iou(boxes[3:], boxes[3:]) == 0


def test_without_faces_there_is_no_ap_and_without_detections_it_is_0() -> None:
    """None says that there was nothing to find, 0 that nothing was found."""
    nothing = average_precision(match([found((FAR, 0.9))], [labelled()]))
    assert (nothing.ap, nothing.recall, nothing.faces) == (None, None, 0)
    missed = average_precision(match([found()], [labelled(LEFT)]))
    assert (missed.ap, missed.recall, missed.faces) == (0.0, 0.0, 1)
    assert average_precision(match([], [])).ap is None


def test_ap_by_height_scores_each_range_alone() -> None:
    """Found at 8 and 200 px, missed at 20, none at 32-96; a false alarm of 50 px hurts no other range."""
    small, medium, large = (0, 0, 8, 8), (100, 0, 120, 20), (300, 0, 500, 200)
    detections = found((small, 0.8), (large, 0.9), ((700, 0, 750, 50), 0.99))
    scores = average_precision_by_height([detections], [labelled(small, medium, large)])
    assert [(score.name, score.ap, score.faces) for score in scores] == [
        ("< 16", 1.0, 1),
        ("16-32", 0.0, 1),
        ("32-96", None, 0),
        ("> 96", 1.0, 1),
    ]
    assert scores[3].to_dict() == {"name": "> 96", "low": 96, "high": None, "faces": 1, "ap": 1.0}


def test_a_false_alarm_counts_in_its_own_range() -> None:
    """A false alarm of 10 px above the hit halves precision below 16 px and leaves 32-96 px at 1."""
    small, large = (0, 0, 8, 8), (100, 0, 150, 50)
    detections = found((small, 0.8), (large, 0.8), ((700, 0, 710, 10), 0.99))
    scores = average_precision_by_height([detections], [labelled(small, large)])
    assert [score.ap for score in scores] == [0.5, None, 1.0, None]


def test_a_detection_of_a_face_of_another_range_is_no_false_alarm() -> None:
    """A detection of 15 px on a face of 17 px is ignored below 16 px and a hit from 16 to 32."""
    detections = found(((0, 0, 15, 15), 0.99), ((100, 0, 108, 8), 0.5))
    scores = average_precision_by_height([detections], [labelled((0, 0, 17, 17), (100, 0, 108, 8))])
    assert [score.ap for score in scores] == [1.0, 1.0, None, None]


def test_the_height_ranges_meet_without_gap_or_overlap() -> None:
    """Every face of at least 0 px is in one range exactly."""
    assert all(first[2] == second[1] for first, second in pairwise(HEIGHTS))
    assert (HEIGHTS[0][1], HEIGHTS[-1][2]) == (0, None)
    faces = [(0, 0, 5, height) for height in (15.99, 16, 31.99, 32, 95.99, 96, 1000)]
    scores = average_precision_by_height([found()], [labelled(*faces)])
    assert [score.faces for score in scores] == [1, 2, 2, 2]


def test_truth_of_another_number_of_images_is_refused() -> None:
    """Detections of two images and truth of one end in a sentence with both numbers."""
    with pytest.raises(DataError, match="truth of 2 images, one each; got 1"):
        match([found(), found()], [labelled()])


@st.composite
def sets(draw: st.DrawFn) -> tuple[list[Detections], list[Truth]]:
    """Up to 5 images with boxes on a coarse grid, so that they overlap, and few scores, so that they tie."""
    box = st.builds(
        lambda x, y, w, h: (float(x), float(y), float(x + w), float(y + h)),
        *(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(1, 5)),
    )
    score = st.integers(1, 12).map(lambda value: value / 16)
    images = draw(st.integers(1, 5))
    detections = [found(*draw(st.lists(st.tuples(box, score), max_size=6))) for _ in range(images)]
    boxes = st.lists(box, max_size=4)
    truths = [labelled(*draw(boxes), ignored=tuple(draw(boxes))) for _ in range(images)]
    return detections, truths


def naive_ap(matches: Matches) -> float | None:
    """The definition, one threshold at a time: the sum of recall gained times the best precision from there on."""
    faces = int(matches.faces.sum())
    if not faces:
        return None
    points = []
    for threshold in sorted(set(matches.scores.tolist()), reverse=True):
        kept = matches.counted & (matches.scores >= threshold)
        if kept.any():
            hits = int(matches.hits[kept].sum())
            points.append((hits / faces, hits / int(kept.sum())))
    area, before = 0.0, 0.0
    for index, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[index:])
        before = recall
    return area


@given(sets())
def test_ap_equals_the_definition(case: tuple[list[Detections], list[Truth]]) -> None:
    """The vectorised area is that of a loop over thresholds, and lies in [0, 1]."""
    matches = match(*case)
    score = average_precision(matches)
    assert score.ap == (pytest.approx(naive_ap(matches), abs=1e-12) if score.faces else None)
    assert score.ap is None or 0 <= score.ap <= 1 + 1e-12


@given(sets(), st.randoms(use_true_random=False))
def test_ap_does_not_depend_on_the_order_of_images(case: tuple[list[Detections], list[Truth]], random: Random) -> None:
    """The same images in another order give the same AP, ties and all."""
    order = list(range(len(case[0])))
    random.shuffle(order)
    other = match([case[0][i] for i in order], [case[1][i] for i in order])
    assert average_precision(other).ap == average_precision(match(*case)).ap


@given(sets(), st.sampled_from([np.sqrt, np.exp, lambda s: 100 * s - 7, lambda s: np.log(s / (1 - s))]))
def test_ap_does_not_depend_on_the_scale_of_scores(
    case: tuple[list[Detections], list[Truth]], transform: Callable[[FloatArray], FloatArray]
) -> None:
    """A rising transform of all scores leaves AP as it is."""
    moved = [Detections(boxes=each.boxes, scores=transform(each.scores), landmarks=each.landmarks) for each in case[0]]
    assert average_precision(match(moved, case[1])).ap == average_precision(match(*case)).ap


@given(sets())
def test_no_face_is_found_twice(case: tuple[list[Detections], list[Truth]]) -> None:
    """Hits never outnumber the faces of their image, and every hit counts."""
    matches = match(*case)
    hits: NDArray[np.int64] = np.bincount(matches.images[matches.hits], minlength=len(case[0]))
    assert (hits <= matches.faces).all()
    assert matches.counted[matches.hits].all()
