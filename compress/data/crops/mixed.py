"""Crops of labelled images with crops of photographs on top of every batch."""

from collections.abc import Sequence
from functools import partial

from featherpress.compress.data.balance import Rota, group_by_root
from featherpress.compress.data.crops.cached import CachedCrops
from featherpress.compress.data.crops.training import CropRanges
from featherpress.compress.data.samples import FaceDataset, Key
from featherpress.compress.data.sizes import batch_lengths
from featherpress.compress.data.subsets import JoinedFaces

_PHOTO_STREAM = 2


class MixedCrops(CachedCrops):
    """Batches of labelled crops, followed by `extra` crops of photographs, fewer where crops are larger.

    The labelled part is what `TrainingCrops` of the labelled images alone gives, crop for crop and in the same order,
    so that a run with photographs and one without differ in nothing else. Photographs come in an order of their own
    that runs on from epoch to epoch, those of several folders in turns; with every pass they move on to their next
    variant.
    """

    def __init__(
        self,
        labelled: FaceDataset,
        photographs: FaceDataset,
        *,
        extra: int,
        size: int | Sequence[int],
        seed: int,
        variants: int = 0,
        shares: Sequence[float] = (),
        ranges: CropRanges | None = None,
    ) -> None:
        joined = JoinedFaces(labelled, photographs)
        super().__init__(joined, size=size, seed=seed, variants=variants, shares=shares, ranges=ranges)
        self.labelled, self.photographs = len(labelled), len(photographs)
        self.extra = extra
        folders = group_by_root(photographs)
        self._rota = Rota(folders if len(folders) > 1 else folders[0], partial(self._random, _PHOTO_STREAM))

    def epoch_batches(self, epoch: int, crops: int) -> list[list[Key]]:
        """List the keys of an epoch's batches, photographs last."""
        batches = super().epoch_batches(epoch, crops)
        extras, kinds = batch_lengths(self.extra, self.sizes), len(self.sizes)
        place = epoch * (len(batches) // kinds) * sum(extras)
        for batch in batches:
            kind = batch[0][1] % kinds
            batch += [self._photograph(each, kind) for each in range(place, place + extras[kind])]
            place += extras[kind]
        return batches

    def _roots(self) -> list[list[int]]:
        return [root for root in super()._roots() if root[0] < self.labelled]

    def _photograph(self, place: int, kind: int) -> Key:
        row, turn = self._rota.pick(place)
        return self.labelled + row, self._variant(turn) * len(self.sizes) + kind
