"""Semantic segmentation: a class for every pixel, scored by mIoU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.data.crops.transformed import TransformedCrops
from featherpress.compress.data.examples import ExampleBatch, ExampleDataset
from featherpress.compress.data.sources.labelled import require_sound
from featherpress.compress.data.sources.masks import IGNORED, MaskFolder
from featherpress.compress.data.subsets import join, open_part, origin, select, spread
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation.metrics.overlap import MaskOverlaps
from featherpress.compress.evaluation.saved_scores import miou_scores
from featherpress.compress.recipes import Recipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.kinds import register_task
from featherpress.compress.recipes.required_files import Need
from featherpress.compress.tasks.base import Measured, Split, Task, TaskLoss
from featherpress.compress.tasks.segmentation.inference import measure_masks, name_logits, resize_logits
from featherpress.compress.tasks.segmentation.labelling import label_images
from featherpress.compress.tasks.segmentation.options import MasksData
from featherpress.compress.tasks.segmentation.pictures import write_pictures
from featherpress.errors import UsageError
from featherpress.models.inputs import ModelInput
from featherpress.records.evaluation import Metric

_NO_LABEL = -100
"""The label of a pixel that does not count, as torch's cross-entropy has it."""
_LEAST = 1.0
"""A teacher that says one class everywhere gets the share of that class, 1 at most, and 0 for all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskBatch(ExampleBatch):
    """Images with a mask each; shapes: masks uint8 (N, S, S), 255 where a pixel does not count."""

    masks: Tensor


@register_task("masks")
class SegmentationTask(Task):
    """Models that give a class for every pixel: cross-entropy over the labelled pixels, scored by mIoU.

    A model gives logits (N, C, H, W), or torchvision's dictionary with `out` and, in training, `aux`; logits of another
    size than the images are interpolated.
    """

    Data = MasksData
    terms = ("class", "auxiliary")
    metric = Metric(key="miou", name="mIoU")
    outputs = ("logits", "auxiliary")
    context = ("labels", "mask")
    data: MasksData
    load = staticmethod(MaskOverlaps.load)
    scores = staticmethod(miou_scores)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.min_teacher_score = _LEAST / len(self.data.names)

    @classmethod
    def needs(cls, data: MasksData) -> Iterator[Need]:
        """List the folders of images; what lies in them is looked at when they are opened."""
        for key, text in dict.fromkeys((key, text) for key, text, _ in data.places):
            yield Need(key=key, text=text, path=expand_path(text), is_folder=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the classes in the order of their numbers."""
        return self.data.names

    def build(self, target: str, settings: Mapping[str, Any], *, normalize: Any = "", size: int = 0) -> nn.Module:
        """Build a model with fresh weights.

        Errors: `UsageError` for one that does not give a logit per class and place.
        """
        self.check_logit_losses(target, sigmoids=False)
        model = super().build(target, settings, normalize=normalize, size=size)
        with evaluating(model):
            logits = name_logits(model(self.example())).get("logits")
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else "no logits"
        if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != len(self.classes):
            raise UsageError(
                f"{target} gives {shape} for one image, expected logits (1, {len(self.classes)}, H, W), or a "
                "dictionary that has them as `out`; its factory's arguments go into `settings`"
            )
        return model

    def open(self, split: Split) -> Any:
        """Open a split; held-out images are spread evenly over the training images."""
        return open_part(split, self.data.holdout, self._open)

    def check(self, dataset: Any) -> None:
        """Look at the head of every image, and at every mask."""
        require_sound(dataset)
        for folder in {id(base): base for base, _ in (origin(dataset, row) for row in range(len(dataset)))}.values():
            folder.check_classes()

    def _open(self, split: str) -> Any:
        train = split == "train"
        limit = self.data.train_images if train else self.data.validation_images
        folders = [
            MaskFolder(
                expand_path(root),
                split,
                layout=self.data.layout,
                classes=len(self.classes),
                ignore=self.data.ignore,
            )
            for root in self._roots(split)
        ]
        found: Any = folders[0] if len(folders) == 1 else join(*folders)
        return select(found, spread(len(found), limit)) if limit else found

    def _roots(self, split: str) -> list[str]:
        """Return the roots of a split, as the recipe has them."""
        return [self.data.validation_root or self.data.roots[0]] if split == "val" else [*self.data.roots]

    def crops(self, dataset: ExampleDataset, seed: int) -> TransformedCrops[MaskBatch]:
        """Transform training images and their masks alike."""
        return self._crops(dataset, seed)

    def unlabelled_crops(
        self, dataset: ExampleDataset, seed: int, *, teacher: nn.Module | None, out: Path
    ) -> TransformedCrops[MaskBatch]:
        """Put images on top whose masks are the teacher's, or further crops of the labelled ones."""
        assert self.data.unlabelled is not None
        extra, images = self.data.unlabelled.per_batch, None
        if teacher is not None:
            takes = self.takes(teacher)
            images = label_images(teacher, self.data.unlabelled, takes=takes, out=out, zoom=self._zoom(takes))
        return self._crops(dataset, seed, unlabelled=images, extra=extra)

    def _zoom(self, takes: ModelInput) -> float:
        """Return how much larger than in training crops a model sees an image."""
        return takes.size / self.data.size if takes.size else 1.0

    def _crops(self, dataset: ExampleDataset, seed: int, **more: Any) -> TransformedCrops[MaskBatch]:
        return TransformedCrops(
            dataset,
            self.data.augmentation(),
            MaskBatch,
            seed=seed,
            variants=self.data.variants,
            cache_bytes=self.data.cache_bytes,
            **more,
        )

    def images(self, batch: MaskBatch, model: nn.Module) -> Tensor:
        """Return a batch's images as a model takes them, at its size."""
        return self.takes(model).prepare(batch.images)

    def name_outputs(self, raw: Any) -> Outputs:
        """Name logits, at the size of training images, and the auxiliary ones of a model that has them."""
        size = (self.data.size, self.data.size)
        return {name: resize_logits(logits, size) for name, logits in name_logits(raw).items()}

    def view(self, dataset: ExampleDataset, index: int, model: nn.Module) -> Tensor:
        """Read one image at its own size as a model takes it."""
        return self.takes(model).normalize(dataset[index].image[None])

    def assign_targets(self, batch: MaskBatch, model: nn.Module) -> Tensor:
        """Return labels int64 (N, S, S), -100 where a pixel does not count."""
        labels = batch.masks.long()
        return labels.masked_fill(labels == IGNORED, _NO_LABEL)

    def normalizers(self, targets: Tensor) -> Tensor:
        """Sum the weights of the labelled pixels, which is their number where all classes weigh the same."""
        counted, weights = targets != _NO_LABEL, self.weights_on(targets.device)
        return (counted.sum().float() if weights is None else weights[targets[counted]].sum())[None]

    def compute_loss(self, outputs: Outputs, batch: MaskBatch, targets: Tensor, normalizers: Tensor) -> TaskLoss:
        """Return the cross-entropy of every labelled pixel, and that of the auxiliary logits."""
        factors = {"logits": self.recipe.losses.classification, "auxiliary": self.recipe.losses.auxiliary}
        weights, terms = self.weights_on(targets.device), {}
        for name, logits in outputs.items():
            entropy = F.cross_entropy(logits.float(), targets, weights, ignore_index=_NO_LABEL, reduction="sum")
            terms["class" if name == "logits" else name] = factors[name] * entropy / normalizers[0]
        return TaskLoss(terms=terms, context={"labels": targets, "mask": targets != _NO_LABEL})

    def class_weights(self) -> Tensor | None:
        """Return the weight of each class in the cross-entropy, (C,); None where all weigh the same.

        Balanced, it is how many training pixels an average class has over how many it has itself.
        """
        given = self.data.class_weights
        if given != "balanced":
            return torch.tensor(given) if given else None
        training, counts = self.open("train"), torch.zeros(256)
        for base, row in (origin(training, index) for index in range(len(training))):
            counts += torch.bincount(base.mask(row).flatten(), minlength=256)
        counts = counts[: len(self.classes)]
        return counts.sum() / (len(self.classes) * counts.clamp(min=1))

    def measure(self, model: nn.Module, dataset: ExampleDataset, *, label: str, split: str, images: int) -> Measured:
        """Score a model by mIoU, one image after the other, each at its own size; broken images are skipped."""
        chosen, takes = min(images or len(dataset), len(dataset)), self.takes(model)
        found = measure_masks(
            model,
            dataset,
            range(chosen),
            takes=takes,
            classes=self.classes,
            long_side=self.data.long_side,
            zoom=self._zoom(takes),
            label=label,
        )
        data = {
            "roots": self._roots(split if self.data.holdout or split == "train" else "val"),
            "images": len(found.names),
            "skipped": chosen - len(found.names),
        }
        fields = {
            "further": {"pixel accuracy": found.pixel_accuracy},
            "by_class": found.list_classes(),
            "confusion": found.confusion.tolist(),
        }
        return Measured(predictions=found, score=found.miou, data=data, fields=fields)

    def show(self, folder: Path, dataset: ExampleDataset, predictions: Mapping[str, MaskOverlaps]) -> None:
        """Save a few images with their truth and every model's mask."""
        write_pictures(folder, dataset, predictions, classes=self.classes)
