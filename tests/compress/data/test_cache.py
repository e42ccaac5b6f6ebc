"""What a process keeps in memory: one limit, what outlives workers, and batches that do not depend on it."""

import hashlib
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import torch

from featherpress.compress.data import Batch, Objects, Sample, TrainingCrops, batches
from featherpress.compress.data.samples import collate, separate
from featherpress.compress.data.subsets import join
from featherpress.compress.recipes.data import CropsRecipe


class Noise:
    """Noisy pictures of one size with a few faces each, which count how often they are read."""

    def __init__(self, length: int, *, seed: int = 0, side: int = 96) -> None:
        self.length, self.seed, self.side, self.read = length, seed, side, 0

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{index % 3}--event/{self.seed}-{index}.jpg"

    def __getitem__(self, index: int) -> Sample:
        self.read += 1
        random = np.random.default_rng([self.seed, index])
        count = int(random.integers(0, 4))
        corners = random.uniform(0, 0.7 * self.side, (count, 2)).astype(np.float32)
        boxes = np.concatenate([corners, corners + random.uniform(6, 30, (count, 2)).astype(np.float32)], axis=1)
        faces = Objects(
            boxes=torch.from_numpy(boxes),
            landmarks=torch.from_numpy(np.tile(corners + 3, (1, 5))),
            has_landmarks=torch.ones(count, dtype=torch.bool),
            ignored=torch.from_numpy(random.random(count) < 0.3),
            labels=torch.arange(count),
        )
        image = random.integers(0, 255, (3, self.side, self.side), dtype=np.uint8)
        return Sample(image=torch.from_numpy(image), objects=faces, name=self.name(index))


def mixed(variants: int, cache_bytes: int = 1 << 30) -> TrainingCrops:
    labelled, photographs = join(Noise(20), Noise(9, seed=1)), join(Noise(7, seed=2), Noise(4, seed=3))
    return TrainingCrops(
        labelled,
        photographs=photographs,
        extra=3,
        size=(16, 32),
        seed=1,
        variants=variants,
        shares=(1, 1),
        ranges=CropsRecipe(native_probability=0.4),
        cache_bytes=cache_bytes,
    )


def epochs(crops: TrainingCrops, count: int = 3, workers: int = 0) -> Iterator[Batch]:
    for epoch in range(count):
        yield from batches(crops, crops.sampler.epoch_batches(epoch, 4), workers=workers)


def digest(crops: TrainingCrops, workers: int = 0) -> str:
    """Hash all that is in the batches of three epochs."""
    total = hashlib.sha256()
    for batch in epochs(crops, workers=workers):
        for name in Batch.__slots__:
            total.update(getattr(batch, name).contiguous().numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize(
    ("variants", "keys", "boxes"), [(0, "594c9bbddc7f99ad", 6978.66), (2, "8ca49a7dbf4dc194", 7225.84)]
)
def test_batches_are_those_of_earlier_versions(variants: int, keys: str, boxes: float) -> None:
    """The keys of three epochs, and where their faces lie, are pinned: runs of one seed can be compared over time."""
    found = list(epochs(mixed(variants)))
    pinned = hashlib.sha256(b"".join(batch.keys.numpy().tobytes() for batch in found)).hexdigest()[:16]
    assert pinned == keys
    assert sum(float(batch.boxes.double().sum()) for batch in found) == pytest.approx(boxes, abs=0.1)


@pytest.mark.parametrize("variants", [0, 2])
def test_what_is_kept_changes_no_batch(variants: int) -> None:
    """To the bit the same come with room for all, for some or for nothing, and from workers."""
    expected = digest(mixed(variants, cache_bytes=0))
    for cache_bytes, workers in ((1 << 30, 0), (100_000, 0), (1 << 30, 2), (100_000, 1)):
        assert digest(mixed(variants, cache_bytes), workers) == expected


def test_batches_come_apart_as_they_were_put_together() -> None:
    """Crops are taken out of a batch without its padding."""
    samples = [Noise(4)[index] for index in range(4)]
    for before, after in zip(samples, separate(collate(samples, [(0, 0)] * 4)), strict=True):
        assert torch.equal(after.image, before.image)
        assert all(
            torch.equal(getattr(after.objects, name), getattr(before.objects, name)) for name in Objects.__slots__
        )


def test_crops_that_never_come_again_are_not_kept() -> None:
    """Three epochs of ever new crops keep images only; of a number of variants the crops are kept."""
    for variants in (0, 2):
        crops = mixed(variants)
        list(epochs(crops))
        kept = [key for key in crops.cache if isinstance(key, tuple)]
        assert (len(kept) > 0) == (variants > 0)
        assert crops.cache.bytes == sum(
            each.nbytes for key in crops.cache for each in crops.cache[key].tensors().values()
        )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_workers_cut_outlives_them(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once every crop was cut, later epochs come from memory: no image is read, whoever cut them first."""
    data = Noise(8)
    crops = TrainingCrops(data, size=16, seed=0, variants=1)
    list(epochs(crops, 1, workers))
    assert len([key for key in crops.cache if isinstance(key, tuple)]) == 8
    read = data.read
    monkeypatch.setattr(crops, "preload", lambda **_: pytest.fail("asked for workers"))
    again = list(epochs(crops, 2, workers))
    assert (len(again), data.read) == (4, read)


@pytest.mark.parametrize(("variants", "workers"), [(0, 0), (4, 0), (4, 1)])
def test_a_process_stays_within_its_limit(variants: int, workers: int) -> None:
    """Three epochs of 128 MB of images and of 50 MB of crops add no more to a process than the limit of 16 MB."""
    crops = TrainingCrops(Noise(160, side=512), size=160, seed=0, variants=variants, cache_bytes=16 << 20)
    crops.batch([(0, 9)])
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in epochs(crops, 3, workers):
        assert crops.cache.bytes <= 16 << 20
    assert process.memory_info().rss - before < 40 << 20
    assert crops.cache.bytes > 12 << 20
