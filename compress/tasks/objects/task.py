"""The detection of objects of any categories."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.data.crops.transformed import TransformedCrops
from featherpress.compress.data.examples import ExampleDataset
from featherpress.compress.data.transforms import Transforms, default_steps
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation.metrics.mean_precision import ObjectSet, summarize
from featherpress.compress.evaluation.saved_scores import map_scores
from featherpress.compress.recipes import Recipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.kinds import register_task
from featherpress.compress.recipes.required_files import Need
from featherpress.compress.recipes.terms import OutputTerm
from featherpress.compress.tasks.base import Measured, Split, Task, TaskLoss
from featherpress.compress.tasks.detection.options import CocoData
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.compress.tasks.objects.data import ObjectBatch, check_data, find_categories, open_data
from featherpress.compress.tasks.objects.detectors import (
    LOSS,
    SIGMOIDS,
    anchors_of,
    build_detector,
    is_torchvisions,
)
from featherpress.compress.tasks.objects.inference import Suppressed, measure_objects
from featherpress.compress.tasks.objects.labelling import label_images
from featherpress.compress.tasks.objects.pictures import write_pictures
from featherpress.errors import UsageError
from featherpress.models.inputs import ModelInput, remember_input
from featherpress.records.evaluation import Metric

_TERMS = ("class", "box", "centre", "proposal_class", "proposal_box")
_WEIGHTS = {"class": "classification", "box": "box"}


@register_task("coco")
class ObjectsTask(Task):
    """torchvision's detectors of any categories: their own losses, scored by COCO's mAP.

    A batch of images, RGB from 0 to 1, gives the heads' logits and boxes, which a teacher's can be compared with.
    """

    Data = CocoData
    terms = _TERMS
    metric = Metric(key="map", name="mAP")
    outputs = ("logits", "boxes", "objectness", "proposals", *(term + LOSS for term in _TERMS))
    data: CocoData
    min_teacher_score = 0.02
    load = staticmethod(ObjectSet.load)
    scores = staticmethod(map_scores)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if len(self.data.sizes) > 1 or self.data.category or self.data.root_shares:
            raise UsageError(
                "detectors of any categories take one `data.size`, and neither `category` (give `categories`), "
                "`shares` nor `balance`"
            )
        changed = self.data.unlabelled.changed if self.data.unlabelled else set()
        strange = sorted(changed & {"ignore_threshold", "long_side"})
        if strange:
            raise UsageError(
                f"`data.unlabelled.{strange[0]}` is for faces: torchvision's detectors look at one size, and what they "
                "score below `positive_threshold` is background"
            )
        self._classes = self.data.categories

    @classmethod
    def suited(cls, data: CocoData, model: str) -> type[Task]:
        """Return the task for a student: faces for our detectors, unless `categories` or `train` say otherwise."""
        return cls if data.categories or data.train or is_torchvisions(model) else DetectionTask

    @classmethod
    def needs(cls, data: CocoData) -> Iterator[Need]:
        """List the folders; what lies in them is looked at when they are opened."""
        for key, text in dict.fromkeys((key, text) for key, text, _ in data.places):
            yield Need(key=key, text=text, path=expand_path(text), is_folder=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the categories: the recipe's, or those of the training labels."""
        self._classes = self._classes or find_categories(self.data)
        return self._classes

    def build(self, target: str, settings: Mapping[str, Any], *, normalize: Any = "", size: int = 0) -> nn.Module:
        """Build a detector with fresh weights; it normalises images itself.

        Errors: `UsageError` for a model that is none of torchvision's detectors, and for another normalisation.
        """
        if normalize:
            raise UsageError("torchvision's detectors normalise images themselves: give `image_mean` in `settings`")
        side = size or self.data.sizes[0]
        model = build_detector(target, settings, classes=len(self.classes), side=side)
        self.check_logit_losses(target, sigmoids=isinstance(model, SIGMOIDS))
        remember_input(model, ModelInput(mean=(0, 0, 0), std=(1, 1, 1), size=side, classes=self.classes))
        return model

    def teacher_inputs(self, student: nn.Module, teacher: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return what turns a student's images into a teacher's.

        Errors: `UsageError` where heads are compared whose places have other anchors.
        """
        compared = [
            name
            for name, term in self.recipe.distillation.losses.items()
            if term.weight and isinstance(term, OutputTerm)
        ]
        ours, theirs = anchors_of(student), anchors_of(teacher)
        if compared and ours and theirs and ours != theirs:
            raise UsageError(
                f"`distillation.losses.{compared[0]}`: the student's places have the anchors {ours}, the teacher's "
                f"{theirs}: give both the same, or compare features alone"
            )
        return super().teacher_inputs(student, teacher)

    def open(self, split: Split) -> Any:
        """Open a split of labelled images."""
        return open_data(self.data, split, self.classes)

    def check(self, dataset: Any) -> None:
        """Look at the head of every image, and hold its boxes to it."""
        check_data(dataset)

    def crops(self, dataset: ExampleDataset, seed: int) -> TransformedCrops[ObjectBatch]:
        """Transform training images and their boxes alike."""
        return self._crops(dataset, seed)

    def unlabelled_crops(
        self, dataset: ExampleDataset, seed: int, *, teacher: nn.Module | None, out: Path
    ) -> TransformedCrops[ObjectBatch]:
        """Put images on top whose objects are those that the teacher finds, or further crops of the labelled ones."""
        asked = self.data.unlabelled
        assert asked is not None
        images = None if teacher is None else label_images(teacher, asked, self.classes, out=out)
        return self._crops(dataset, seed, unlabelled=images, extra=asked.per_batch)

    def _crops(self, dataset: ExampleDataset, seed: int, **more: Any) -> TransformedCrops[ObjectBatch]:
        side = self.data.sizes[0]
        return TransformedCrops(
            dataset,
            Transforms(self.data.train or default_steps("boxes", side, side), kind="boxes", height=side, width=side),
            ObjectBatch,
            seed=seed,
            variants=self.data.variants,
            cache_bytes=self.data.cache_bytes,
            **more,
        )

    def view(self, dataset: ExampleDataset, index: int, model: nn.Module) -> Tensor:
        """Read one image at the size at which a model looks at it, RGB from 0 to 1, (1, 3, S, S)."""
        side = self.takes(model).size
        return F.interpolate(dataset[index].image[None].float() / 255, (side, side), mode="bilinear", antialias=True)

    def forward(self, model: Any, images: Tensor, batch: ObjectBatch, targets: Any) -> Outputs:
        """Run a detector in training: the heads' outputs, and its own losses."""
        outputs: Outputs = model(images, targets)
        return outputs

    def name_outputs(self, raw: Any) -> Outputs:
        """Outputs have their names already."""
        outputs: Outputs = raw
        return outputs

    def assign_targets(self, batch: ObjectBatch, model: nn.Module) -> list[dict[str, Tensor]]:
        """Return each image's boxes and labels."""
        return batch.targets()

    def normalizers(self, targets: Any) -> Tensor:
        """Count images; torchvision's losses are means of their own."""
        return torch.ones(1, device=targets[0]["boxes"].device)

    def compute_loss(self, outputs: Outputs, batch: ObjectBatch, targets: Any, normalizers: Tensor) -> TaskLoss:
        """Return the detector's own losses; `[losses]` weighs them where a recipe says so."""
        said = self.recipe.losses.model_fields_set
        terms = {}
        for name in (name for name in _TERMS if name + LOSS in outputs):
            key = _WEIGHTS.get(name, "")
            terms[name] = (getattr(self.recipe.losses, key) if key in said else 1.0) * outputs[name + LOSS]
        return TaskLoss(terms=terms, context={})

    def measure(self, model: nn.Module, dataset: ExampleDataset, *, label: str, split: str, images: int) -> Measured:
        """Score a model by COCO's mAP, one image after the other at its own size; broken images are skipped."""
        chosen = min(images or len(dataset), len(dataset))
        found = measure_objects(model, dataset, range(chosen), categories=self.classes, label=label)
        scores = summarize(found)
        data = {
            "images": len(found.names),
            "skipped": chosen - len(found.names),
            "objects": int((~found.truth_ignored).sum()),
            "ignored": int(found.truth_ignored.sum()),
        }
        fields = {
            "further": {name: scores[name] for name in ("AP50", "AP75")},
            "by_class": scores["by_class"],
            "curve": scores["curve"],
        }
        return Measured(predictions=found, score=scores["mAP"], data=data, fields=fields)

    def runnable(self, exported: nn.Module, model: nn.Module) -> nn.Module:
        """Return an exported detector with the suppression of the one that it was made of."""
        return Suppressed(exported, model, side=self.takes(model).size)

    def show(self, folder: Path, dataset: ExampleDataset, predictions: Mapping[str, ObjectSet]) -> None:
        """Save a few images with their objects and what every model found."""
        write_pictures(folder, dataset, predictions)
