"""Crops that are cut once and kept."""

from featherpress.compress.data.crops.training import TrainingCrops
from featherpress.compress.data.samples import Sample

_KEEP_BYTES = 6 << 30


class CachedCrops(TrainingCrops):
    """Training crops of a fixed number of variants, kept in memory once cut, up to 6 GiB.

    What comes is what `TrainingCrops` gives; later epochs are only spared the cutting.
    """

    _kept_bytes = 0

    def crop(self, index: int, variant: int) -> Sample:
        """Cut a crop, or return the one cut before."""
        kept: dict[tuple[int, int], Sample] = self.__dict__.setdefault("_kept", {})
        sample = kept.get((index, variant))
        if sample is None:
            sample = super().crop(index, variant)
            if self._kept_bytes < _KEEP_BYTES:
                kept[index, variant] = sample
                self._kept_bytes += sample.image.numel()
        return sample
