"""Geometry of labels, and batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featherpress.compress.data import Objects, Sample, collate

SIDE = 100.0


@st.composite
def faces(draw: st.DrawFn, most: int = 5) -> Objects:
    """Faces inside a square picture, each landmark inside its box, some unlabelled, some ignored."""
    count = draw(st.integers(0, most))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    corners = torch.rand(count, 2, 2, generator=random).sort(dim=1).values * SIDE
    low, high = corners[:, 0], corners[:, 1]
    points = low[:, None] + torch.rand(count, 5, 2, generator=random) * (high - low)[:, None]
    labelled = torch.rand(count, generator=random) < 0.7
    return Objects(
        boxes=torch.cat([low, high], dim=1),
        landmarks=points.reshape(-1, 10) * labelled[:, None],
        has_landmarks=labelled,
        ignored=torch.rand(count, generator=random) < 0.3,
        labels=torch.randint(0, 9, (count,), generator=random),
    )


def landmarks_inside(faces: Objects, slack: float = 1e-2) -> bool:
    labelled = faces.select(faces.has_landmarks)
    points = labelled.landmarks.view(-1, 5, 2)
    low, high = labelled.boxes[:, None, :2], labelled.boxes[:, None, 2:]
    return bool(((points >= low - slack) & (points <= high + slack)).all())


@given(faces())
def test_flip_is_an_involution(given_faces: Objects) -> None:
    """Mirroring twice gives the same boxes, landmarks and flags."""
    twice = given_faces.flipped(SIDE).flipped(SIDE)
    torch.testing.assert_close(twice.boxes, given_faces.boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(twice.landmarks, given_faces.landmarks, atol=1e-4, rtol=0)
    assert torch.equal(twice.ignored, given_faces.ignored)


@given(faces())
def test_landmarks_stay_inside_their_face_after_a_flip(given_faces: Objects) -> None:
    """Mirroring moves boxes and landmarks alike, and keeps boxes ordered."""
    flipped = given_faces.flipped(SIDE)
    assert landmarks_inside(flipped)
    assert bool((flipped.sizes >= 0).all())


def test_flip_keeps_the_left_eye_on_the_left() -> None:
    """After a flip the first landmark is again the leftmost eye, the fourth the leftmost corner of the mouth."""
    points = torch.tensor([[10.0, 10, 30, 10, 20, 20, 12, 30, 28, 30]])
    face = Objects(
        boxes=torch.tensor([[5.0, 0, 35, 40]]),
        landmarks=points,
        has_landmarks=torch.tensor([True]),
        ignored=torch.tensor([False]),
        labels=torch.zeros(1, dtype=torch.int64),
    )
    flipped = face.flipped(100)
    assert flipped.landmarks.tolist() == [[70, 10, 90, 10, 80, 20, 72, 30, 88, 30]]
    assert flipped.boxes.tolist() == [[65, 0, 95, 40]]


@given(
    faces(),
    st.tuples(st.floats(-50, 90), st.floats(-50, 90), st.floats(10, 150), st.floats(10, 150)),
)
def test_crop_keeps_centres_and_cuts_boxes(given_faces: Objects, window: tuple[float, float, float, float]) -> None:
    """A crop keeps every face whose centre is in it, cuts boxes at its border, and never un-ignores a face."""
    left, top, width, height = window
    cut = given_faces.cropped(left, top, width, height)
    x, y = (given_faces.centres - torch.tensor([left, top])).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    assert len(cut) >= int(inside.sum())
    assert int((~cut.ignored).sum()) <= int((inside & ~given_faces.ignored).sum())
    assert bool((cut.boxes >= 0).all())
    assert bool((cut.boxes <= torch.tensor([width, height, width, height])).all())


@given(faces(), st.floats(0, 40), st.floats(0, 40))
def test_uncut_faces_keep_their_landmarks_inside(given_faces: Objects, left: float, top: float) -> None:
    """A window that holds all faces moves landmarks with their boxes, also when it is scaled."""
    cut = given_faces.cropped(-left, -top, SIDE + left, SIDE + top).scaled(2.5, 0.5)
    assert len(cut) == len(given_faces)
    assert landmarks_inside(cut)


def test_a_face_that_half_left_is_ignored_and_one_that_left_is_dropped() -> None:
    """The 25 % rule: 40 % of a face visible without its centre is ignored, 10 % is background."""
    face = Objects(
        boxes=torch.tensor([[0.0, 0, 10, 10]]),
        landmarks=torch.zeros(1, 10),
        has_landmarks=torch.tensor([False]),
        ignored=torch.tensor([False]),
        labels=torch.zeros(1, dtype=torch.int64),
    )
    assert face.cropped(6, 0, 50, 50).ignored.tolist() == [True]
    assert len(face.cropped(9, 0, 50, 50)) == 0
    assert face.cropped(4, 0, 50, 50).ignored.tolist() == [False]


def test_a_window_far_inside_a_face_shows_too_little_of_it() -> None:
    """A window that holds the centre but less than a quarter of the face makes it ignored."""
    face = Objects(
        boxes=torch.tensor([[0.0, 0, 100, 100]]),
        landmarks=torch.zeros(1, 10),
        has_landmarks=torch.tensor([False]),
        ignored=torch.tensor([False]),
        labels=torch.zeros(1, dtype=torch.int64),
    )
    assert face.cropped(30, 30, 40, 40).ignored.tolist() == [True]


@given(st.lists(faces(), min_size=1, max_size=4))
def test_collate_pads_without_inventing_faces(rows: list[Objects]) -> None:
    """A batch holds exactly the faces given, in rows as wide as the fullest one and at least one."""
    samples = [Sample(image=torch.zeros(3, 4, 4, dtype=torch.uint8), objects=row, name="") for row in rows]
    batch = collate(samples, [(number, 0) for number in range(len(rows))])
    assert batch.present.sum(dim=1).tolist() == [len(row) for row in rows]
    assert batch.boxes.shape == (len(rows), max(1, *(len(row) for row in rows), 0), 4)
    assert torch.equal(batch.boxes[batch.present], torch.cat([row.boxes for row in rows]))
    assert torch.equal(batch.landmarks[batch.present], torch.cat([row.landmarks for row in rows]))
    assert not batch.ignored[~batch.present].any()
    assert batch.keys.tolist() == [[number, 0] for number in range(len(rows))]


def test_none_has_the_shapes_of_faces() -> None:
    """No face at all survives every operation."""
    none = Objects.none().cropped(0, 0, 5, 5).scaled(2, 2).flipped(10)
    assert none.boxes.shape == (0, 4)
    assert none.landmarks.shape == (0, 10)


def test_batch_moves_every_tensor() -> None:
    """`to` moves all seven tensors: one that stays behind would fail far away from here."""
    batch = collate([Sample(image=torch.zeros(3, 4, 4, dtype=torch.uint8), objects=Objects.none(), name="")], [(0, 0)])
    batch = batch.to("meta")
    with pytest.raises(NotImplementedError):
        batch.keys.tolist()
    assert {batch.images.device.type, batch.boxes.device.type, batch.ignored.device.type} == {"meta"}
