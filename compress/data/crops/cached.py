"""Training crops that are cut once and kept, of images that are decoded once and kept, as far as memory goes."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from featherpress.compress.data.cache import Cache, Tensored
from featherpress.compress.data.crops.base import BatchT, Crops
from featherpress.compress.data.crops.decoded import DiskCache, read_downscaled
from featherpress.compress.data.crops.sampling import Sampler
from featherpress.compress.data.samples import Key, NamedImages
from featherpress.errors import DataError

SampleT = TypeVar("SampleT", bound=Tensored)


class CachedCrops(Crops[BatchT], Generic[SampleT, BatchT]):
    """Crops of a data set's samples; a subclass says how one is cut, and how several become a batch.

    Up to `cache_bytes` of memory hold the crops that come again, which are those of a number of variants, and in what
    they leave the decoded images. A broken image is replaced by the next good one. `side` is the short side to which
    images may be reduced when they are read, 0 for none; `bytes_per_crop` what a crop of each size takes together.
    """

    def __init__(
        self, dataset: NamedImages, sampler: Sampler, *, side: int, bytes_per_crop: int, cache_bytes: int
    ) -> None:
        super().__init__(dataset, sampler)
        self.images: Any = dataset
        self.side = side
        again = len(dataset) * sampler.variants * bytes_per_crop
        self.cache: Cache[SampleT] = Cache(cache_bytes, reserved=again)
        self._images_fit = True
        self._disk: DiskCache[SampleT] | None = None

    @property
    @abstractmethod
    def build(self) -> Callable[[Mapping[str, Tensor], str], SampleT]:
        """Make a sample of its tensors and its name."""

    @abstractmethod
    def cut(self, sample: SampleT, index: int, variant: int) -> SampleT:
        """Cut a crop from its decoded image, a pure function of (seed, index, variant)."""

    @abstractmethod
    def collate(self, samples: Sequence[SampleT], keys: Sequence[Key]) -> BatchT:
        """Stack crops of one size."""

    @abstractmethod
    def separate(self, batch: BatchT) -> list[SampleT]:
        """Undo `collate`, without the names."""

    def cache_images(self, kind: Literal["ram", "disk", "none"], folder: Path) -> None:
        """Choose where decoded images are kept: in memory while they fit, in a folder, or nowhere."""
        self._images_fit = kind == "ram"
        self._disk = DiskCache(self.images, folder, side=self.side, build=self.build) if kind == "disk" else None

    def crop(self, index: int, variant: int) -> SampleT:
        """Cut one crop, a pure function of (seed, index, variant), or return it as it was cut before.

        Errors: DataError where the image is broken.
        """
        crop = self.cache.get((index, variant))
        if crop is None:
            crop = self.cut(self._read(index), index, variant)
            if self.sampler.variants:
                self.cache.keep((index, variant), crop, reserved=True)
        return crop

    def batch(self, keys: Sequence[Key]) -> BatchT:
        """Cut the crops of some keys; where an image is broken, the batch's keys name the one that replaced it.

        Errors: DataError where no image at all can be read.
        """
        crops = [self._nearest_good(index, variant) for index, variant in keys]
        return self.collate([sample for sample, _ in crops], [key for _, key in crops])

    def keeps(self, keys: Sequence[Key]) -> bool:
        """Return whether all crops of a batch are in memory."""
        return all(key in self.cache for key in keys)

    def receive(self, batch: BatchT, keys: Sequence[Key]) -> None:
        """Keep the crops that a worker cut, if they come again and fit, and note the broken images it replaced."""
        cut = batch.keys.tolist()
        if self.sampler.variants:
            for (index, variant), sample in zip(cut, self.separate(batch), strict=True):
                self.cache.keep((index, variant), sample, reserved=True)
        for (wanted, _), (used, _) in zip(keys, cut, strict=True):
            for step in range((used - wanted) % len(self)):
                index = (wanted + step) % len(self)
                if index not in self.broken and isinstance(error := self._try(index), DataError):
                    self.skip(index, error)

    def preload(self, threads: int = 1) -> None:
        """Read images until all are in memory or no more fits, so that forked workers share them."""
        missing = [index for index in range(len(self)) if index not in self.cache and index not in self.broken]
        step = 8 * max(threads, 1)
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            for start in range(0, len(missing), step):
                if not self._images_fit:
                    return
                part = missing[start : start + step]
                for index, read in zip(part, pool.map(self._try, part), strict=True):
                    if isinstance(read, DataError):
                        self.skip(index, read)
                    else:
                        self._keep_image(index, read)

    def _read(self, index: int) -> SampleT:
        sample = self.cache.get(index)
        if sample is None:
            sample = self._decode(index)
            self._keep_image(index, sample)
        return sample

    def _keep_image(self, index: int, sample: SampleT) -> None:
        """Keep a decoded image while all that came fitted into what the crops leave."""
        self._images_fit = self._images_fit and self.cache.keep(index, sample)

    def _decode(self, index: int) -> SampleT:
        sample: SampleT = self._disk.read(index) if self._disk else read_downscaled(self.images, index, self.side)
        return sample

    def _try(self, index: int) -> SampleT | DataError:
        try:
            return self._decode(index)
        except DataError as error:
            return error

    def _nearest_good(self, index: int, variant: int) -> tuple[SampleT, Key]:
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if candidate in self.broken:
                continue
            try:
                return self.crop(candidate, variant), (candidate, variant)
            except DataError as error:
                self.skip(candidate, error)
        raise DataError(f"expected at least one image that can be read, but all {len(self)} are broken")
