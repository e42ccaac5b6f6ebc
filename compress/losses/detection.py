"""The supervised loss: the baseline that every claim is measured against."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.losses.matching import Targets

__all__ = ["DetectionLoss", "detection_loss", "mine_negatives"]


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
    *,
    positives: Tensor | None = None,
    with_landmarks: Tensor | None = None,
) -> DetectionLoss:
    """Compare raw outputs with their targets.

    Cross-entropy over positives and mined negatives, smooth-L1 over the positives' deltas, all summed and divided by
    the number of positives; landmarks by the number of positives that have them. `positives` and `with_landmarks`
    replace these numbers, for instance by their means over processes.

    Shapes: boxes (N, P, 4), logits (N, P, 2), landmarks (N, P, 10) -> scalars.
    Source: Deng et al. 2020, RetinaFace, eq. 1, without its dense term.
    """
    count = (targets.positive.sum() if positives is None else positives).clamp(min=1)
    pointed = (targets.has_landmarks.sum() if with_landmarks is None else with_landmarks).clamp(min=1)
    entropy = F.cross_entropy(logits.float().flatten(0, 1), targets.positive.long().flatten(), reduction="none")
    entropy = entropy.view_as(targets.positive)
    negatives = mine_negatives(entropy.detach(), targets)
    return DetectionLoss(
        classification=(entropy * (targets.positive | negatives)).sum() / count,
        box=_smooth_l1(boxes, targets.boxes, targets.positive) / count,
        landmark=_smooth_l1(landmarks, targets.landmarks, targets.has_landmarks) / pointed,
        negatives=negatives,
    )


def mine_negatives(entropy: Tensor, targets: Targets, *, ratio: int = 7) -> Tensor:
    """Choose the hardest negatives of the batch, `ratio` for each positive.

    The choice runs over the whole batch, so that an image without faces gives its hardest backgrounds too.

    Shapes: entropy (N, P) -> (N, P) bool.
    Source: Shrivastava et al. 2016, OHEM; Liu et al. 2016, SSD, section 2.2.
    """
    wanted = min(ratio * max(int(targets.positive.sum()), 1), entropy.numel())
    hardness = entropy.masked_fill(~targets.negative, -1.0).flatten()
    chosen = torch.zeros_like(hardness, dtype=torch.bool)
    chosen[hardness.topk(wanted).indices] = True
    return chosen.view_as(entropy) & targets.negative


def _smooth_l1(found: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    return F.smooth_l1_loss(found[where].float(), wanted[where], reduction="sum")
