"""Crops of labelled images with crops of photographs on top of every batch."""

from featherpress.compress.data.crops.cached import CachedCrops
from featherpress.compress.data.crops.training import ORDER_STREAM, CropRanges
from featherpress.compress.data.samples import FaceDataset, Key
from featherpress.compress.data.subsets import JoinedFaces

_PHOTO_STREAM = 2


class MixedCrops(CachedCrops):
    """Batches of `batch_size` labelled crops, followed by `extra` crops of photographs.

    The labelled part is what `TrainingCrops` of the labelled images alone gives, crop for crop and in the same order,
    so that a run with photographs and one without differ in nothing else. Photographs come in an order of their own
    that runs on from epoch to epoch; with every pass they move on to their next variant.
    """

    def __init__(
        self,
        labelled: FaceDataset,
        photographs: FaceDataset,
        *,
        batch_size: int,
        extra: int,
        size: int,
        seed: int,
        variants: int = 0,
        ranges: CropRanges | None = None,
    ) -> None:
        super().__init__(JoinedFaces(labelled, photographs), size=size, seed=seed, variants=variants, ranges=ranges)
        self.labelled, self.photographs = len(labelled), len(photographs)
        self.batch_size, self.extra = batch_size, extra
        self._orders: dict[int, list[int]] = {}

    def epoch_keys(self, epoch: int) -> list[Key]:
        """List the keys of an epoch's batches, one batch after the other."""
        variant = self._variant(epoch)
        order = self._random(ORDER_STREAM, epoch).permutation(self.labelled)
        known = [(int(index), variant) for index in order]
        batches = self.labelled // self.batch_size
        keys: list[Key] = []
        for number in range(batches):
            keys += known[number * self.batch_size : (number + 1) * self.batch_size]
            first = (epoch * batches + number) * self.extra
            keys += [self._photograph(place) for place in range(first, first + self.extra)]
        return keys

    def _photograph(self, place: int) -> Key:
        turn, row = divmod(place, self.photographs)
        if turn not in self._orders:
            self._orders = {turn: self._random(_PHOTO_STREAM, turn).permutation(self.photographs).tolist()}
        return self.labelled + self._orders[turn][row], self._variant(turn)
