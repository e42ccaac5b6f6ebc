"""From raw outputs to detections, a whole batch at once: decoding and non-maximum suppression."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torchvision.ops import nms

from featherpress.compress.data.samples import MIRRORED_LANDMARKS, Tensors
from featherpress.compress.evaluation.detections import Detections
from featherpress.compress.evaluation.detector.settings import CANDIDATES, TOP_K, DetectionSettings
from featherpress.models.priors import decode_boxes, decode_landmarks


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates(Tensors):
    """Candidate faces of all images of a batch, unordered.

    Shapes: images (k,) int64, the row of the batch; boxes (k, 4) as corners; scores (k,); landmarks (k, 10).
    Units: pixels of what the model saw.
    """

    images: Tensor
    boxes: Tensor
    scores: Tensor
    landmarks: Tensor

    def select(self, rows: Tensor) -> "Candidates":
        """Return the rows of a mask, or of an index in its order."""
        return self.map(lambda each: each[rows])

    def mirrored(self, width: float) -> "Candidates":
        """Mirror left and right in images of this width; landmarks are renamed, so that left stays the image's left."""
        points = self.landmarks.view(-1, 5, 2)[:, MIRRORED_LANDMARKS]
        points = torch.stack([width - points[..., 0], points[..., 1]], dim=-1)
        left, top, right, bottom = self.boxes.unbind(dim=1)
        boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
        return replace(self, boxes=boxes, landmarks=points.flatten(1))

    def joined(self, other: "Candidates") -> "Candidates":
        """Return these candidates and those of another pass over the same images."""
        parts = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return Candidates(**{name: torch.cat(pair) for name, pair in parts.items()})


def decode_outputs(outputs: tuple[Tensor, Tensor, Tensor], priors: Tensor, *, score_threshold: float) -> Candidates:
    """Decode only the priors that score at least `score_threshold`.

    Shapes: outputs boxes (N, P, 4), logits (N, P, 2) and landmarks (N, P, 10) as a model gives them, priors (P, 4).
    """
    boxes, logits, landmarks = outputs
    scores = logits.float().softmax(dim=-1)[..., 1]
    image, prior = (scores >= score_threshold).nonzero(as_tuple=True)
    return Candidates(
        images=image,
        boxes=decode_boxes(boxes[image, prior].float(), priors[prior]),
        scores=scores[image, prior],
        landmarks=decode_landmarks(landmarks[image, prior].float(), priors[prior]),
    )


def select_detections(candidates: Candidates, *, count: int, settings: DetectionSettings) -> list[Detections]:
    """Keep the best CANDIDATES of each of `count` images, of those the best of what overlaps, and TOP_K of these.

    An image's detections are the same whatever else is in the batch.
    """
    order = candidates.scores.argsort(descending=True, stable=True)
    order = order[candidates.images[order].argsort(stable=True)]
    ranked = candidates.select(order)
    ranked = ranked.select(_rank(ranked.images, count) < CANDIDATES)
    kept = ranked.select(_suppress(ranked, count, settings.nms_iou))
    kept = kept.select(_rank(kept.images, count) < TOP_K)
    counts = kept.images.bincount(minlength=count).tolist()
    parts = (torch.split(part.cpu(), counts) for part in (kept.boxes, kept.scores, kept.landmarks))
    return [
        Detections(boxes=boxes.numpy(), scores=scores.numpy(), landmarks=landmarks.numpy())
        for boxes, scores, landmarks in zip(*parts, strict=True)
    ]


def _rank(images: Tensor, count: int) -> Tensor:
    """Number the rows of each image from 0, images in order."""
    counts = images.bincount(minlength=count)
    starts = counts.cumsum(0) - counts
    return torch.arange(len(images), device=images.device) - starts[images]


def _suppress(ranked: Candidates, count: int, iou: float) -> Tensor:
    """Return the rows that no better one of their image overlaps, images in order.

    One call an image on its own slice compares no boxes of two images, as shifting all images apart would; that and
    finding each image's rows by a mask are what torchvision's batched form does, at half the speed (benchmarks).
    """
    counts = ranked.images.bincount(minlength=count).tolist()
    starts = [sum(counts[:image]) for image in range(count)]
    slices = zip(torch.split(ranked.boxes, counts), torch.split(ranked.scores, counts), starts, strict=True)
    kept = [nms(boxes, scores, iou) + start for boxes, scores, start in slices]
    return torch.cat([ranked.images.new_empty(0), *kept])
