"""The detection of faces."""

import torch
from torch import Tensor, nn

from featherpress.compress.data import Batch
from featherpress.compress.losses.detection import detection_loss
from featherpress.compress.losses.matching import Targets, match_priors
from featherpress.compress.recipes import LossRecipe
from featherpress.compress.tasks.base import Outputs, PriorEvidence, Supervision
from featherpress.models import Detector, normalize

__all__ = ["DetectionTask"]


class DetectionTask:
    """Detectors over priors: class, box and landmark terms, scored by AP."""

    terms: tuple[str, ...] = ("class", "box", "landmark")
    metric = "ap"

    def __init__(self, weights: LossRecipe) -> None:
        self.weights = weights
        self._priors: dict[tuple[int, int], Tensor] = {}

    def images(self, batch: Batch) -> Tensor:
        """Give a batch's images as BGR minus the mean."""
        return normalize(batch.images)

    def name_outputs(self, raw: tuple[Tensor, Tensor, Tensor]) -> Outputs:
        """Name raw boxes, class logits and landmarks."""
        boxes, logits, landmarks = raw
        return {"boxes": boxes, "logits": logits, "landmarks": landmarks}

    def aim(self, batch: Batch, model: nn.Module) -> Targets:
        """Match priors with faces."""
        return match_priors(self._priors_of(batch, model), batch)

    def counts(self, targets: Targets) -> Tensor:
        """Count positives, and those with landmarks."""
        return torch.stack([targets.positive.sum(), targets.has_landmarks.sum()])

    def supervise(self, outputs: Outputs, batch: Batch, targets: Targets, counts: Tensor) -> Supervision:
        """Compare with the matched faces."""
        positives, with_landmarks = counts
        loss = detection_loss(
            outputs["boxes"],
            outputs["logits"],
            outputs["landmarks"],
            targets,
            positives=positives,
            with_landmarks=with_landmarks,
            mining=self.weights.mining,
        )
        terms = {
            "class": self.weights.classification * loss.classification,
            "box": self.weights.box * loss.box,
            "landmark": self.weights.landmark * loss.landmark,
        }
        evidence = PriorEvidence(
            targets=targets,
            negatives=loss.negatives,
            priors=self._priors[_size(batch)],
            count=positives,
            boxes=batch.boxes,
            present=batch.present & ~batch.ignored,
            image=_size(batch),
        )
        return Supervision(terms=terms, evidence=evidence)

    def _priors_of(self, batch: Batch, model: nn.Module) -> Tensor:
        """Compute the priors of a size once."""
        assert isinstance(model, Detector)
        return self._priors.setdefault(_size(batch), model.priors(*_size(batch)))


def _size(batch: Batch) -> tuple[int, int]:
    return batch.images.shape[-2], batch.images.shape[-1]
