"""The supervised loss: the baseline that every claim is measured against."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.runtime.distributed import gather_processes, process_index
from featherpress.compress.tasks.detection.assignment import Targets, pairwise_iou
from featherpress.models.priors import decode_boxes

Mining: TypeAlias = Literal["batch", "image"]

_RATIO = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionLoss:
    """The three terms, not yet weighted, each a scalar; `negatives` (N, P) bool are the mined ones."""

    classification: Tensor
    box: Tensor
    landmark: Tensor
    negatives: Tensor


def detection_loss(
    boxes: Tensor,
    logits: Tensor,
    landmarks: Tensor,
    targets: Targets,
    normalizers: Tensor,
    *,
    mining: Mining = "batch",
) -> DetectionLoss:
    """Compare raw outputs with their targets.

    Cross-entropy over positives and mined negatives, smooth-L1 over the positives' deltas, all summed and divided by
    the first of the `normalizers`, the number of positives; landmarks by the second, of positives that have them.

    Shapes: boxes (N, P, 4), logits (N, P, 2), landmarks (N, P, 10), normalizers (2,) -> scalars.
    Source: Deng et al. 2020, RetinaFace, eq. 1, without its dense term.
    """
    count, pointed = normalizers
    margin = logits[..., 1].float() - logits[..., 0].float()
    # Two classes leave one margin, and their cross-entropy is its softplus.
    entropy = F.softplus(torch.where(targets.positive, -margin, margin))
    negatives = mine_negatives(entropy.detach(), targets, mining=mining)
    return DetectionLoss(
        classification=(entropy * (targets.positive | negatives)).sum() / count,
        box=_smooth_l1(boxes, targets.boxes, targets.positive) / count,
        landmark=_smooth_l1(landmarks, targets.landmarks, targets.has_landmarks) / pointed,
        negatives=negatives,
    )


class Nearer:
    """Where a teacher's box is better than the student's; two terms of a step ask it of each teacher, one by one."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self._last: tuple[Outputs, Outputs, Tensor] | None = None

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return `teacher_is_nearer`, computed once for a pair of outputs."""
        if self._last is None or self._last[0] is not student or self._last[1] is not teacher:
            self._last = (student, teacher, teacher_is_nearer(student, teacher, targets=self.targets))
        return self._last[2]


def teacher_is_nearer(student: Outputs, teacher: Outputs, *, targets: Targets) -> Tensor:
    """Mark the positives where the teacher's box overlaps the label more than the student's does.

    Shapes: outputs with `boxes` (N, P, 4) -> (N, P) bool.
    """
    nearer = torch.zeros_like(targets.positive)
    rows, columns = targets.positive.nonzero(as_tuple=True)
    own = targets.priors[columns]
    label = decode_boxes(targets.boxes[rows, columns], own)[:, None]

    def overlap(deltas: Tensor) -> Tensor:
        boxes = decode_boxes(deltas.detach()[rows, columns].float(), own)
        return pairwise_iou(boxes[:, None], label)[:, 0, 0]

    nearer[rows, columns] = overlap(teacher["boxes"]) > overlap(student["boxes"])
    return nearer


def mine_negatives(entropy: Tensor, targets: Targets, *, mining: Mining = "batch") -> Tensor:
    """Choose the hardest negatives, seven for each positive; without positives as if there were one.

    By `batch` the choice runs over the images of all processes at once, so that an image without faces gives its
    hardest backgrounds too; by `image` over each alone. Of equally hard ones the first are taken, so that the choice
    does not depend on how a batch is spread over processes, its i-th image lying with process i modulo their number.

    Shapes: entropy (N, P) -> (N, P) bool.
    Source: Shrivastava et al. 2016, OHEM; Liu et al. 2016, SSD, section 2.2.
    """
    hardness = entropy.masked_fill(~targets.negative, -1.0)
    positives = targets.positive.sum(dim=1)
    if mining == "image":
        return _hardest(hardness, _RATIO * positives.clamp(min=1)) & targets.negative
    rows, counts = gather_processes(hardness), gather_processes(positives.sum())
    pool = rows.transpose(0, 1).reshape(1, -1)
    chosen = _hardest(pool, _RATIO * counts.sum().clamp(min=1)[None])
    chosen = chosen.view(len(entropy), len(rows), -1)[:, process_index()]
    return chosen & targets.negative


def _hardest(hardness: Tensor, wanted: Tensor) -> Tensor:
    """Mark the `wanted` (R,) largest of every row of (R, K); of equal ones the first."""
    wanted = wanted.clamp(max=hardness.shape[1])
    values = hardness.topk(int(wanted.max()), sorted=True).values
    threshold = values.gather(1, wanted[:, None] - 1)
    harder, equal = hardness > threshold, hardness == threshold
    missing = wanted[:, None] - harder.sum(dim=1, keepdim=True)
    return harder | (equal & (equal.cumsum(dim=1) <= missing))


def _smooth_l1(outputs: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    places = where.nonzero(as_tuple=True)
    return F.smooth_l1_loss(outputs[places].float(), wanted[places], reduction="sum")
