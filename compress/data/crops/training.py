"""Training crops of labelled images; each depends on (seed, index, variant) alone, and can be named and repeated."""

from collections.abc import Sequence

from featherpress.compress.data.cache import DEFAULT_CACHE_BYTES
from featherpress.compress.data.crops.cached import CachedCrops
from featherpress.compress.data.crops.sampling import CROP_STREAM, Sampler, draw_from
from featherpress.compress.data.crops.windows import cut_crop
from featherpress.compress.data.samples import Batch, Key, Sample, SampleDataset, collate, separate
from featherpress.compress.data.subsets import join
from featherpress.compress.recipes.data import CropsRecipe


class TrainingCrops(CachedCrops[Sample, Batch]):
    """Random square crops of a labelled data set, of `size` pixels, or of several sizes, each batch of one.

    `variants`, `shares` and `extra` are as the `Sampler` has them; without `photographs` the extra crops are further
    ones of the data set.
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
        self.ranges = ranges or CropsRecipe()
        super().__init__(
            dataset,
            sampler,
            side=self.ranges.needed_side(max(sizes)),
            bytes_per_crop=sum(3 * side**2 for side in sizes),
            cache_bytes=cache_bytes,
        )

    build = staticmethod(Sample.of)

    def cut(self, sample: Sample, index: int, variant: int) -> Sample:
        """Cut a window; shapes: the image is (3, size, size), of the size that the variant names."""
        sizes, random = self.sampler.sizes, draw_from(self.sampler.seed, CROP_STREAM, index, variant)
        return cut_crop(random, sample, self.ranges, size=sizes[variant % len(sizes)])

    def collate(self, samples: Sequence[Sample], keys: Sequence[Key]) -> Batch:
        """Stack crops of one size."""
        return collate(samples, keys)

    def separate(self, batch: Batch) -> list[Sample]:
        """Undo `collate`, without the names."""
        return separate(batch)
