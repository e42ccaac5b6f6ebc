"""What a trainer asks of training images: the batches of an epoch, cut by key."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch.utils.data import get_worker_info

from featherpress.compress.data.crops.sampling import Sampler
from featherpress.compress.data.samples import ImageBatch, Key, NamedImages
from featherpress.errors import DataError

logger = logging.getLogger("featherpress")


BatchT = TypeVar("BatchT", bound=ImageBatch)


class Crops(ABC, Generic[BatchT]):
    """Training images by key: `sampler` says which come when, `batch` cuts them.

    Images that cannot be read are collected in `broken` and warned about once.
    """

    def __init__(self, dataset: NamedImages, sampler: Sampler) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.dataset)

    @abstractmethod
    def batch(self, keys: Sequence[Key]) -> BatchT:
        """Cut the images of some keys."""

    def keeps(self, keys: Sequence[Key]) -> bool:
        """Return whether all of a batch is in memory."""
        return False

    def receive(self, batch: BatchT, keys: Sequence[Key]) -> None:
        """Take over what a worker cut for some keys."""

    def preload(self, threads: int = 1) -> None:
        """Read images into memory, so that forked workers share them."""

    def cache_images(self, kind: Literal["ram", "disk", "none"], folder: Path) -> None:
        """Choose where decoded images are kept: in memory while they fit, in a folder, or nowhere."""

    def skip(self, index: int, error: DataError) -> None:
        """Note a broken image, and warn the first time."""
        if index not in self.broken:
            self.broken.add(index)
            if get_worker_info() is None:  # a worker's process tells the one that started it
                logger.warning("skipped image %s: %s", self.dataset.name(index), error)


class WholeImages(Crops[BatchT]):
    """Training images as they are: `cut` returns those of some numbers as a batch."""

    def __init__(self, dataset: NamedImages, sampler: Sampler, cut: Callable[[Sequence[int]], BatchT]) -> None:
        super().__init__(dataset, sampler)
        self.cut = cut

    def batch(self, keys: Sequence[Key]) -> BatchT:
        """Return the images of some keys, their variants left aside."""
        return replace(self.cut([index for index, _ in keys]), keys=torch.tensor(keys, dtype=torch.int64))
