"""Image classification, wherever images come from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.data.crops.transformed import TransformedCrops
from featherpress.compress.data.examples import ExampleDataset, LabelledBatch
from featherpress.compress.data.sources.class_folders import LabelledImages
from featherpress.compress.data.sources.unlabelled import labels_file
from featherpress.compress.data.subsets import join, spread
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.evaluation.saved_scores import accuracy_scores
from featherpress.compress.recipes import Recipe
from featherpress.compress.tasks.base import Measured, Task, TaskLoss
from featherpress.compress.tasks.classification.options import ClassificationData
from featherpress.compress.tasks.classification.pictures import write_wrong
from featherpress.compress.tasks.classification.pseudo_labels import label_images
from featherpress.compress.tasks.classification.scoring import ACCURACY, predict_classes, score_fields
from featherpress.errors import UsageError

logger = logging.getLogger("featherpress")

_BETTER_THAN_CHANCE = 1.5
"""A teacher must beat chance by this factor, or, of few classes, by a part of it."""


class ClassificationTask(Task):
    """Classifiers: cross-entropy, scored by accuracy. Any module from images to logits works.

    Shapes: images (N, 3, S, S), RGB 0..1, normalised as the model wants -> logits (N, C).
    """

    Data: ClassVar[type[ClassificationData]] = ClassificationData
    metric = ACCURACY
    context = ("labels",)
    data: ClassificationData
    load = staticmethod(ClassPredictions.load)
    scores = staticmethod(accuracy_scores)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.prepare = self.data.preparation()

    @property
    def min_teacher_score(self) -> float:  # type: ignore[override]
        """The accuracy below which a teacher cannot teach."""
        chance = 1 / len(self.classes)
        return min(_BETTER_THAN_CHANCE * chance, chance + _BETTER_THAN_CHANCE / 15)

    def build(self, target: str, settings: Mapping[str, Any], *, normalize: Any = "", size: int = 0) -> nn.Module:
        """Build a classifier with fresh weights.

        Errors: `UsageError` for a model that fails on an image, or does not return one logit per class.
        """
        self.check_logit_losses(target, sigmoids=False)
        model = super().build(target, settings, normalize=normalize, size=size)
        side = size or self.data.sizes[0]
        try:
            with evaluating(model):
                outputs = model(torch.zeros(1, 3, side, side))
        except Exception as error:  # a forward of anybody's
            why = str(error).partition("\n")[0] or type(error).__name__
            raise UsageError(f"{target} fails on an image of {side} x {side} pixels: {why}") from error
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if shape != (1, len(self.classes)):
            raise UsageError(
                f"{target} gives {shape} for one image, expected logits (1, {len(self.classes)}), one for each of "
                f"{len(self.classes)} classes; its factory's arguments go into `settings`, as {{ num_classes = "
                f"{len(self.classes)} }}"
            )
        return model

    def class_weights(self) -> Tensor | None:
        """Return the weight of each class in the cross-entropy, (C,); None where all weigh the same."""
        given = self.data.class_weights
        if not isinstance(given, tuple):
            return None
        if len(given) != len(self.classes):
            raise UsageError(f"`class_weights` has {len(given)} numbers for {len(self.classes)} classes")
        return torch.tensor(given)

    def batch(self, dataset: ExampleDataset, indices: Any) -> LabelledBatch:
        """Return some images as they are scored."""
        examples = [self.prepare(dataset[index], seed=0) for index in indices]
        return LabelledBatch.collate(examples, [(index, 0) for index in indices])

    def crops(self, dataset: ExampleDataset, seed: int) -> TransformedCrops[LabelledBatch]:
        """Return augmented training images."""
        return self._crops(dataset, seed)

    def unlabelled_crops(
        self, dataset: ExampleDataset, seed: int, *, teacher: nn.Module | None, out: Path
    ) -> TransformedCrops[LabelledBatch]:
        """Return augmented images with unlabelled ones on top, of which the teacher's class is kept in `labels.json`.

        Errors: `DataError` where there are no such images.
        """
        asked = self.data.unlabelled
        assert asked is not None
        if teacher is None:
            return self._crops(dataset, seed, extra=asked.per_batch)
        folders = []
        for number, photographs in enumerate(self.unlabelled_images(), start=1):
            record = labels_file(out, number)
            labels = label_images(
                teacher, photographs, self.classes, takes=self.takes(teacher), prepare=self.prepare, record=record
            )
            folders.append(LabelledImages(photographs, labels))
        return self._crops(dataset, seed, unlabelled=join(*folders), extra=asked.per_batch)

    def _crops(
        self, dataset: ExampleDataset, seed: int, unlabelled: ExampleDataset | None = None, extra: int = 0
    ) -> TransformedCrops[LabelledBatch]:
        return TransformedCrops(
            dataset,
            self.data.augmentation(),
            LabelledBatch,
            seed=seed,
            variants=self.data.variants,
            unlabelled=unlabelled,
            extra=extra,
            cache_bytes=self.data.cache_bytes,
        )

    def images(self, batch: LabelledBatch, model: nn.Module) -> Tensor:
        """Return a batch's images as a model takes them, at its size."""
        return self.takes(model).prepare(batch.images)

    def assign_targets(self, batch: LabelledBatch, model: nn.Module) -> Tensor:
        """Return the labels; -1 - class is a class that a teacher said."""
        return batch.labels

    def normalizers(self, targets: Tensor) -> Tensor:
        """Sum the weights of labelled images."""
        known = targets[targets >= 0]
        weights = self.weights_on(targets.device)
        total = known.new_tensor(len(known), dtype=torch.float32) if weights is None else weights[known].sum()
        return total[None]

    def compute_loss(self, outputs: Outputs, batch: LabelledBatch, targets: Tensor, normalizers: Tensor) -> TaskLoss:
        """Return the cross-entropy with the labels; where there are none, a teacher's class stands in the context."""
        weights, logits = self.weights_on(targets.device), outputs["logits"].float()
        entropy = F.cross_entropy(logits, targets.clamp(min=-1), weights, reduction="sum", ignore_index=-1)
        labels = torch.where(targets < 0, -1 - targets, targets)
        term = self.recipe.losses.classification * entropy / normalizers[0]
        return TaskLoss(terms={"class": term}, context={"labels": labels})

    def measure(self, model: nn.Module, dataset: ExampleDataset, *, label: str, split: str, images: int) -> Measured:
        """Score a model by accuracy; broken images are skipped and counted, and fewer `images` are spread evenly."""
        indices = spread(len(dataset), images or len(dataset))
        found, skipped = predict_classes(
            model, dataset, indices, prepare=self.prepare, takes=self.takes(model), label=label
        )
        if skipped:
            logger.warning("%s: %d broken images of %d were skipped", label, skipped, len(indices))
        sizes = {"images": len(found.names), "classes": len(self.classes)}
        data = {"skipped": skipped, **self.described(), **sizes}
        return Measured(predictions=found, score=found.accuracy, data=data, fields=score_fields(found, self.classes))

    def show(self, folder: Path, dataset: ExampleDataset, predictions: Mapping[str, ClassPredictions]) -> None:
        """Save the images of the surest wrong answers, with what every model says."""
        write_wrong(folder, dataset, predictions, classes=self.classes)

    def described(self) -> dict[str, Any]:
        """Return what else a record says of the data."""
        return {}
