"""Matching and mining against the same rules written as plain loops."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featherpress.compress.data import Batch
from featherpress.compress.tasks.detection.assignment import Targets, match_priors
from featherpress.compress.tasks.detection.loss import Mining, mine_negatives
from featherpress.models.priors import PriorSpec, encode_boxes

SIDE, THRESHOLD = 64, 0.35
PRIORS = PriorSpec().priors(SIDE, SIDE)


def random_batch(seed: int, images: int, most: int) -> Batch:
    """Draw faces on a coarse grid, so that ties and doubles happen; some are ignored, some images have none."""
    random = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 7, (images, most, 2), generator=random) * 8.0
    size = 2.0 ** torch.randint(1, 6, (images, most, 2), generator=random)
    boxes = torch.cat([corner, corner + size], dim=2)
    present = torch.rand(images, most, generator=random) < 0.7
    return Batch(
        images=torch.zeros(images, 3, SIDE, SIDE, dtype=torch.uint8),
        boxes=boxes * present[..., None],
        landmarks=torch.rand(images, most, 10, generator=random) * SIDE,
        present=present,
        has_landmarks=present & (torch.rand(images, most, generator=random) < 0.5),
        ignored=present & (torch.rand(images, most, generator=random) < 0.3),
        labels=torch.zeros(images, most, dtype=torch.int64),
        keys=torch.zeros(images, 2, dtype=torch.int64),
    )


def overlap(box: Tensor, prior: Tensor) -> float:
    x, y, w, h = prior.tolist()
    x1, y1, x2, y2 = box.tolist()
    wide = max(min(x2, x + w / 2) - max(x1, x - w / 2), 0)
    high = max(min(y2, y + h / 2) - max(y1, y - h / 2), 0)
    return wide * high / ((x2 - x1) * (y2 - y1) + w * h - wide * high)


def match_slowly(batch: Batch, image: int) -> tuple[list[int], list[bool]]:
    """Give each prior its face, or -1, and say whether it is a negative, one pair after the other."""
    faces = batch.present[image].nonzero().flatten().tolist()
    table = {face: [overlap(batch.boxes[image, face], prior) for prior in PRIORS] for face in faces}
    counted = [face for face in faces if not batch.ignored[image, face]]
    owner, negative = [], []
    for prior in range(len(PRIORS)):
        best = max(counted, key=lambda face: table[face][prior], default=None)
        owner.append(best if best is not None and table[best][prior] >= THRESHOLD else -1)
        negative.append(not any(table[face][prior] >= THRESHOLD for face in faces if batch.ignored[image, face]))
    for face in counted:
        owner[table[face].index(max(table[face]))] = face
    for face in set(faces) - set(counted):
        negative[table[face].index(max(table[face]))] = False
    return owner, [free and own < 0 for free, own in zip(negative, owner, strict=True)]


def test_a_tiny_ignored_face_is_no_background() -> None:
    """An ignored face too small for any prior still keeps its best one from being taught as background."""
    batch = random_batch(0, 1, 1)
    box = torch.cat([PRIORS[5, :2] - 1, PRIORS[5, :2] + 1])
    without_teachers = replace(
        batch, boxes=box.view(1, 1, 4), present=torch.tensor([[True]]), ignored=torch.tensor([[True]])
    )
    targets = match_priors(PRIORS, without_teachers)
    assert not targets.positive.any()
    assert (~targets.negative).sum() == 1


@settings(max_examples=25)
@given(st.integers(0, 2**20), st.integers(1, 3), st.integers(1, 6))
def test_matching_equals_the_loop(seed: int, images: int, most: int) -> None:
    """Every prior gets the face, the target and the part that the rules give it one at a time."""
    batch = random_batch(seed, images, most)
    targets = match_priors(PRIORS, batch)
    for image in range(images):
        owner, negative = match_slowly(batch, image)
        face = torch.tensor(owner)
        positive = face >= 0
        assert torch.equal(targets.positive[image], positive)
        assert targets.negative[image].tolist() == negative
        assert torch.equal(targets.face[image][positive], face[positive])
        wanted = encode_boxes(batch.boxes[image][face[positive]], PRIORS[positive])
        torch.testing.assert_close(targets.boxes[image][positive], wanted)
        assert torch.equal(targets.has_landmarks[image][positive], batch.has_landmarks[image][face[positive]])
        assert not targets.boxes[image][~positive].any()


def mine_slowly(entropy: Tensor, targets: Targets, mining: Mining) -> set[tuple[int, int]]:
    groups = [[row] for row in range(len(entropy))] if mining == "image" else [list(range(len(entropy)))]
    chosen: set[tuple[int, int]] = set()
    for rows in groups:
        places = [(row, column) for row in rows for column in range(entropy.shape[1])]
        places = [place for place in places if targets.negative[place]]
        wanted = 7 * max(int(targets.positive[rows].sum()), 1)
        chosen |= set(sorted(places, key=lambda place: -float(entropy[place]))[:wanted])
    return chosen


@pytest.mark.parametrize("mining", ["batch", "image"])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**20))
def test_mining_equals_the_loop(mining: Mining, seed: int) -> None:
    """The hardest negatives of batch or image are chosen, seven a positive, and of equally hard ones the first."""
    targets = match_priors(PRIORS, random_batch(seed, 3, 2))
    entropy = torch.randint(0, 9, (3, len(PRIORS)), generator=torch.Generator().manual_seed(seed)) / 4
    found = mine_negatives(entropy, targets, mining=mining)
    assert set(map(tuple, found.nonzero().tolist())) == mine_slowly(entropy, targets, mining)
