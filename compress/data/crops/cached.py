"""Crops that are cut once and kept."""

from collections.abc import Iterator
from dataclasses import fields

from featherpress.compress.data.crops.training import TrainingCrops
from featherpress.compress.data.samples import Faces, Key, Sample


class CachedCrops(TrainingCrops):
    """Training crops of a fixed number of variants, kept in memory once cut, up to 6 GiB.

    What comes is what `TrainingCrops` gives; later epochs are only spared the cutting. Without such a number no crop
    comes again, and none is kept.
    """

    keep_bytes = 6 << 30
    kept_bytes = 0

    def crop(self, index: int, variant: int) -> Sample:
        """Cut a crop, or return the one cut before."""
        kept: dict[Key, Sample] = self.__dict__.setdefault("_kept", {})
        sample = kept.get((index, variant))
        if sample is None:
            sample = super().crop(index, variant)
            size = sum(_sizes(sample))
            if self.variants and self.kept_bytes + size <= self.keep_bytes:
                kept[index, variant] = sample
                self.kept_bytes += size
        return sample


def _sizes(sample: Sample) -> Iterator[int]:
    """Say what the tensors of a sample take in memory, in bytes."""
    yield sample.image.nbytes
    for field in fields(Faces):
        yield getattr(sample.faces, field.name).nbytes
