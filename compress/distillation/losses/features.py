"""Distillation losses on feature maps, one level at a time.

No gradient reaches the teacher. Every loss is zero when the student equals the teacher. All of them compute
in float32, whatever they are given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.runtime.distributed import mean_over_processes

_STUDENT_EPS = 1e-6  # bounds the gradient of a channel that hardly varies
_TEACHER_EPS = 1e-12  # a teacher's scale must not matter, however small
_DEAD = 1e-6  # a channel whose variance is below this fraction of the mean channel's


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
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


def cwd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Match where each channel looks: the divergence of its softmax over space.

    T^2 / (N C) * sum over n, c of KL(softmax(t_nc / T) || softmax(s_nc / T)); what is added to a whole channel makes no
    difference, a teacher scaled up looks more sharply.

    Shapes: (N, C, H, W) twice -> scalar, 0 or more.
    Source: Shu et al. 2021, CWD, eq. 4 and 5.
    """
    s = F.log_softmax(student.float().flatten(2) / temperature, dim=-1)
    t = F.log_softmax(teacher.detach().float().flatten(2) / temperature, dim=-1)
    return (t.exp() * (t - s)).sum(dim=-1).mean() * temperature**2


def fitnets(student: Tensor, teacher: Tensor) -> Tensor:
    """Match the values themselves: the mean squared difference, so that the teacher's scale counts.

    Shapes: (N, C, H, W) twice -> scalar, 0 or more.
    Source: Romero et al. 2015, FitNets, eq. 3, as a mean.
    """
    return F.mse_loss(student.float(), teacher.detach().float())


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Match where the channels together are strong, whatever their number: no adapter is needed.

    With q the mean over channels of the squared features, flattened and divided by its norm:
    mean over images of |q_s - q_t|^2. A teacher scaled by a factor teaches the same.

    Shapes: (N, S, H, W) and (N, T, H, W) -> scalar in [0, 2].
    Source: Zagoruyko and Komodakis 2017, attention transfer, eq. 2 with p = 2, squared as in the authors' code.
    """
    s, t = (F.normalize(x.float().square().mean(dim=1).flatten(1), dim=1) for x in (student, teacher.detach()))
    return (s - t).square().sum(dim=1).mean()


def mgd(generated: Tensor, teacher: Tensor) -> Tensor:
    """Match what was generated from a masked student with the whole teacher: the mean squared difference.

    The masking and the generation are `adapters.MaskedGeneration`'s.

    Shapes: (N, C, H, W) twice -> scalar, 0 or more.
    Source: Yang et al. 2022, MGD, eq. 4, as a mean.
    """
    return fitnets(generated, teacher)


def random_mask(features: Tensor, *, masked: float, generator: torch.Generator) -> Tensor:
    """Draw which places of a map stay visible: 0 with probability `masked`, else 1, the same for all channels.

    The generator is the CPU's, so that every device masks alike.

    Shapes: (N, C, H, W) -> (N, 1, H, W).
    Source: Yang et al. 2022, MGD, eq. 2.
    """
    shape = (features.shape[0], 1, *features.shape[2:])
    return (torch.rand(shape, generator=generator) >= masked).to(features)


def fgd(
    student: Tensor,
    teacher: Tensor,
    *,
    foreground: Tensor,
    background: Tensor,
    temperature: float = 0.5,
    background_weight: float = 0.5,
    attention_weight: float = 1.0,
) -> Tensor:
    """Match values where it matters: objects and background apart, both weighed by the teacher's attention.

    With A the teacher's attention over space (mean 1 over places) and B over channels (mean 1 over channels), F and G
    the weights of foreground and background (each summing to at most 1 an object or image), w and v the two options:
    mean over images of sum over places and mean over channels of (F + w G) A B (s - t)^2, plus v times the mean
    absolute difference of student's and teacher's attentions. This is FGD's focal part only, normalised by sizes
    rather than by its tiny coefficients; its global part, a relation block, is not taken.

    Shapes: (N, C, H, W) twice, weights (N, H, W) -> scalar, 0 or more.
    Source: Yang et al. 2022, FGD, eq. 3 to 9.
    """
    s, t = student.float(), teacher.detach().float()
    (place_s, channel_s), (place_t, channel_t) = _attention(s, temperature), _attention(t, temperature)
    weight = (foreground + background_weight * background)[:, None] * place_t[:, None] * channel_t[..., None, None]
    values = (weight * (s - t).square()).sum(dim=(2, 3)).mean()
    attention = (place_s - place_t).abs().mean() + (channel_s - channel_t).abs().mean()
    return values + attention_weight * attention


def foreground_weights(
    boxes: Tensor, present: Tensor, *, image: Sequence[int], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Weigh the places of a map by what lies there: 1 / area in a box, the smallest where some overlap; 1 / rest else.

    A box covers at least the cell its centre lies in.

    Shapes: boxes (N, M, 4) corners in pixels of `image` (height, width), present (N, M) bool, `size` (H, W) ->
    foreground and background, (N, H, W) each.
    Source: Yang et al. 2022, FGD, eq. 3 and 4.
    """
    scale = boxes.new_tensor([size[1] / image[1], size[0] / image[0]] * 2)
    limit = boxes.new_tensor([size[1] - 1, size[0] - 1])
    scaled = boxes * scale
    low = torch.minimum(scaled[..., :2].floor().clamp(min=0), limit)
    high = torch.maximum(torch.minimum(scaled[..., 2:].ceil() - 1, limit), low)
    areas = (high - low + 1).prod(dim=-1)
    rows = torch.arange(size[0], device=boxes.device)[:, None]
    columns = torch.arange(size[1], device=boxes.device)
    inside = present[..., None, None]
    for axis, places in ((1, rows), (0, columns)):
        inside = inside & (places >= low[..., axis, None, None]) & (places <= high[..., axis, None, None])
    foreground = (inside / areas[..., None, None]).amax(dim=1)
    rest = foreground == 0
    return foreground, rest / rest.sum(dim=(1, 2), keepdim=True).clamp(min=1)


def _attention(x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return attention over places (N, H, W) and over channels (N, C), each with mean 1."""
    strength = x.abs()
    places = F.softmax(strength.mean(dim=1).flatten(1) / temperature, dim=1).view(len(x), *x.shape[2:])
    channels = F.softmax(strength.mean(dim=(2, 3)) / temperature, dim=1)
    return places * places[0].numel(), channels * channels.shape[1]


def _standardise(x: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Return channels with mean 0 and variance 1 over batch and space, (C, N * H * W), and their variance (C,).

    The batch is that of all processes.
    """
    rows = x.float().transpose(0, 1).flatten(1)
    rows = rows - mean_over_processes(rows.mean(dim=1, keepdim=True))
    variance = mean_over_processes(rows.square().mean(dim=1))
    return rows * torch.rsqrt(variance + eps)[:, None], variance
