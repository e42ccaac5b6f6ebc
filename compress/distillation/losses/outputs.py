"""Distillation losses on outputs: class logits and regressed deltas.

No gradient reaches the teacher. Every loss is zero when the student equals the teacher. All of them compute
in float32, whatever they are given. Classes lie on axis 1; further axes are positions, each an example of its own, of
which a `mask` (N, ...) bool says which count.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.distillation.losses.bounds import Fraction, Temperature, Weight
from featherpress.compress.distillation.losses.positions import as_rows, mean_over_positions
from featherpress.compress.distillation.losses.registry import register_loss
from featherpress.compress.distillation.teachers import Outputs
from featherpress.errors import UsageError


@register_loss("margin", layout="priors", softmax=-1, outputs=("logits",))
def margin(
    student: Tensor,
    teacher: Tensor,
    *,
    positive: Tensor,
    negative: Tensor,
    mined: Tensor,
    count: Tensor,
    temperature: Temperature = 1.0,
    teacher_score: Fraction = 0.05,
) -> Tensor:
    """Match a detector's margin between face and background where it matters.

    That is over positive priors, mined ones, and negative ones that the teacher scores above `teacher_score`.

    Shapes: logits (N, P, 2) twice, masks (N, P) bool, count scalar -> scalar, 0 or more.
    Source: after Hinton et al. 2015; two classes leave one margin, as in TDKD for RetinaFace.
    """
    sure = teacher.float().softmax(dim=-1)[..., 1] > teacher_score
    where = positive | mined | (sure & negative)
    return margin_divergence(student, teacher, where, count=count, temperature=temperature)


def margin_divergence(
    student: Tensor, teacher: Tensor, where: Tensor, *, count: Tensor, temperature: float = 1.0
) -> Tensor:
    """Match the teacher's margin between face and background at given priors.

    sum of |p_t - p_s| * KL(sigmoid(m_t / T) || sigmoid(m_s / T)) * T^2 over `where`, divided by `count`, with
    m = z_face - z_background; the weight carries no gradient.

    Shapes: logits (N, P, 2) twice, where (N, P) bool, count scalar -> scalar, 0 or more.
    """
    s, t = _margins(student)[where], _margins(teacher.detach())[where]
    return _sum_where_they_differ(s, t, temperature) / count


@register_loss("binary", layout="classes", outputs=("logits",), over_batch=True)
def binary(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: Temperature = 1.0,
    teacher_score: Fraction = 0.05,
    mask: Tensor | None = None,
) -> Tensor:
    """Match the teacher's probability of each class apart, where a head has a sigmoid for each.

    sum over positions and classes of |p_t - p_s| * KL(sigmoid(t / T) || sigmoid(s / T)) * T^2, divided by how many
    positions the teacher scores above `teacher_score` for some class; the weight carries no gradient.

    Shapes: logits (N, C, ...) twice, mask (N, ...) bool -> scalar, 0 or more.
    Source: Yang et al. 2023, Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection.
    """
    s, t = (as_rows(each.float(), mask) for each in (student, teacher.detach()))
    sure = (torch.sigmoid(t) > teacher_score).any(dim=1).sum()
    return _sum_where_they_differ(s, t, temperature) / sure.clamp(min=1)


def _sum_where_they_differ(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Sum the divergence of probabilities, each weighed by how far they lie apart; margins or logits twice."""
    weight = (torch.sigmoid(t) - torch.sigmoid(s)).abs().detach()
    s, t = s / temperature, t / temperature
    p = torch.sigmoid(t)
    divergence = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return (weight * divergence).sum() * temperature**2


@register_loss("regression", layout="priors", outputs=("boxes", "landmarks"))
def regression(
    student: Tensor,
    teacher: Tensor,
    *,
    nearer: Callable[[Outputs, Outputs], Tensor],
    outputs: tuple[Outputs, Outputs],
    count: Tensor,
) -> Tensor:
    """Pull encoded deltas towards the teacher's where its box is better: smooth-L1, summed and divided by `count`.

    `nearer` marks the positive priors, (N, P) bool, at which the teacher's box is nearer to the label than the
    student's, from the `outputs` of both.

    Shapes: deltas (N, P, D) twice, count scalar -> scalar, 0 or more.
    Source: Girshick 2015, Fast R-CNN, eq. 3, with the teacher as the target.
    """
    return smooth_l1(student, teacher, nearer(*outputs), count=count)


def smooth_l1(student: Tensor, teacher: Tensor, where: Tensor, *, count: Tensor) -> Tensor:
    """Sum the smooth-L1 distance over `where` and divide it by `count`.

    Shapes: deltas (N, P, D) twice, where (N, P) bool, count scalar -> scalar, 0 or more.
    """
    distance = F.smooth_l1_loss(student[where].float(), teacher.detach()[where].float(), reduction="sum")
    return distance / count


@register_loss("kl", layout="classes", softmax=1)
def kl(student: Tensor, teacher: Tensor, *, temperature: Temperature = 4.0, mask: Tensor | None = None) -> Tensor:
    """Match the teacher's distribution over classes.

    T^2 * mean over positions of KL(softmax(t / T) || softmax(s / T)); what is added to all logits makes no difference,
    a teacher scaled up is surer.

    Shapes: logits (N, C, ...) twice -> scalar, 0 or more.
    Source: Hinton et al. 2015, section 2.
    """
    s, t = _log_softmax(student, temperature), _log_softmax(teacher.detach(), temperature)
    return mean_over_positions((t.exp() * (t - s)).sum(dim=1), mask) * temperature**2


def refuse_two_classes(student: Sequence[int], _teacher: Sequence[int] = ()) -> None:
    """Raise for a problem of two classes, where decoupling has nothing to decouple.

    Errors: `UsageError` below three classes.
    """
    if student[1] <= 2:
        raise UsageError(
            "dkd needs three classes or more: with two, only one is left beside the label, so that its non-target term "
            "is always 0 and teaches nothing; use margin for a detector, kl for a classifier"
        )


@register_loss("dkd", layout="classes", softmax=1, check=refuse_two_classes)
def dkd(
    student: Tensor,
    teacher: Tensor,
    *,
    labels: Tensor,
    temperature: Temperature = 4.0,
    target: Weight = 1.0,
    rest: Weight = 8.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Match how sure the teacher is of the label and, apart, how it spreads what is left over the other classes.

    T^2 * mean over positions of target * KL over (label, not label) + rest * KL over the other classes among
    themselves. With the rest weighed by the teacher's 1 - p(label) the sum would be `kl`.

    Shapes: logits (N, C, ...) twice with C of 3 or more, labels (N, ...) int64 -> scalar, 0 or more.
    Errors: `UsageError` for two classes, and for labels of other positions.
    Source: Zhao et al. 2022, DKD, eq. 7.
    """
    refuse_two_classes(student.shape)
    positions = student.shape[:1] + student.shape[2:]
    if labels.shape != positions:
        raise UsageError(f"dkd takes the number of a class at {tuple(positions)}, got labels of {tuple(labels.shape)}")
    s, t = (as_rows(_log_softmax(x, temperature), mask) for x in (student, teacher.detach()))
    of_label = F.one_hot(labels.flatten() if mask is None else labels[mask], student.shape[1]).bool()
    others = [x[~of_label].view(len(x), x.shape[1] - 1) for x in (s, t)]
    s_sure, t_sure = (
        torch.stack([x[of_label], rest_of.logsumexp(dim=1)], dim=1) for x, rest_of in zip((s, t), others, strict=True)
    )
    s_rest, t_rest = (F.log_softmax(rest_of, dim=1) for rest_of in others)
    sure = (t_sure.exp() * (t_sure - s_sure)).sum(dim=1)
    spread = (t_rest.exp() * (t_rest - s_rest)).sum(dim=1)
    return mean_over_positions(target * sure + rest * spread, None) * temperature**2


def _margins(logits: Tensor) -> Tensor:
    logits = logits.float()
    return logits[..., 1] - logits[..., 0]


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(logits.float() / temperature, dim=1)
