"""Image classification; it shows that the trainer is not about faces."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.data.crops.transformed import TransformedCrops
from featherpress.compress.data.examples import LabelledBatch
from featherpress.compress.data.synthetic.shapes import Shapes
from featherpress.compress.data.transforms import Transforms
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.evaluation.saved_scores import accuracy_scores
from featherpress.compress.recipes import Recipe
from featherpress.compress.recipes.kinds import register_task
from featherpress.compress.runtime.progress import Progress
from featherpress.compress.tasks.base import Split, Task, TaskLoss
from featherpress.compress.tasks.classification.options import ShapesData
from featherpress.errors import UsageError
from featherpress.records.evaluation import Metric

# A teacher must beat chance by this factor.
_BETTER_THAN_CHANCE = 1.5
_VALIDATION_SEED = 1_000_003
_BATCH = 64
_AUGMENTATION = (
    "RandomHorizontalFlip",
    {"RandomAffine": {"degrees": 0, "translate": [0.08, 0.08]}},
    {"ColorJitter": [0.7, 1]},
)
_CENTRED = ((0.5,) * 3, (0.5,) * 3)


@register_task("shapes")
class ClassificationTask(Task):
    """Classifiers of drawn shapes: cross-entropy, scored by accuracy. Any module from images to logits works.

    Shapes: images (N, 3, S, S), RGB 0..1 with mean and deviation of 0.5 taken out -> logits (N, C).
    """

    Data = ShapesData
    metric = Metric(key="accuracy", name="accuracy")
    context = ("labels",)
    data: ShapesData
    load = staticmethod(ClassPredictions.load)
    scores = staticmethod(accuracy_scores)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.min_teacher_score = min(_BETTER_THAN_CHANCE / self.data.classes, 0.9)

    def build(self, target: str, settings: Mapping[str, Any], *, normalize: Any = "", size: int = 0) -> nn.Module:
        """Build a classifier with fresh weights.

        Errors: `UsageError` for a model that does not return one logit per class.
        """
        model = super().build(target, settings, normalize=normalize, size=size)
        was_training = model.training
        with torch.no_grad():
            outputs = model.eval()(self.example())
        model.train(was_training)
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if shape != (1, self.data.classes):
            raise UsageError(
                f"{target} gives {shape} for one image, expected logits (1, {self.data.classes}), one for each of "
                "`data.classes`; its factory's arguments go into `settings`"
            )
        return model

    def normalization(self, model: nn.Module) -> tuple[Any, Any]:
        """Centre colours: drawn ones are no photographs."""
        return _CENTRED

    def open(self, split: Split) -> Shapes:
        """Draw a split; validation and held-out images come from a seed of their own."""
        train = split == "train"
        length = self.data.train_images if train else self.data.validation_images
        seed = self.data.seed + (0 if train else _VALIDATION_SEED)
        return Shapes(length=length, seed=seed, size=self.data.sizes[0], classes=self.data.classes)

    def crops(self, dataset: Shapes, seed: int) -> TransformedCrops[LabelledBatch]:
        """Mirror, shift and dim training images."""
        side = self.data.sizes[0]
        return TransformedCrops(
            dataset,
            Transforms(_AUGMENTATION, kind="label", height=side, width=side, source=(side, side)),
            LabelledBatch,
            seed=seed,
            variants=self.data.variants,
            cache_bytes=self.data.cache_bytes,
        )

    def view(self, dataset: Shapes, index: int, model: nn.Module) -> Tensor:
        """Draw one image as a model takes it."""
        return self.takes(model).normalize(dataset.image(index)[None])

    def assign_targets(self, batch: LabelledBatch, model: nn.Module) -> Tensor:
        """Return the labels."""
        return batch.labels

    def compute_loss(self, outputs: Outputs, batch: LabelledBatch, targets: Tensor, normalizers: Tensor) -> TaskLoss:
        """Return the cross-entropy with the labels."""
        entropy = F.cross_entropy(outputs["logits"].float(), targets, reduction="sum") / normalizers[0]
        return TaskLoss(terms={"class": self.recipe.losses.classification * entropy}, context={"labels": targets})

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        dataset: Shapes,
        *,
        label: str,
        split: str = "val",
        about: Mapping[str, Any] | None = None,
        images: int = 0,
    ) -> EvaluationResult:
        """Score a model by accuracy, in eval mode; its own mode is restored."""
        began, was_training = time.monotonic(), model.training
        device = next(model.parameters()).device
        count = min(images or len(dataset), len(dataset))
        said = []
        model.eval()
        with Progress(label, total=count) as progress:
            for start in range(0, count, _BATCH):
                drawn = torch.stack([*map(dataset.image, range(start, min(start + _BATCH, count)))]).to(device)
                said.append(model(self.takes(model).normalize(drawn)).argmax(dim=1).cpu().numpy())
                for _ in range(len(drawn)):
                    progress.advance()
        model.train(was_training)
        predictions = ClassPredictions(
            names=tuple(map(dataset.name, range(count))),
            labels=np.array([*map(dataset.label, range(count))]),
            predicted=np.concatenate(said),
        )
        record = {
            "schema": "featherpress.classification/1",
            **(about or {}),
            "data": {"name": self.data.kind, "split": split, "images": count, "classes": self.data.classes},
            "accuracy": predictions.accuracy,
            "seconds": round(time.monotonic() - began, 3),
        }
        return EvaluationResult(predictions=predictions, score=predictions.accuracy, record=record)
