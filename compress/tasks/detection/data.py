"""A recipe's data, opened for the detection of faces."""

from typing import Literal

from featherpress.compress.data import (
    CocoFaces,
    LabelledFolder,
    SampleDataset,
    SyntheticFaces,
    TrainingCrops,
    WiderFaces,
)
from featherpress.compress.data.sources.labelled import require_objects
from featherpress.compress.data.subsets import hold_out, hold_out_events, join, open_part
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.tasks.detection.options import FaceData

_VALIDATION_SEED = 1_000_003


def open_data(data: FaceData, split: Literal["train", "val", "holdout"]) -> SampleDataset:
    """Open a split of a recipe's data; `holdout` is what is held out of `train`, or else `val`.

    Errors: `DataError` when there is nothing where the recipe says; `UsageError` when nothing is left to train on.
    """
    hold = hold_out_events if data.holdout_by == "event" else hold_out
    opened: SampleDataset = open_part(split, data.holdout, lambda part: _open_split(data, part), hold=hold)
    return opened


def _open_split(data: FaceData, split: Literal["train", "val"]) -> SampleDataset:
    """Open a split as it lies there; folders to train on must hold a face."""
    images = data.train_images if split == "train" else data.validation_images
    if data.kind == "synthetic":
        return draw_faces(data, images, split)
    folders: list[LabelledFolder] = []
    for root in map(expand_path, data.roots if split == "train" else [data.validation_root or data.roots[0]]):
        if data.kind == "widerface":
            folders.append(WiderFaces(root, split, limit=images or None))
        else:
            folders.append(CocoFaces(root, split, category=data.category, limit=images or None))
        if split == "train":
            require_objects(folders[-1])
    return folders[0] if len(folders) == 1 else join(*folders)


def draw_faces(data: FaceData, images: int, split: Literal["train", "val"] = "train") -> SyntheticFaces:
    """Draw so many pictures; those to validate on come from a seed of their own."""
    seed = data.seed if split == "train" else data.seed + _VALIDATION_SEED
    return SyntheticFaces(length=images, seed=seed, size=(data.image_size, data.image_size))


def training_crops(
    data: FaceData, dataset: SampleDataset, *, seed: int, photographs: SampleDataset | None = None, extra: int = 0
) -> TrainingCrops:
    """Cut a recipe's training crops; on top of each batch `extra` of photographs, or of the data set without any."""
    return TrainingCrops(
        dataset,
        photographs=photographs,
        extra=extra,
        size=data.sizes,
        seed=seed,
        variants=data.variants,
        shares=data.root_shares,
        ranges=data.crops,
        cache_bytes=data.cache_bytes,
    )
