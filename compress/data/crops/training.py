"""Training crops of labelled images; each depends on (seed, index, variant) alone, and can be named and repeated."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from featherpress.compress.data.cache import DEFAULT_CACHE_BYTES, Cache
from featherpress.compress.data.crops.base import Crops
from featherpress.compress.data.crops.decoded import DiskCache, read_downscaled
from featherpress.compress.data.crops.sampling import CROP_STREAM, Sampler, draw_from
from featherpress.compress.data.crops.windows import cut_crop
from featherpress.compress.data.samples import Batch, Key, Sample, SampleDataset, collate, separate
from featherpress.compress.data.subsets import join
from featherpress.compress.recipes.data import CropsRecipe
from featherpress.errors import DataError


class TrainingCrops(Crops[Batch]):
    """Random square crops of a labelled data set, of `size` pixels, or of several sizes, each batch of one.

    `variants`, `shares` and `extra` are as the `Sampler` has them; without `photographs` the extra crops are further
    ones of the data set. Up to `cache_bytes` of memory hold the crops that come again, which are those of a number of
    variants, and in what they leave the decoded images. A broken image is replaced by the next good one.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        *,
        size: int | Sequence[int],
        seed: int,
        variants: int = 0,
        shares: Sequence[float] = (),
        photographs: SampleDataset | None = None,
        extra: int = 0,
        ranges: CropsRecipe | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        sizes = (size,) if isinstance(size, int) else tuple(size)
        sampler = Sampler(len(dataset), sizes=sizes, seed=seed, variants=variants)
        if shares:
            sampler.balance_by(shares, dataset)
        if extra:
            sampler.add(extra, dataset if photographs is None else photographs, more=photographs is None)
        if photographs is not None:
            dataset = join(dataset, photographs)
        super().__init__(dataset, sampler)
        self.images, self.ranges = dataset, ranges or CropsRecipe()
        self.side = self.ranges.needed_side(max(sizes))
        again = len(dataset) * variants * sum(3 * side**2 for side in sizes)
        self.cache: Cache[Sample] = Cache(cache_bytes, reserved=again)
        self._images_fit = True
        self._disk: DiskCache | None = None

    def cache_images(self, kind: Literal["ram", "disk", "none"], folder: Path) -> None:
        """Choose where decoded images are kept: in memory while they fit, in a folder, or nowhere."""
        self._images_fit = kind == "ram"
        self._disk = DiskCache(self.images, folder, side=self.side) if kind == "disk" else None

    def crop(self, index: int, variant: int) -> Sample:
        """Cut one crop, a pure function of (seed, index, variant), or return it as it was cut before.

        Shapes: the image is (3, size, size), of the size that the variant names.
        Errors: DataError where the image is broken.
        """
        crop = self.cache.get((index, variant))
        if crop is None:
            sizes, random = self.sampler.sizes, draw_from(self.sampler.seed, CROP_STREAM, index, variant)
            crop = cut_crop(random, self._read(index), self.ranges, size=sizes[variant % len(sizes)])
            if self.sampler.variants:
                self.cache.keep((index, variant), crop, reserved=True)
        return crop

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Cut the crops of some keys; where an image is broken, the batch's keys name the one that replaced it.

        Errors: DataError where no image at all can be read.
        """
        crops = [self._nearest_good(index, variant) for index, variant in keys]
        return collate([sample for sample, _ in crops], [key for _, key in crops])

    def keeps(self, keys: Sequence[Key]) -> bool:
        """Return whether all crops of a batch are in memory."""
        return all(key in self.cache for key in keys)

    def receive(self, batch: Batch, keys: Sequence[Key]) -> None:
        """Keep the crops that a worker cut, if they come again and fit, and note the broken images it replaced."""
        cut = batch.keys.tolist()
        if self.sampler.variants:
            for (index, variant), sample in zip(cut, separate(batch), strict=True):
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

    def _read(self, index: int) -> Sample:
        sample = self.cache.get(index)
        if sample is None:
            sample = self._decode(index)
            self._keep_image(index, sample)
        return sample

    def _keep_image(self, index: int, sample: Sample) -> None:
        """Keep a decoded image while all that came fitted into what the crops leave."""
        self._images_fit = self._images_fit and self.cache.keep(index, sample)

    def _decode(self, index: int) -> Sample:
        return self._disk.read(index) if self._disk else read_downscaled(self.images, index, self.side)

    def _try(self, index: int) -> Sample | DataError:
        try:
            return self._decode(index)
        except DataError as error:
            return error

    def _nearest_good(self, index: int, variant: int) -> tuple[Sample, Key]:
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if candidate in self.broken:
                continue
            try:
                return self.crop(candidate, variant), (candidate, variant)
            except DataError as error:
                self.skip(candidate, error)
        raise DataError(f"expected at least one image that can be read, but all {len(self)} are broken")
