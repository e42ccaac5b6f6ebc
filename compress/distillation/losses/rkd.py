"""Relational distillation: how the examples of a batch lie to each other, whatever space they lie in."""

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.distillation.losses.bounds import Weight
from featherpress.compress.distillation.losses.registry import register_loss

_EPS = 1e-12


@register_loss("rkd", kind="features", adapter="any", over_batch=True)
def rkd(student: Tensor, teacher: Tensor, *, distance: Weight = 1.0, angle: Weight = 2.0) -> Tensor:
    """Match the distances between the examples of a batch, and the angles of all their triples.

    distance * mean over pairs of huber(d_s - d_t), with d divided by its mean over pairs, plus angle * mean over
    triples of huber(cos_s - cos_t), the N^3 of the authors' code, of which those that repeat an example are alike on
    both sides. Widths may differ: no adapter is needed. The batch is this process's.

    Shapes: (N, ...) twice, each flattened to vectors -> scalar, 0 or more; 0 for one example.
    Source: Park et al. 2019, RKD, eq. 4 to 9; weights of distance to angle as 1 to 2.
    """
    s, t = student.float().flatten(1), teacher.detach().float().flatten(1)
    if len(s) < 2:
        return 0 * s.sum()
    distances = F.smooth_l1_loss(_distances(s), _distances(t))
    angles = F.smooth_l1_loss(_angles(s), _angles(t))
    return distance * distances + angle * angles


def _distances(x: Tensor) -> Tensor:
    """Return the distances between all pairs of rows, divided by their mean; shapes: (N, D) -> (N (N - 1),)."""
    squares = (x[:, None] - x[None]).square().sum(dim=2)
    others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    found = (squares[others] + _EPS).sqrt()
    return found / found.mean()


def _angles(x: Tensor) -> Tensor:
    """Return the cosines at each row between all others; shapes: (N, D) -> (N, N, N)."""
    unit = F.normalize(x[None] - x[:, None], dim=2)
    return unit @ unit.transpose(1, 2)
