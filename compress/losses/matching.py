"""Which prior answers for which face."""

from dataclasses import dataclass

import torch
from torch import Tensor

from featherpress.compress.data.samples import Batch
from featherpress.models.priors import encode_boxes, encode_landmarks

__all__ = ["Targets", "match_priors", "pairwise_iou"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What each prior should predict.

    Shapes: positive, negative, has_landmarks (N, P) bool; face (N, P) int64, the row of the batch's padded faces;
    boxes (N, P, 4) and landmarks (N, P, 10) as deltas, meaningful where `positive`. A prior that is neither positive
    nor negative is ignored.
    """

    positive: Tensor
    negative: Tensor
    has_landmarks: Tensor
    face: Tensor
    boxes: Tensor
    landmarks: Tensor


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return intersection over union of every pair.

    Shapes: (..., A, 4) and (..., B, 4) corners -> (..., A, B), 0 where both are empty.
    """
    a, b = boxes[..., :, None, :], others[..., None, :, :]
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = overlap[..., 0] * overlap[..., 1]
    return intersection / (_area(a) + _area(b) - intersection).clamp(min=1e-9)


def match_priors(priors: Tensor, batch: Batch, *, threshold: float = 0.35) -> Targets:
    """Match priors to faces: a face takes its best prior and every prior whose best face it is, from `threshold` on.

    Priors that belong to an ignored face in the same way, and to no other, are ignored.

    Shapes: priors (P, 4) as centre and size in pixels; N images of M padded faces in `batch`.
    Source: Liu et al. 2016, SSD, section 2.2; the threshold is RetinaFace's (Deng et al. 2020).
    """
    iou = pairwise_iou(batch.boxes, _corners(priors))
    iou = iou.masked_fill(~batch.present[..., None], -1.0)
    counted = batch.present & ~batch.ignored
    best_iou, face = iou.masked_fill(~counted[..., None], -1.0).max(dim=1)
    best_iou, face = _claim_best_priors(iou, counted, best_iou, face)
    positive = best_iou >= threshold

    unwanted = (batch.present & batch.ignored)[..., None]
    near_ignored = (iou.masked_fill(~unwanted, -1.0).amax(dim=1) >= threshold) & ~positive

    boxes = torch.gather(batch.boxes, 1, face[..., None].expand(-1, -1, 4))
    # A prior without a face points at padding of no size, whose logarithm must stay finite.
    boxes = torch.where(positive[..., None], boxes, _corners(priors))
    landmarks = torch.gather(batch.landmarks, 1, face[..., None].expand(-1, -1, 10))
    return Targets(
        positive=positive,
        negative=~positive & ~near_ignored,
        has_landmarks=positive & torch.gather(batch.has_landmarks, 1, face),
        face=face,
        boxes=encode_boxes(boxes, priors),
        landmarks=encode_landmarks(landmarks, priors),
    )


def _claim_best_priors(iou: Tensor, counted: Tensor, best_iou: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """Give each counted face the prior it overlaps most, whatever the threshold, as if they overlapped by 2."""
    rows, faces = counted.nonzero(as_tuple=True)
    chosen = iou[rows, faces].argmax(dim=1)
    best_iou, face = best_iou.clone(), face.clone()
    best_iou[rows, chosen] = 2.0
    # Two faces may want one prior; on the CPU the later row wins, so sort out the order for every device alike.
    winner = torch.full_like(face, -1).flatten()
    flat = rows * face.shape[1] + chosen
    winner.scatter_reduce_(0, flat, faces, reduce="amax")
    winner = winner.view_as(face)
    return best_iou, torch.where(winner >= 0, winner, face)


def _area(boxes: Tensor) -> Tensor:
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def _corners(priors: Tensor) -> Tensor:
    half = priors[..., 2:] / 2
    return torch.cat([priors[..., :2] - half, priors[..., :2] + half], dim=-1)
