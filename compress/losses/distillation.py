"""What a student can learn from a teacher's features and outputs.

Every function leaves the teacher without gradient and is zero when the student equals the teacher.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["class_distillation", "feature_distillation", "regression_distillation"]

_STUDENT_EPS = 1e-6  # bounds the gradient of a channel that hardly varies
_TEACHER_EPS = 1e-12  # a teacher's scale must not matter, however small
_DEAD = 1e-6  # a channel whose variance is below this fraction of the mean channel's


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Match the pattern of every channel, whatever its scale: half the squared difference of standardised features.

    mean over channels of (1 - Pearson r); channels in which the teacher hardly varies are left out.

    Shapes: (N, C, H, W) twice -> scalar in [0, 2].
    Source: Cao et al. 2022, PKD, eq. 4.
    """
    s, _ = _standardise(student, eps=_STUDENT_EPS)
    t, variance = _standardise(teacher.detach(), eps=_TEACHER_EPS)
    alive = variance > _DEAD * variance.mean()
    distance = (s - t).square().mean(dim=1) / 2
    return (distance * alive).sum() / alive.sum().clamp(min=1)


def class_distillation(
    student: Tensor, teacher: Tensor, where: Tensor, *, count: Tensor, temperature: float = 1.0
) -> Tensor:
    """Match the teacher's margin between face and background where it matters.

    sum of |p_t - p_s| * KL(sigmoid(m_t / T) || sigmoid(m_s / T)) * T^2 over `where`, divided by `count`, with
    m = z_face - z_background; the weight carries no gradient.

    Shapes: logits (N, P, 2) twice, where (N, P) bool, count scalar -> scalar.
    Source: after Hinton et al. 2015; two classes leave one margin, as in TDKD for RetinaFace.
    """
    s, t = _margin(student)[where], _margin(teacher.detach())[where]
    weight = (torch.sigmoid(t) - torch.sigmoid(s)).abs().detach()
    s, t = s / temperature, t / temperature
    p = torch.sigmoid(t)
    divergence = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return (weight * divergence).sum() * temperature**2 / count.clamp(min=1)


def regression_distillation(student: Tensor, teacher: Tensor, where: Tensor, *, count: Tensor) -> Tensor:
    """Pull encoded deltas towards the teacher's: smooth-L1 summed over `where`, divided by `count`.

    Shapes: deltas (N, P, D) twice, where (N, P) bool, count scalar -> scalar.
    Source: Girshick 2015, Fast R-CNN, eq. 3, with the teacher as the target.
    """
    distance = F.smooth_l1_loss(student[where].float(), teacher.detach()[where].float(), reduction="sum")
    return distance / count.clamp(min=1)


def _standardise(x: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Return channels with mean 0 and variance 1 over batch and space, (C, N * H * W), and their variance (C,)."""
    rows = x.float().transpose(0, 1).flatten(1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    variance = rows.square().mean(dim=1)
    return rows * torch.rsqrt(variance + eps)[:, None], variance


def _margin(logits: Tensor) -> Tensor:
    logits = logits.float()
    return logits[..., 1] - logits[..., 0]
