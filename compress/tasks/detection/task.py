"""The detection of faces."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.compress.data import Batch, SampleDataset, TrainingCrops
from featherpress.compress.data.subsets import join, select
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation import DetectionSet
from featherpress.compress.evaluation.detector.inference import EvaluationResult, evaluate_model
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.compress.evaluation.saved_scores import detection_scores
from featherpress.compress.recipes import Recipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.kinds import register_task
from featherpress.compress.recipes.required_files import Need
from featherpress.compress.tasks.base import Split, Task, TaskLoss
from featherpress.compress.tasks.detection.assignment import Targets, match_priors
from featherpress.compress.tasks.detection.data import draw_faces, open_data, training_crops
from featherpress.compress.tasks.detection.gallery import write_gallery
from featherpress.compress.tasks.detection.loss import Nearer, detection_loss
from featherpress.compress.tasks.detection.options import FaceData
from featherpress.compress.tasks.detection.pseudo_labels import control_crops, mixed_crops
from featherpress.errors import UsageError
from featherpress.models import Detector, normalize
from featherpress.models.detectors import require_detector
from featherpress.models.factories import load_factory
from featherpress.records.evaluation import Metric

logger = logging.getLogger("featherpress")


@register_task("widerface", "synthetic")
class DetectionTask(Task):
    """Detectors of faces over priors: class, box and landmark terms, scored by AP."""

    Data = FaceData
    terms = ("class", "box", "landmark")
    metric = Metric(key="ap", name="AP")
    outputs = ("boxes", "logits", "landmarks")
    context = ("positive", "negative", "mined", "count", "nearer", "boxes", "present", "image")
    layout = "priors"
    data: FaceData
    min_teacher_score = 0.05
    load = staticmethod(DetectionSet.load)
    scores = staticmethod(detection_scores)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.settings = DetectionSettings(long_side=self.data.long_side)
        self._priors: dict[Any, Tensor] = {}

    @classmethod
    def needs(cls, data: FaceData) -> Iterator[Need]:
        """List the labels and the folders of images."""
        for name, text, split in data.places:
            root = expand_path(text)
            if data.kind == "widerface":
                base = root if (root / "wider_face_split").is_dir() else root / "widerface"
                yield Need(key=name, text=text, path=base / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt")
                yield Need(key=name, text=text, path=base / f"WIDER_{split}" / "images", is_folder=True)
            else:
                yield Need(key=name, text=text, path=root, is_folder=True)

    def build(self, target: str, settings: Mapping[str, Any], *, normalize: Any = "", size: int = 0) -> nn.Module:
        """Build a detector with fresh weights; it takes images of any size, BGR less their mean.

        Errors: `UsageError` for a model that is not a detector, and for another normalisation.
        """
        if normalize or size:
            raise UsageError("detectors of faces have their own normalisation and take any size")
        return require_detector(load_factory(target, settings), target)

    def example(self) -> Tensor:
        """Return a small image: detectors take any size."""
        side = max(64, min(*self.data.sizes, 128))
        return torch.zeros(1, 3, side, side)

    def open(self, split: Split) -> SampleDataset:
        """Open a split of labelled photographs."""
        return open_data(self.data, split)

    def unlabelled_images(self) -> list[Any]:
        """Open the folders of photographs without labels; drawn pictures go on where those with labels end."""
        data = self.data
        if not data.unlabelled or not data.draws_unlabelled:
            return super().unlabelled_images()
        drawn = draw_faces(data, data.train_images + data.unlabelled.images)
        return [select(drawn, range(data.train_images, len(drawn)))]

    def teacher_images(self, training: SampleDataset) -> SampleDataset:
        """Return the student's images and, where they are drawn too, those whose labels it does not know."""
        return join(training, *self.unlabelled_images()) if self.data.draws_unlabelled else training

    def crops(self, dataset: SampleDataset, seed: int) -> TrainingCrops:
        """Return training crops; crops that repeat are kept in memory."""
        return training_crops(self.data, dataset, seed=seed)

    def unlabelled_crops(
        self, dataset: SampleDataset, seed: int, *, teacher: nn.Module | None, out: Path
    ) -> TrainingCrops:
        """Return training crops with photographs on top, labelled by the teacher, or with further ones."""
        if teacher is None:
            return control_crops(self.data, dataset, seed=seed)
        folders = self.unlabelled_images()
        return mixed_crops(self.data, dataset, folders, require_detector(teacher, "the teacher"), out=out, seed=seed)

    def images(self, batch: Batch, model: nn.Module) -> Tensor:
        """Return a batch's images as BGR minus the mean."""
        return normalize(batch.images)

    def view(self, dataset: SampleDataset, index: int, model: nn.Module) -> Tensor:
        """Read one image as detectors take it."""
        return normalize(dataset[index].image[None])

    def teacher_inputs(self, student: nn.Module, teacher: nn.Module) -> Callable[[Tensor], Tensor]:
        """All detectors of faces take the same images."""
        return lambda images: images.contiguous(memory_format=torch.channels_last)

    def name_outputs(self, raw: tuple[Tensor, Tensor, Tensor]) -> Outputs:
        """Name raw boxes, class logits and landmarks."""
        return dict(zip(("boxes", "logits", "landmarks"), raw, strict=True))

    def assign_targets(self, batch: Batch, model: nn.Module) -> Targets:
        """Match priors with faces."""
        assert isinstance(model, Detector)
        # Once for a size: a teacher that is trained first may have other anchors than its student.
        key = (model.anchors, batch.images.shape[-2:], batch.images.device)
        if key not in self._priors:
            self._priors[key] = model.priors(*key[1])
        return match_priors(self._priors[key], batch)

    def normalizers(self, targets: Targets) -> Tensor:
        """Count positives, and those with landmarks."""
        return targets.counts

    def compute_loss(self, outputs: Outputs, batch: Batch, targets: Targets, normalizers: Tensor) -> TaskLoss:
        """Return the loss against the matched faces."""
        raw = (outputs["boxes"], outputs["logits"], outputs["landmarks"])
        loss = detection_loss(*raw, targets, normalizers, mining=self.recipe.losses.mining)
        terms = {
            "class": self.recipe.losses.classification * loss.classification,
            "box": self.recipe.losses.box * loss.box,
            "landmark": self.recipe.losses.landmark * loss.landmark,
        }
        context = {
            "positive": targets.positive,
            "negative": targets.negative,
            "mined": loss.negatives,
            "count": normalizers[0],
            "nearer": Nearer(targets),
            "boxes": batch.boxes,
            "present": batch.present & ~batch.ignored,
            "image": (batch.images.shape[-2], batch.images.shape[-1]),
        }
        return TaskLoss(terms=terms, context=context)

    def evaluate(
        self,
        model: nn.Module,
        dataset: SampleDataset,
        *,
        label: str,
        split: str = "val",
        about: Mapping[str, Any] | None = None,
        images: int = 0,
    ) -> EvaluationResult:
        """Score a model by AP; broken images are skipped and counted."""
        detector = require_detector(model, type(model).__name__)
        indices = range(min(images or len(dataset), len(dataset)))
        result = evaluate_model(
            detector,
            dataset,
            settings=self.settings,
            label=label,
            skip_broken=True,
            indices=indices,
            data={"name": self.data.kind, "split": split},
            about=about,
        )
        if result.record["ap"] is None:
            seen = len(result.predictions.names)
            logger.warning("there is no valid face in %d images, so there is no AP; it is recorded as 0", seen)
        return result

    def show(self, folder: Path, dataset: SampleDataset, predictions: Mapping[str, DetectionSet]) -> None:
        """Save the report's gallery."""
        write_gallery(folder, dataset, predictions)
