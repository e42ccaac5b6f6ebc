"""Batches in a fixed order, cut ahead of time by worker processes."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset

from featherpress.compress.data.crops.training import TrainingCrops
from featherpress.compress.data.samples import Batch, Key
from featherpress.errors import DataError, UsageError


class _Batches(Dataset["Batch | DataError"]):
    """Batches by their keys; an error is handed over, for DataLoader would wrap a worker's in its traceback."""

    def __init__(self, crops: TrainingCrops) -> None:
        self.crops = crops

    def __getitem__(self, keys: Sequence[Key]) -> Batch | DataError:
        try:
            return self.crops.batch(keys)
        except DataError as error:
            return error


def batches(
    crops: TrainingCrops,
    order: Sequence[Sequence[Key]],
    *,
    start: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Cut the batches of an order, each a list of keys, from batch `start` on.

    What comes does not depend on the number of workers, nor on where it starts. With workers, images are first read
    into the cache of `crops`, which the workers then share. Nothing is drawn from a global random generator.
    Errors: UsageError on numbers that cannot be; DataError where no image at all can be read.
    """
    if start < 0 or workers < 0:
        raise UsageError(f"expected start >= 0 and workers >= 0, got {start} and {workers}")
    chunks = order[start:]
    if workers:
        crops.preload(threads=workers)
    loader = DataLoader(
        _Batches(crops),
        sampler=chunks,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory and torch.cuda.is_available(),
        generator=torch.Generator(),
    )
    for keys, batch in zip(chunks, loader, strict=True):
        if isinstance(batch, DataError):
            raise batch
        if workers:
            _note_broken(crops, keys, batch)
        yield batch


def _note_broken(crops: TrainingCrops, keys: Sequence[Key], batch: Batch) -> None:
    """Learn from the replaced keys which images a worker found broken: its own notes die with it."""
    for (wanted, _), used in zip(keys, batch.keys[:, 0].tolist(), strict=True):
        for index in range(wanted, wanted + (used - wanted) % len(crops)):
            _read_again(crops, index % len(crops))


def _read_again(crops: TrainingCrops, index: int) -> None:
    if index not in crops.broken:
        try:
            crops.dataset[index]
        except DataError as error:
            crops.skip(index, error)
