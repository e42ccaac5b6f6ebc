"""Training crops of any task's examples, made by named transforms."""

from collections.abc import Sequence
from typing import TypeVar

from featherpress.compress.data.cache import DEFAULT_CACHE_BYTES
from featherpress.compress.data.crops.cached import CachedCrops
from featherpress.compress.data.crops.sampling import CROP_STREAM, Sampler, draw_from
from featherpress.compress.data.examples import Example, ExampleBatch, ExampleDataset
from featherpress.compress.data.samples import Key
from featherpress.compress.data.subsets import join
from featherpress.compress.data.transforms import Transforms

ExampleBatchT = TypeVar("ExampleBatchT", bound=ExampleBatch)


class TransformedCrops(CachedCrops[Example, ExampleBatchT]):
    """Examples of a data set, transformed, in batches of the class `batch_type`.

    `variants` and `extra` are as the `Sampler` has them; `unlabelled` examples, with targets as the task wants them,
    come on top of every batch, or without them `extra` further crops of the data set.
    """

    def __init__(
        self,
        dataset: ExampleDataset,
        transforms: Transforms,
        batch_type: type[ExampleBatchT],
        *,
        seed: int,
        variants: int = 0,
        unlabelled: ExampleDataset | None = None,
        extra: int = 0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        height, width = transforms.size
        sampler = Sampler(len(dataset), sizes=(max(height, width),), seed=seed, variants=variants)
        if extra:
            sampler.add(extra, dataset if unlabelled is None else unlabelled, more=unlabelled is None)
        super().__init__(
            dataset if unlabelled is None else join(dataset, unlabelled),
            sampler,
            side=transforms.needed_side(),
            bytes_per_crop=transforms.bytes_per_crop,
            cache_bytes=cache_bytes,
        )
        self.transforms, self.batch_type = transforms, batch_type

    build = staticmethod(Example.of)

    def cut(self, sample: Example, index: int, variant: int) -> Example:
        """Transform one example, seeded by (seed, index, variant) alone."""
        random = draw_from(self.sampler.seed, CROP_STREAM, index, variant)
        return self.transforms(sample, seed=int(random.integers(2**63)))

    def collate(self, samples: Sequence[Example], keys: Sequence[Key]) -> ExampleBatchT:
        """Stack or pad examples, as their batch does."""
        return self.batch_type.collate(samples, keys)

    def separate(self, batch: ExampleBatchT) -> list[Example]:
        """Undo `collate`."""
        return batch.separate()
