"""Which crops come when: the keys of every epoch, a pure function of the seed."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np

from featherpress.compress.data.samples import ImageDataset, Key
from featherpress.compress.data.subsets import group_by_event, group_by_root, split_evenly
from featherpress.errors import DataError, UsageError

CROP_STREAM, _ORDER_STREAM, _PHOTO_STREAM, _BALANCE_STREAM, _SIZE_STREAM = range(5)
_FAR = 1 << 20

Group: TypeAlias = "Sequence[int | Group]"
"""Numbers of images, or groups of them."""


def draw_from(seed: int, stream: int, *numbers: int) -> np.random.Generator:
    """Return the generator of one decision, which depends on nothing that was drawn before."""
    return np.random.default_rng([seed, stream, *numbers])


class Rota:
    """An endless order of images: the members of a group take turns, and each gives the next of its own.

    `random` gives a generator for the numbers that name a group and a round of it. Every round goes through a group
    in a new order. What comes at a place does not depend on what was asked before.
    """

    def __init__(self, group: Group, random: Callable[..., np.random.Generator]) -> None:
        self.group, self.random = group, random
        self._orders: dict[tuple[int, ...], tuple[int, list[int]]] = {}

    def pick(self, place: int) -> tuple[int, int]:
        """Return the image at a place, and how often it has come before."""
        chosen = self.group
        path: tuple[int, ...] = ()
        while True:
            turn, slot = divmod(place, len(chosen))
            member = self._order(path, turn, len(chosen))[slot]
            inner = chosen[member]
            if isinstance(inner, int):
                return inner, turn
            chosen, path, place = inner, (*path, member), turn

    def _order(self, path: tuple[int, ...], turn: int, members: int) -> list[int]:
        kept = self._orders.get(path)
        if kept is None or kept[0] != turn:
            kept = self._orders[path] = (turn, self.random(turn, *path).permutation(members).tolist())
        return kept[1]


def batch_lengths(crops: int, sizes: Sequence[int]) -> list[int]:
    """Return how many crops a batch of each size holds: `crops` of the first, of others as many pixels, one at least.

    What a convolution costs goes with the pixels, so that a step of every size costs about the same.
    """
    return [max(round(crops * (sizes[0] / size) ** 2), 1) for size in sizes] if crops else [0] * len(sizes)


def batches_per_epoch(images: int, crops: int, sizes: Sequence[int]) -> int:
    """Count the batches of an epoch: as many of each size as its images fill."""
    return len(sizes) * (images // sum(batch_lengths(crops, sizes)))


class Sampler:
    """The order of `labelled` images, in `variants` crops of each of `sizes`; 0 variants are ever new ones.

    A key's variant is (variant * sizes + size). An epoch holds every image once or, with `balance_by`, is made up of
    the images of a data set's roots by those shares, where all events of a root come equally often. On top of every
    batch come `extra` of the images that follow the labelled ones, fewer where crops are larger: in an order of their
    own that runs on from epoch to epoch, those of several folders in turns, and with every pass in their next variant.
    So the labelled part is the same with and without them.
    """

    def __init__(self, labelled: int, *, sizes: Sequence[int], seed: int, variants: int = 0) -> None:
        if min(sizes, default=0) < 1 or seed < 0 or variants < 0:
            raise UsageError(f"expected size >= 1, seed >= 0 and variants >= 0, got {sizes}, {seed} and {variants}")
        if not labelled:
            raise DataError("expected at least one image to cut crops from, got an empty data set")
        self.labelled, self.sizes, self.seed, self.variants, self.extra = labelled, tuple(sizes), seed, variants, 0
        self._shares: Sequence[float] = ()
        self._rotas: list[Rota] = []

    def balance_by(self, shares: Sequence[float], dataset: ImageDataset) -> None:
        """Make epochs up of a data set's roots by these shares."""
        groups = enumerate(group_by_event(dataset, root) for root in group_by_root(dataset))
        self._rotas = [Rota(events, partial(draw_from, self.seed, _BALANCE_STREAM, root)) for root, events in groups]
        self._shares = shares

    def add(self, extra: int, images: ImageDataset, *, more: bool = False) -> None:
        """Put `extra` crops on top of every batch: of photographs or, with `more`, further ones of the labelled images.

        The latter are the control's, which sees as many as the student.
        """
        folders = group_by_root(images)
        self._rota = Rota(folders if len(folders) > 1 else folders[0], partial(draw_from, self.seed, _PHOTO_STREAM))
        self.extra, self._first = extra, 0 if more else self.labelled
        # More of the labelled images are not the crops that the epoch has of them anyway.
        self._ahead = (self.variants // 2 or _FAR) if more else 0

    def batch_lengths(self, crops: int) -> list[int]:
        """Return how many crops a batch of each size holds, those on top included."""
        pairs = zip(batch_lengths(crops, self.sizes), batch_lengths(self.extra, self.sizes), strict=True)
        return [own + extra for own, extra in pairs]

    def epoch_keys(self, epoch: int) -> list[Key]:
        """List the labelled keys of an epoch in its shuffled order, with variants as of one size."""
        order = draw_from(self.seed, _ORDER_STREAM, epoch).permutation(self.labelled).tolist()
        if not self._shares:
            return [(index, self._variant(epoch)) for index in order]
        parts = zip(self._rotas, split_evenly(self.labelled, self._shares), strict=True)
        picked = [rota.pick(place) for rota, count in parts for place in range(epoch * count, (epoch + 1) * count)]
        return [(picked[place][0], self._variant(picked[place][1])) for place in order]

    def epoch_batches(self, epoch: int, crops: int) -> list[list[Key]]:
        """List the keys of an epoch's batches, `crops` in each of the first size, of others as `batch_lengths` says.

        Sizes come equally often, in an order of their own; what does not fill a last batch is left out.
        """
        order, lengths, kinds = iter(self.epoch_keys(epoch)), batch_lengths(crops, self.sizes), len(self.sizes)
        extras, count = batch_lengths(self.extra, self.sizes), batches_per_epoch(self.labelled, crops, self.sizes)
        place, batches = epoch * (count // kinds) * sum(extras), []
        for kind in (draw_from(self.seed, _SIZE_STREAM, epoch).permutation(count) % kinds).tolist():
            keys = [(index, variant * kinds + kind) for index, variant in islice(order, lengths[kind])]
            keys += [self._extra(each, kind) for each in range(place, place + extras[kind])]
            place += extras[kind]
            batches.append(keys)
        return batches

    def _extra(self, place: int, kind: int) -> Key:
        row, turn = self._rota.pick(place)
        return self._first + row, self._variant(turn + self._ahead) * len(self.sizes) + kind

    def _variant(self, turn: int) -> int:
        return turn % self.variants if self.variants else turn
