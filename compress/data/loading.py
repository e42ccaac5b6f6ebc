"""Batches in a fixed order, cut ahead of time by worker processes."""

from collections.abc import Iterator, Sequence
from typing import Generic

import torch
from torch.utils.data import DataLoader, Dataset

from featherpress.compress.data.crops.base import BatchT, Crops
from featherpress.compress.data.samples import Key
from featherpress.errors import FeatherpressError


class _Batches(Dataset[BatchT | FeatherpressError], Generic[BatchT]):
    """Batches by their keys; an error is handed over, for DataLoader would wrap a worker's in its traceback."""

    def __init__(self, crops: Crops[BatchT]) -> None:
        self.crops = crops

    def __getitem__(self, keys: Sequence[Key]) -> BatchT | FeatherpressError:
        try:
            return self.crops.batch(keys)
        except FeatherpressError as error:
            return error


def batches(
    crops: Crops[BatchT],
    order: Sequence[Sequence[Key]],
    *,
    start: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[BatchT]:
    """Cut the batches of an order, each a list of keys, from batch `start` on.

    What comes does not depend on the number of workers, nor on where it starts. With workers, images are first read
    into memory, which the workers share; what they cut is kept here, and outlives them. Nothing is drawn from a global
    random generator.
    Errors: DataError where no image at all can be read.
    """
    chunks = [(keys, workers > 0 and crops.keeps(keys)) for keys in order[start:]]
    cut = [keys for keys, kept in chunks if not kept]
    if workers and cut:
        crops.preload(threads=workers)
    pin = pin_memory and torch.cuda.is_available()
    loader = DataLoader(
        _Batches(crops),
        sampler=cut,
        batch_size=None,
        num_workers=workers if cut else 0,
        pin_memory=pin,
        generator=torch.Generator(),
    )
    arriving = iter(loader)
    for keys, kept in chunks:
        batch = crops.batch(keys) if kept else next(arriving)
        if isinstance(batch, FeatherpressError):
            raise batch
        if kept:
            batch = batch.pin_memory() if pin else batch
        elif workers:
            crops.receive(batch, keys)
        yield batch
