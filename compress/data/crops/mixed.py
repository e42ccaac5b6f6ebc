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
_FAR = 1 << 20


class MixedCrops(CachedCrops):
    """Batches of labelled crops, followed by `extra` crops of photographs, fewer where crops are larger.

    The labelled part is what `TrainingCrops` of the labelled images alone gives, crop for crop and in the same order,
    so that a run with photographs and one without differ in nothing else. Photographs come in an order of their own
    that runs on from epoch to epoch, those of several folders in turns; with every pass they move on to their next
    variant. Without photographs the crops on top are further ones of the labelled images: the control's, which sees as
    many as the student.
    """

    def __init__(
        self,
        labelled: FaceDataset,
        photographs: FaceDataset | None,
        *,
        extra: int,
        size: int | Sequence[int],
        seed: int,
        variants: int = 0,
        shares: Sequence[float] = (),
        ranges: CropRanges | None = None,
    ) -> None:
        joined = labelled if photographs is None else JoinedFaces(labelled, photographs)
        super().__init__(joined, size=size, seed=seed, variants=variants, shares=shares, ranges=ranges)
        self.labelled, self.photographs = len(labelled), 0 if photographs is None else len(photographs)
        self.extra = extra
        self._first = self.labelled if self.photographs else 0
        # More of the labelled images are not the crops that the epoch has of them anyway.
        self._ahead = 0 if self.photographs else variants // 2 or _FAR
        folders = group_by_root(labelled if photographs is None else photographs)
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
        return self._first + row, self._variant(turn + self._ahead) * len(self.sizes) + kind
