"""Distillation losses on feature maps, one level at a time.

No gradient reaches the teacher. Every loss is zero when the student equals the teacher. All of them compute
in float32, whatever they are given. A `mask` (N, 1, H, W) bool says which places count, all unless given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.distillation.losses.bounds import Share, Temperature, Weight
from featherpress.compress.distillation.losses.positions import mean_over_positions
from featherpress.compress.distillation.losses.registry import register_loss
from featherpress.compress.runtime.distributed import mean_over_processes

_STUDENT_EPS = 1e-6  # bounds the gradient of a channel that hardly varies
_TEACHER_EPS = 1e-12  # a teacher's scale must not matter, however small
_NOWHERE = torch.finfo(torch.float32).min / 4  # a logit whose softmax is 0, and which stays finite in differences
_DEAD = 1e-6  # a channel whose variance is below this fraction of the mean channel's


@register_loss("pkd", kind="features", over_batch=True)
def pkd(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Match the pattern of every channel, whatever its scale: half the squared difference of standardised features.

    mean over channels of (1 - Pearson r); channels in which the teacher hardly varies are left out.

    Shapes: (N, C, H, W) twice -> scalar in [0, 2].
    Source: Cao et al. 2022, PKD, eq. 4.
    """
    keep = None if mask is None else mask.flatten()
    s, _ = _standardise(student, keep, eps=_STUDENT_EPS)
    t, variance = _standardise(teacher.detach(), keep, eps=_TEACHER_EPS)
    alive = variance > _DEAD * variance.mean()
    distance = _mean_of_rows((s - t).square(), keep)[:, 0] / 2
    return (distance * alive).sum() / alive.sum().clamp(min=1)


@register_loss("cwd", kind="features", maps=True)
def cwd(student: Tensor, teacher: Tensor, *, temperature: Temperature = 4.0, mask: Tensor | None = None) -> Tensor:
    """Match where each channel looks: the divergence of its softmax over space.

    T^2 / (N C) * sum over n, c of KL(softmax(t_nc / T) || softmax(s_nc / T)); what is added to a whole channel makes no
    difference, a teacher scaled up looks more sharply.

    Shapes: (N, C, H, W) twice -> scalar, 0 or more.
    Source: Shu et al. 2021, CWD, eq. 4 and 5.
    """
    pair = [x.float() / temperature for x in (student, teacher.detach())]
    if mask is not None:
        pair = [x.masked_fill(~mask, _NOWHERE) for x in pair]
    s, t = (F.log_softmax(x.flatten(2), dim=-1) for x in pair)
    return _mean_of_images((t.exp() * (t - s)).sum(dim=-1), mask) * temperature**2


@register_loss("fitnets", kind="features")
def fitnets(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Match the values themselves: the mean squared difference, so that the teacher's scale counts.

    Shapes: (N, C, H, W) twice -> scalar, 0 or more.
    Source: Romero et al. 2015, FitNets, eq. 3, as a mean.
    """
    if mask is None:
        return F.mse_loss(student.float(), teacher.detach().float())
    squares = (student.float() - teacher.detach().float()).square().mean(dim=1, keepdim=True)
    return mean_over_positions(squares, mask)


@register_loss("attention", kind="features", adapter="any", maps=True)
def attention_transfer(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Match where the channels together are strong, whatever their number: no adapter is needed.

    With q the mean over channels of the squared features, flattened and divided by its norm:
    mean over images of |q_s - q_t|^2. A teacher scaled by a factor teaches the same.

    Shapes: (N, S, H, W) and (N, T, H, W) -> scalar in [0, 2].
    Source: Zagoruyko and Komodakis 2017, attention transfer, eq. 2 with p = 2, squared as in the authors' code.
    """
    strengths = [x.float().square().mean(dim=1) for x in (student, teacher.detach())]
    if mask is not None:
        strengths = [x * mask[:, 0] for x in strengths]
    s, t = (F.normalize(x.flatten(1), dim=1) for x in strengths)
    return _mean_of_images((s - t).square().sum(dim=1), mask)


@register_loss("mgd", kind="features", adapter="generation", maps=True)
def mgd(generated: Tensor, teacher: Tensor, *, masked: Share = 0.65, mask: Tensor | None = None) -> Tensor:
    """Match what was generated from a masked student with the whole teacher: the mean squared difference.

    The masking, of the share `masked` of all places, and the generation are `adapters.MaskedGeneration`'s.

    Shapes: (N, C, H, W) twice -> scalar, 0 or more.
    Source: Yang et al. 2022, MGD, eq. 4, as a mean.
    """
    del masked
    return fitnets(generated, teacher, mask=mask)


def random_mask(features: Tensor, *, masked: float, generator: torch.Generator) -> Tensor:
    """Draw which places of a map stay visible: 0 with probability `masked`, else 1, the same for all channels.

    The generator is the CPU's, so that every device masks alike.

    Shapes: (N, C, H, W) -> (N, 1, H, W).
    Source: Yang et al. 2022, MGD, eq. 2.
    """
    shape = (features.shape[0], 1, *features.shape[2:])
    return (torch.rand(shape, generator=generator) >= masked).to(features)


@register_loss("fgd", kind="features", maps=True)
def fgd(
    student: Tensor,
    teacher: Tensor,
    *,
    boxes: Tensor,
    present: Tensor,
    image: Sequence[int],
    temperature: Temperature = 0.5,
    background: Weight = 0.5,
    attention: Weight = 1.0,
) -> Tensor:
    """Match values where it matters: objects and background apart, both weighed by the teacher's attention.

    `background` and `attention` weigh two parts against the foreground's 1; see `weighted_fgd`.

    Shapes: (N, C, H, W) twice; boxes (N, M, 4) corners in pixels of `image` (height, width), present (N, M) bool ->
    scalar, 0 or more.
    Source: Yang et al. 2022, FGD, eq. 3 to 9.
    """
    size = (student.shape[2], student.shape[3])
    places = foreground_weights(boxes, present, image=image, size=size)
    return weighted_fgd(
        student,
        teacher,
        foreground=places[0],
        background=places[1],
        temperature=temperature,
        background_weight=background,
        attention_weight=attention,
    )


def weighted_fgd(
    student: Tensor,
    teacher: Tensor,
    *,
    foreground: Tensor,
    background: Tensor,
    temperature: float = 0.5,
    background_weight: float = 0.5,
    attention_weight: float = 1.0,
) -> Tensor:
    """Match values by the weights of foreground and background, and by the teacher's attention.

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


def _mean_of_images(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average values (N, ...) over the images of which a mask keeps something; 0 where it keeps nothing."""
    if mask is None:
        return values.mean()
    seen = mask.flatten(1).any(dim=1)
    return (values.reshape(len(values), -1).mean(dim=1) * seen).sum() / seen.sum().clamp(min=1)


def _attention(x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return attention over places (N, H, W) and over channels (N, C), each with mean 1."""
    strength = x.abs()
    places = F.softmax(strength.mean(dim=1).flatten(1) / temperature, dim=1).view(len(x), *x.shape[2:])
    channels = F.softmax(strength.mean(dim=(2, 3)) / temperature, dim=1)
    return places * places[0].numel(), channels * channels.shape[1]


def _standardise(x: Tensor, keep: Tensor | None, *, eps: float) -> tuple[Tensor, Tensor]:
    """Return channels with mean 0 and variance 1 over batch and space, (C, N * H * W), and their variance (C,).

    The batch is that of all processes. Where `keep` (N * H * W,) is False nothing counts.
    """
    rows = x.float().transpose(0, 1).flatten(1)
    rows = rows - _mean_over_all(rows, keep)
    variance = _mean_over_all(rows.square(), keep)[:, 0]
    return rows * torch.rsqrt(variance + eps)[:, None], variance


def _mean_over_all(rows: Tensor, keep: Tensor | None) -> Tensor:
    """Average rows (C, M) over the kept columns of all processes, (C, 1)."""
    if keep is None:
        return mean_over_processes(rows.mean(dim=1, keepdim=True))
    total = mean_over_processes((rows * keep).sum(dim=1, keepdim=True))
    return total / mean_over_processes(keep.sum().to(rows)).clamp(min=1e-6)


def _mean_of_rows(rows: Tensor, keep: Tensor | None) -> Tensor:
    """Average rows (C, M) over the kept columns, (C, 1)."""
    if keep is None:
        return rows.mean(dim=1, keepdim=True)
    return (rows * keep).sum(dim=1, keepdim=True) / keep.sum().clamp(min=1)
