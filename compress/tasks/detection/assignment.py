"""Assignment of priors to faces."""

from dataclasses import dataclass

import torch
from torch import Tensor

from featherpress.compress.data.samples import Batch
from featherpress.models.priors import encode_boxes, encode_landmarks

_CHUNK = 64
"""Faces whose overlaps with all priors are held at once: at 320x320 a megabyte, which a core's cache holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What each prior should predict.

    Shapes: priors (P, 4) as centre and size in pixels; positive, negative, has_landmarks (N, P) bool; face (N, P)
    int64, the row of the batch's padded faces; boxes (N, P, 4) and landmarks (N, P, 10) as deltas, zero but where
    `positive`. A prior that is neither positive nor negative is ignored.
    """

    priors: Tensor
    positive: Tensor
    negative: Tensor
    has_landmarks: Tensor
    face: Tensor
    boxes: Tensor
    landmarks: Tensor

    @property
    def counts(self) -> Tensor:
        """The number of positives, and of those with landmarks, (2,)."""
        return torch.stack([self.positive.sum(), self.has_landmarks.sum()])


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return intersection over union of every pair.

    Shapes: (..., A, 4) and (..., B, 4) corners -> (..., A, B), 0 where both are empty.
    """
    a, b = boxes[..., :, None, :], others[..., None, :, :]
    x1, y1, x2, y2 = a.unbind(-1)
    left, top, right, bottom = b.unbind(-1)
    # Side by side, as runs of numbers, and in place: a third of the time.
    intersection = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).clamp_(min=0)
    intersection.mul_(torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0))
    union = (_area(a) + _area(b)).sub_(intersection).clamp_(min=1e-9)
    return intersection.div_(union)


def match_priors(priors: Tensor, batch: Batch, *, threshold: float = 0.35) -> Targets:
    """Match priors to faces: a face takes its best prior and every prior whose best face it is, from `threshold` on.

    Priors that an ignored face would take in the same way, and that belong to no other, are ignored: neither positive
    nor negative, however small the face. Of equally good faces the first is taken; of two faces with the same best
    prior the last.

    Shapes: priors (P, 4) as centre and size in pixels; N images of M padded faces in `batch`.
    Source: Liu et al. 2016, SSD, section 2.2; the threshold is RetinaFace's (Deng et al. 2020).
    """
    shape = (len(batch), len(priors))
    images, faces = batch.present.nonzero(as_tuple=True)
    counted = ~batch.ignored[images, faces]
    best, pairs, overlap = _overlaps(batch.boxes[images, faces], _corners(priors), threshold)
    # Where a pair of face and prior lies in a flat table of images and priors.
    place = images[pairs[:, 0]] * len(priors) + pairs[:, 1]
    wanted = counted[pairs[:, 0]]
    face = _nearest(place[wanted], faces[pairs[wanted, 0]], overlap[wanted], size=shape[0] * shape[1])
    claimed = torch.full_like(face, -1)
    claims = images[counted] * len(priors) + best[counted]
    claimed.scatter_reduce_(0, claims, faces[counted], reduce="amax")
    face = torch.where(claimed >= 0, claimed, face)
    negative = face < 0
    negative[place[~wanted]] = False
    negative[images[~counted] * len(priors) + best[~counted]] = False
    return _encode(priors, batch, face.view(shape), negative.view(shape))


def _overlaps(boxes: Tensor, others: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find every face's best prior, and all pairs that overlap by the threshold, without keeping the rest.

    Shapes: boxes (F, 4), others (P, 4) -> best (F,), pairs (K, 2) as face and prior, their overlap (K,).
    """
    best, pairs, overlaps = [], [torch.zeros(0, 2, dtype=torch.int64, device=boxes.device)], [boxes.new_zeros(0)]
    for start in range(0, len(boxes), _CHUNK):
        iou = pairwise_iou(boxes[start : start + _CHUNK], others)
        near = (iou >= threshold).nonzero()
        best.append(iou.argmax(dim=1))
        overlaps.append(iou[near[:, 0], near[:, 1]])
        near[:, 0] += start
        pairs.append(near)
    return torch.cat(best) if best else pairs[0][:, 0], torch.cat(pairs), torch.cat(overlaps)


def _nearest(place: Tensor, face: Tensor, overlap: Tensor, *, size: int) -> Tensor:
    """Return every place the face that overlaps it most, the first of equals; -1 where there is none.

    Shapes: place, face and overlap (K,) -> (size,).
    """
    most = overlap.new_zeros(size).scatter_reduce_(0, place, overlap, reduce="amax")
    first = overlap == most[place]
    none = torch.iinfo(face.dtype).max
    nearest = torch.full((size,), none, dtype=face.dtype, device=face.device)
    nearest.scatter_reduce_(0, place[first], face[first], reduce="amin")
    return nearest.masked_fill_(nearest == none, -1)


def _encode(priors: Tensor, batch: Batch, face: Tensor, negative: Tensor) -> Targets:
    """Encode what positive priors should predict; elsewhere it is zero."""
    positive = face >= 0
    images, columns = positive.nonzero(as_tuple=True)
    faces, own = face[images, columns], priors[columns]
    boxes, landmarks = (batch.boxes.new_zeros(*face.shape, width) for width in (4, 10))
    boxes[images, columns] = encode_boxes(batch.boxes[images, faces], own)
    landmarks[images, columns] = encode_landmarks(batch.landmarks[images, faces], own)
    pointed = torch.zeros_like(positive)
    pointed[images, columns] = batch.has_landmarks[images, faces]
    return Targets(
        priors=priors,
        positive=positive,
        negative=negative,
        has_landmarks=pointed,
        face=face.clamp(min=0),
        boxes=boxes,
        landmarks=landmarks,
    )


def _area(boxes: Tensor) -> Tensor:
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def _corners(priors: Tensor) -> Tensor:
    half = priors[..., 2:] / 2
    return torch.cat([priors[..., :2] - half, priors[..., :2] + half], dim=-1)
