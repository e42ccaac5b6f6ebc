"""Detections and truth: what is accepted, and that saving keeps all of it."""

from pathlib import Path

import numpy as np
import pytest

from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.errors import DataError


def detections(count: int, *, seed: int = 0) -> Detections:
    rng = np.random.default_rng(seed)
    return Detections(
        boxes=rng.random((count, 4)).astype(np.float32),
        scores=np.sort(rng.random(count).astype(np.float32))[::-1],
        landmarks=rng.random((count, 10)).astype(np.float32),
    )


def truth(count: int) -> Truth:
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    return Truth(boxes=boxes, ignored=np.arange(count) % 2 == 1)


@pytest.mark.parametrize("counts", [[], [(0, 0)], [(3, 2), (0, 1), (5, 0), (0, 0)]])
def test_a_saved_set_is_loaded_as_it_was(counts: list[tuple[int, int]], tmp_path: Path) -> None:
    """Names, arrays and types come back equal, empty images included, and no partial file is left."""
    saved = DetectionSet(
        names=tuple(f"0--Parade/é_{i}.jpg" for i in range(len(counts))),
        detections=tuple(detections(found, seed=i) for i, (found, _) in enumerate(counts)),
        truths=tuple(truth(faces) for _, faces in counts),
    )
    saved.save(tmp_path / "set.npz")
    loaded = DetectionSet.load(tmp_path / "set.npz")
    assert loaded.names == saved.names
    for before, after in zip(saved.detections, loaded.detections, strict=True):
        for field in ("boxes", "scores", "landmarks"):
            np.testing.assert_array_equal(getattr(before, field), getattr(after, field))
            assert getattr(after, field).dtype == np.float32
    for expected, actual in zip(saved.truths, loaded.truths, strict=True):
        np.testing.assert_array_equal(expected.boxes, actual.boxes)
        np.testing.assert_array_equal(expected.ignored, actual.ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def test_a_missing_a_truncated_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    """Each ends in one sentence that names the file, pickles included."""
    path = tmp_path / "set.npz"
    with pytest.raises(DataError, match=r"No saved detections at .*set\.npz"):
        DetectionSet.load(path)
    DetectionSet(names=("a",), detections=(detections(9),), truths=(truth(2),)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"set\.npz is not a complete file"):
        DetectionSet.load(path)
    np.savez(path, names=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"set\.npz is not a complete file"):
        DetectionSet.load(path)
    np.savez(path, boxes=np.zeros(3))
    with pytest.raises(DataError, match=r"set\.npz is not a complete file"):
        DetectionSet.load(path)
    path.write_text("boxes")
    with pytest.raises(DataError, match=r"set\.npz is not a complete file of saved \w+ \([^.]*\): evaluate again\.$"):
        DetectionSet.load(path)


def test_no_damage_goes_unnoticed(tmp_path: Path) -> None:
    """With bytes overwritten anywhere, a file is refused in one sentence or its checksums prove it whole."""
    path = tmp_path / "set.npz"
    saved = DetectionSet(names=("a", "b"), detections=(detections(9), detections(4)), truths=(truth(2), truth(0)))
    saved.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = DetectionSet.load(path)
        except DataError:
            refused += 1
        else:
            np.testing.assert_array_equal(loaded.detections[0].boxes, saved.detections[0].boxes)
    assert refused > 50


@pytest.mark.parametrize("scores", [[0.1, 0.9], [np.nan], [np.inf, 0.5]])
def test_scores_out_of_order_or_not_finite_are_refused(scores: list[float]) -> None:
    """Greedy matching relies on the order, so it is checked where detections are made."""
    count = len(scores)
    with pytest.raises(DataError, match="falling order"):
        Detections(boxes=np.zeros((count, 4)), scores=np.array(scores), landmarks=np.zeros((count, 10)))


def test_arrays_of_other_shapes_are_refused() -> None:
    """Boxes without landmarks, flags that are not bool, and sets of unequal length do not pass."""
    with pytest.raises(DataError, match=r"landmarks \(k, 10\)"):
        Detections(boxes=np.zeros((2, 4)), scores=np.zeros(2), landmarks=np.zeros((2, 5, 2)))
    with pytest.raises(DataError, match=r"ignored \(n,\)"):
        Truth(boxes=np.zeros((2, 4)), ignored=np.zeros(3, bool))
    with pytest.raises(DataError, match="of bool"):
        Truth(boxes=np.zeros((2, 4)), ignored=np.zeros(2, int))
    with pytest.raises(DataError, match="for every image"):
        DetectionSet(names=("a",), detections=(), truths=())
