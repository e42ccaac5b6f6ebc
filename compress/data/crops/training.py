"""Training crops: square windows cut from labelled images, moved, scaled, mirrored and recoloured by chance.

Everything drawn depends on (seed, index, variant) alone, so that a crop can be named, repeated and cached.
"""

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision.transforms.v2 import functional as F

from featherpress.compress.data.balance import Rota, group_by_event, group_by_root, split_evenly
from featherpress.compress.data.crops.decoded import DiskCache, read_downscaled
from featherpress.compress.data.crops.photometric import Distortion, distort
from featherpress.compress.data.samples import Batch, FaceDataset, Faces, Key, Sample, collate
from featherpress.compress.data.sizes import batch_lengths, batches_per_epoch
from featherpress.errors import DataError, UsageError

logger = logging.getLogger("featherpress")

PADDING_RGB = (123, 117, 104)
"""The mean that models subtract: before colours are distorted, padding is zero to them."""

CROP_STREAM, ORDER_STREAM, BALANCE_STREAM, SIZE_STREAM = 0, 1, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRanges:
    """What may be drawn for a window.

    A window's side is `zoom_in` times the image's short side or, with probability `zoom_out_probability`, `zoom_out`
    times its long side or, with probability `native_probability`, `native` times the crop's, so that at 1 the image's
    pixels are the crop's; `aspect` is the largest ratio of its sides. With probability `free` it need not hold a
    face. Faces whose short side ends below `smallest` pixels become ignored.
    """

    zoom_in: tuple[float, float] = (0.3, 1.0)
    zoom_out: tuple[float, float] = (1.0, 1.5)
    zoom_out_probability: float = 0.25
    native: tuple[float, float] = (0.8, 1.25)
    native_probability: float = 0.0
    aspect: float = 1.2
    free: float = 0.1
    flip_probability: float = 0.5
    smallest: float = 4.0
    least_visible: float = 0.25


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels; it may reach beyond the image."""

    left: int
    top: int
    width: int
    height: int


class TrainingCrops:
    """Random square crops of a labelled data set, of `size` pixels, or of several sizes, each batch of one.

    `variants` is how many different crops of an image an epoch cycles through, 0 for ever new ones; each of them comes
    in each size, of which a key's variant says the number: variant * sizes + size. Where `shares` has a number for
    every root that the data set is made of, an epoch is made up by them instead of holding every image once, and in a
    root all events come equally often. Decoded images
    stay in memory up to `cache_bytes` unless `cache` is None (for data that is cheaper to make than to keep).
    Images that cannot be read are collected in `broken`, warned about once, and replaced by the next ones.
    """

    def __init__(
        self,
        dataset: FaceDataset,
        *,
        size: int | Sequence[int],
        seed: int,
        variants: int = 0,
        shares: Sequence[float] = (),
        ranges: CropRanges | None = None,
        distortion: Distortion | None = None,
        cache: Literal["ram"] | None = "ram",
        cache_bytes: int = 2 << 30,
    ) -> None:
        self.sizes = (size,) if isinstance(size, int) else tuple(size)
        if min(self.sizes, default=0) < 1 or seed < 0 or variants < 0:
            raise UsageError(f"expected size >= 1, seed >= 0 and variants >= 0, got {size}, {seed} and {variants}")
        if not len(dataset):
            raise DataError("expected at least one image to cut crops from, got an empty data set")
        self.dataset, self.seed, self.variants = dataset, seed, variants
        self.labelled, self.extra = len(dataset), 0  # images an epoch goes through; crops on top of each batch
        self.ranges = ranges or CropRanges()
        self.distortion = distortion or Distortion()
        self.cache_bytes = cache_bytes if cache == "ram" else 0
        self.broken: set[int] = set()
        # Whatever is cut, a window is no smaller than this part of an image's short side; 0: of images as they are.
        self.enough = math.ceil(max(self.sizes) / min(self.ranges.zoom_in[0], self.ranges.zoom_out[0]))
        if self.ranges.native_probability:
            self.enough = 0
        self._shares = shares
        self._disk: DiskCache | None = None
        self._cached: dict[int, Sample] = {}
        self._cached_bytes, self._full = 0, self.cache_bytes == 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getstate__(self) -> dict[str, object]:
        # A process that is not forked reads its images itself, rather than receive gigabytes through a pipe.
        return self.__dict__ | {"_cached": {}, "_cached_bytes": 0, "_full": self.cache_bytes == 0}

    def cache_images(self, kind: Literal["ram", "disk", "none"], folder: Path) -> None:
        """Say where decoded images are kept: in memory while they fit, in a folder, or nowhere."""
        self._disk = DiskCache(self.dataset, folder, side=self.enough) if kind == "disk" else None
        if kind != "ram":
            self._cached, self._cached_bytes, self._full, self.cache_bytes = {}, 0, True, 0

    def epoch_keys(self, epoch: int) -> list[Key]:
        """List the keys of an epoch in its shuffled order: every image once, in the epoch's variant, or by the shares.

        Variants are numbered as of one size.
        """
        order = self._random(ORDER_STREAM, epoch).permutation(self.labelled).tolist()
        if not self._shares:
            return [(index, self._variant(epoch)) for index in order]
        parts = zip(self._rotas, split_evenly(self.labelled, self._shares), strict=True)
        picked = [rota.pick(place) for rota, count in parts for place in range(epoch * count, (epoch + 1) * count)]
        return [(picked[place][0], self._variant(picked[place][1])) for place in order]

    @cached_property
    def _rotas(self) -> list[Rota]:
        """Make a rota of each root's events."""
        rotas = []
        for number, root in enumerate(self._roots()):
            random = partial(self._random, BALANCE_STREAM, number)
            rotas.append(Rota(group_by_event(self.dataset, root), random))
        return rotas

    def _roots(self) -> list[list[int]]:
        return group_by_root(self.dataset)

    def batch_lengths(self, crops: int) -> list[int]:
        """Say how many crops a batch of each size holds, those on top included."""
        pairs = zip(batch_lengths(crops, self.sizes), batch_lengths(self.extra, self.sizes), strict=True)
        return [own + extra for own, extra in pairs]

    def epoch_batches(self, epoch: int, crops: int) -> list[list[Key]]:
        """List the keys of an epoch's batches, `crops` in each of the first size, of others as `batch_lengths` says.

        Sizes come equally often, in an order of their own; what does not fill a last batch is left out.
        """
        order, lengths, kinds = iter(self.epoch_keys(epoch)), batch_lengths(crops, self.sizes), len(self.sizes)
        count = batches_per_epoch(self.labelled, crops, self.sizes)
        turns = self._random(SIZE_STREAM, epoch).permutation(count) % kinds
        return [
            [(index, variant * kinds + kind) for index, variant in islice(order, lengths[kind])]
            for kind in turns.tolist()
        ]

    def crop(self, index: int, variant: int) -> Sample:
        """Cut one crop, a pure function of (seed, index, variant).

        Shapes: the image is (3, size, size), of the size that the variant names.
        Errors: DataError where the image is broken.
        """
        size = self.sizes[variant % len(self.sizes)]
        random = self._random(CROP_STREAM, index, variant)
        sample = self._read(index)
        height, width = sample.image.shape[1:]
        window = draw_window(random, sample.faces, width, height, self.ranges, size=size)
        mirrored = random.random() < self.ranges.flip_probability
        colours = self.distortion.draw(random)
        cut = Sample(
            image=distort(cut_window(sample.image, window, size), *colours),
            faces=self._cut_faces(sample.faces, window, size),
            name=sample.name,
        )
        return cut.flipped() if mirrored else cut

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Cut the crops of some keys; a broken image is replaced by the next good one, and the batch's keys say so.

        Errors: DataError where no image at all can be read.
        """
        crops = [self._nearest_good(index, variant) for index, variant in keys]
        return collate([sample for sample, _ in crops], [key for _, key in crops])

    def preload(self, threads: int = 1) -> None:
        """Read images until all are in memory or the cache is full, so that forked workers share them."""
        missing = [
            index for index in range(len(self.dataset)) if index not in self._cached and index not in self.broken
        ]
        step = 8 * max(threads, 1)
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            for start in range(0, len(missing), step):
                if self._full:
                    return
                part = missing[start : start + step]
                for index, found in zip(part, pool.map(self._try, part), strict=True):
                    if isinstance(found, DataError):
                        self.skip(index, found)
                    else:
                        self._keep(index, found)

    def skip(self, index: int, error: DataError) -> None:
        """Note a broken image, and warn the first time."""
        if index not in self.broken:
            self.broken.add(index)
            if get_worker_info() is None:  # a worker's process tells the one that started it
                logger.warning("skipped image %s: %s", self.dataset.name(index), error)

    def _variant(self, turn: int) -> int:
        return turn % self.variants if self.variants else turn

    def _random(self, stream: int, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, *numbers])

    def _read(self, index: int) -> Sample:
        sample = self._cached.get(index)
        if sample is None:
            sample = self._decode(index)
            self._keep(index, sample)
        return sample

    def _decode(self, index: int) -> Sample:
        return self._disk.read(index) if self._disk else read_downscaled(self.dataset, index, self.enough)

    def _try(self, index: int) -> Sample | DataError:
        try:
            return self._decode(index)
        except DataError as error:
            return error

    def _keep(self, index: int, sample: Sample) -> None:
        """Cache an image that fits; the first that does not fit ends preloading."""
        size = sample.image.numel()
        if self._cached_bytes + size <= self.cache_bytes:
            self._cached[index] = sample
            self._cached_bytes += size
        else:
            self._full = True

    def _nearest_good(self, index: int, variant: int) -> tuple[Sample, Key]:
        for step in range(len(self.dataset)):
            candidate = (index + step) % len(self.dataset)
            if candidate in self.broken:
                continue
            try:
                return self.crop(candidate, variant), (candidate, variant)
            except DataError as error:
                self.skip(candidate, error)
        raise DataError(f"expected at least one image that can be read, but all {len(self.dataset)} are broken")

    def _cut_faces(self, faces: Faces, window: Window, size: int) -> Faces:
        cut = faces.cropped(
            window.left, window.top, window.width, window.height, least_visible=self.ranges.least_visible
        )
        cut = cut.scaled(size / window.width, size / window.height)
        return cut.ignoring(cut.sizes.amin(dim=1) < self.ranges.smallest)


def draw_window(
    random: np.random.Generator, faces: Faces, width: int, height: int, ranges: CropRanges, *, size: int
) -> Window:
    """Draw a window for a crop of `size` pixels that holds the centre of one of the faces, if there are any that count.

    It is no smaller than that face.
    """
    chance = random.random()
    if chance < ranges.zoom_out_probability:
        side = max(width, height) * random.uniform(*ranges.zoom_out)
    elif chance < ranges.zoom_out_probability + ranges.native_probability:
        side = size * random.uniform(*ranges.native)
    else:
        side = min(width, height) * random.uniform(*ranges.zoom_in)
    aimed, choice = random.random() >= ranges.free, random.random()
    candidates = (~faces.ignored).nonzero().flatten()
    target: tuple[float, float] | tuple[None, None] = (None, None)
    if aimed and len(candidates):
        face = int(candidates[int(choice * len(candidates))])
        side = max(side, float(faces.sizes[face].max()))  # or a part of a face would be taught as a face
        target = tuple(faces.centres[face].tolist())
    stretch = math.exp(random.uniform(-0.5, 0.5) * math.log(ranges.aspect))
    wide, high = max(round(side * stretch), 1), max(round(side / stretch), 1)
    return Window(_place(random, wide, width, target[0]), _place(random, high, height, target[1]), wide, high)


def cut_window(image: Tensor, window: Window, size: int) -> Tensor:
    """Resize a window to size x size; what lies beyond the image is filled with the mean colour."""
    height, width = image.shape[1:]
    left, top = max(window.left, 0), max(window.top, 0)
    right, bottom = min(window.left + window.width, width), min(window.top + window.height, height)
    part = image[:, top:bottom, left:right]
    if part.shape[1:] != (window.height, window.width):
        canvas = torch.tensor(PADDING_RGB, dtype=torch.uint8)[:, None, None].repeat(1, window.height, window.width)
        canvas[:, top - window.top : bottom - window.top, left - window.left : right - window.left] = part
        part = canvas
    resized: Tensor = F.resize_image(part, [size, size], antialias=True)
    return resized.contiguous()


def _place(random: np.random.Generator, window: int, extent: int, centre: float | None) -> int:
    """Draw where a window starts along one axis: inside the image (or around it), and holding the centre."""
    low, high = min(0, extent - window), max(0, extent - window)
    if centre is not None:
        inside = min(max(centre, 0.0), extent)
        high = min(high, math.floor(inside))
        low = min(max(low, math.floor(inside - window) + 1), high)
    return int(random.integers(low, high + 1))
