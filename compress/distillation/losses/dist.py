"""DIST: the teacher's correlations over classes and over the batch, whatever its scale."""

from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.distillation.losses.bounds import Temperature, Weight
from featherpress.compress.distillation.losses.positions import as_rows
from featherpress.compress.distillation.losses.registry import register_loss

_EPS = 1e-8


@register_loss("dist", layout="classes", softmax=1, over_batch=True)
def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: Temperature = 4.0,
    inter: Weight = 1.0,
    intra: Weight = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Match how the teacher ranks classes for an example, and examples for a class, by Pearson's correlation.

    T^2 * (inter * mean over positions of (1 - r over classes) + intra * mean over classes of (1 - r over positions)),
    with r between softmax(s / T) and softmax(t / T). The positions are those of this process's batch.

    Shapes: logits (N, C, ...) twice, mask (N, ...) bool -> scalar in [0, 2 T^2 (inter + intra)].
    Source: Huang et al. 2022, DIST, eq. 6 to 9; T^2 as in the authors' code.
    """
    s, t = (as_rows(F.softmax(x.float() / temperature, dim=1), mask) for x in (student, teacher.detach()))
    if not len(s):
        return 0 * student.float().sum()
    value = inter * (1 - _pearson(s, t).mean())
    if len(s) > 1:  # one position has no relation to others
        value = value + intra * (1 - _pearson(s.T, t.T).mean())
    return value * temperature**2


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    """Return the correlation of each row of x with that of y; shapes: (M, K) twice -> (M,)."""
    x, y = (each - each.mean(dim=1, keepdim=True) for each in (x, y))
    return F.cosine_similarity(x, y, dim=1, eps=_EPS)
