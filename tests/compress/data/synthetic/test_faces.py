"""Synthetic faces: determinism, labels, variety."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from featherpress.compress.data import Sample, SyntheticFaces
from featherpress.errors import UsageError

NOISE = """
import hashlib
import numpy as np
from featherpress.compress.data.synthetic.scenes import _noise
drawn = [_noise(np.random.default_rng(seed), 1, cells, 320, 320) for seed in range(4) for cells in (24, 64)]
print(hashlib.sha256(b"".join(each.tobytes() for each in drawn)).hexdigest())
"""


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    data = SyntheticFaces(length=120, seed=3, size=(128, 160))
    return [data[index] for index in range(len(data))]


def test_a_picture_depends_on_seed_and_index_alone() -> None:
    """The same picture comes out of another data set, in another order, under another global random state."""
    first = SyntheticFaces(length=4, seed=5, size=(96, 96))[3]
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    other = SyntheticFaces(length=900, seed=5, size=(96, 96))
    _ = other[0]
    again = other[3]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.objects.boxes, again.objects.boxes)
    assert torch.equal(first.objects.landmarks, again.objects.landmarks)
    assert not torch.equal(first.image, SyntheticFaces(length=4, seed=6, size=(96, 96))[3].image)
    assert not torch.equal(first.image, other[4].image)


def test_a_picture_does_not_depend_on_threads() -> None:
    """NumPy's products on one thread and on two end in other digits; what is drawn does not, to the last bit."""
    ended = [
        subprocess.run(
            [sys.executable, "-c", NOISE],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        )
        for threads in ("1", "2")
    ]
    assert ended[0].stdout
    assert ended[0].stdout == ended[1].stdout


def test_boxes_lie_in_the_picture_and_landmarks_in_the_boxes(samples: list[Sample]) -> None:
    """Every box has an area inside its picture, and every labelled landmark lies inside its box."""
    for sample in samples:
        _, height, width = sample.image.shape
        faces = sample.objects
        assert (height, width) == (128, 160)
        assert bool((faces.boxes >= 0).all())
        assert bool((faces.boxes <= torch.tensor([width, height, width, height])).all())
        assert bool((faces.sizes > 0).all())
        points = faces.landmarks[faces.has_landmarks].view(-1, 5, 2)
        boxes = faces.boxes[faces.has_landmarks]
        assert bool(((points >= boxes[:, None, :2]) & (points <= boxes[:, None, 2:])).all())
        assert not faces.landmarks[~faces.has_landmarks].any()


def test_the_left_eye_is_the_left_one(samples: list[Sample]) -> None:
    """Image-left comes first, for eyes and for corners of the mouth, and eyes lie above the mouth."""
    points = torch.cat([s.objects.landmarks[s.objects.has_landmarks] for s in samples]).view(-1, 5, 2)
    assert len(points) > 50
    assert bool((points[:, 0, 0] < points[:, 1, 0]).all())
    assert bool((points[:, 3, 0] < points[:, 4, 0]).all())
    assert bool((points[:, :2, 1].mean(dim=1) < points[:, 3:, 1].mean(dim=1)).all())


def test_faces_vary(samples: list[Sample]) -> None:
    """There are small and large faces, pictures without any, and some that are ignored."""
    heights = torch.cat([sample.objects.sizes[:, 1] for sample in samples])
    counts = [len(sample.objects) for sample in samples]
    assert float(heights.min()) < 12
    assert float(heights.max()) > 70
    assert min(counts) == 0
    assert max(counts) >= 5
    ignored = torch.cat([sample.objects.ignored for sample in samples])
    assert 0 < int(ignored.sum()) < len(ignored) / 3


def test_slivers_are_ignored(samples: list[Sample]) -> None:
    """A face cut to 6 pixels or less is neither positive nor negative."""
    faces = [sample.objects for sample in samples]
    smallest = torch.cat([face.sizes.amin(dim=1) for face in faces])
    assert bool(torch.cat([face.ignored for face in faces])[smallest <= 6].all())


def test_labels_sit_on_the_faces_drawn() -> None:
    """Inside the boxes the picture has the edges that features make: more than around them on average."""
    data = SyntheticFaces(length=60, seed=0, size=(160, 160))
    inside, outside = [], []
    for index in range(len(data)):
        sample = data[index]
        edges = (sample.image.float().diff(dim=1).abs().sum(dim=0))[:, :-1]
        mask = torch.zeros_like(edges, dtype=torch.bool)
        for x1, y1, x2, y2 in sample.objects.boxes[~sample.objects.ignored].round().int().tolist():
            mask[y1:y2, x1:x2] = True
        if mask.any():
            inside.append(float(edges[mask].mean()))
            outside.append(float(edges[~mask].mean()))
    assert np.mean(inside) > 1.1 * np.mean(outside)


@pytest.mark.parametrize(("length", "seed", "size"), [(0, 0, (64, 64)), (1, -1, (64, 64)), (1, 0, (64, 16))])
def test_bad_arguments_are_refused(length: int, seed: int, size: tuple[int, int]) -> None:
    """An empty set, a negative seed and a tiny picture are refused in one sentence."""
    with pytest.raises(UsageError, match="expected length >= 1"):
        SyntheticFaces(length=length, seed=seed, size=size)


def test_indices_end() -> None:
    """Reading past the end stops a loop, as Python expects."""
    with pytest.raises(IndexError):
        SyntheticFaces(length=2, seed=0)[2]
