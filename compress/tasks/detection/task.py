"""The detection of faces."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featherpress.compress.data import Batch, FaceDataset, TrainingCrops
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation import DetectionSet
from featherpress.compress.evaluation.detector.inference import EvaluationResult, evaluate_model
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.compress.evaluation.saved_scores import detection_scores
from featherpress.compress.recipes import Recipe
from featherpress.compress.tasks.base import Split, TaskLoss
from featherpress.compress.tasks.detection.assignment import Targets, match_priors
from featherpress.compress.tasks.detection.data import open_data, training_crops
from featherpress.compress.tasks.detection.gallery import write_gallery
from featherpress.compress.tasks.detection.loss import Nearer, detection_loss
from featherpress.models import Detector, normalize
from featherpress.models.detectors import require_detector
from featherpress.models.factories import load_factory

logger = logging.getLogger("featherpress")


class DetectionTask:
    """Detectors over priors: class, box and landmark terms, scored by AP."""

    terms: tuple[str, ...] = ("class", "box", "landmark")
    metric = "ap"
    min_teacher_score = 0.05
    load = staticmethod(DetectionSet.load)
    scores = staticmethod(detection_scores)

    def __init__(self, recipe: Recipe) -> None:
        self.data, self.weights = recipe.data, recipe.losses
        self.settings = DetectionSettings(long_side=recipe.data.long_side)
        self._priors: dict[Any, Tensor] = {}

    def build(self, target: str, settings: Mapping[str, Any]) -> nn.Module:
        """Build a detector with fresh weights.

        Errors: `UsageError` for a model that is not a detector.
        """
        return require_detector(load_factory(target, settings), target)

    def open(self, split: Split) -> FaceDataset:
        """Open a split of labelled photographs."""
        return open_data(self.data, split)

    def crops(self, dataset: FaceDataset, seed: int) -> TrainingCrops:
        """Return training crops; crops that repeat are kept in memory."""
        return training_crops(self.data, dataset, seed=seed)

    def images(self, batch: Batch) -> Tensor:
        """Return a batch's images as BGR minus the mean."""
        return normalize(batch.images)

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
        loss = detection_loss(*raw, targets, normalizers, mining=self.weights.mining)
        terms = {
            "class": self.weights.classification * loss.classification,
            "box": self.weights.box * loss.box,
            "landmark": self.weights.landmark * loss.landmark,
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
        dataset: FaceDataset,
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

    def show(self, folder: Path, dataset: FaceDataset, predictions: Mapping[str, DetectionSet]) -> None:
        """Save the report's gallery."""
        write_gallery(folder, dataset, predictions)
