"""Adapters: layers that bring a student's features to a teacher's width. They are not part of it."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.errors import UsageError

AdapterKind: TypeAlias = Literal["linear", "generation", "none", "any"]
Shape: TypeAlias = tuple[int, ...]
"""(N, C, H, W) of maps, (N, L, C) of tokens, (N, C) of vectors."""


class MaskedGeneration(nn.Module):
    """Generate a teacher's map from a masked map of the student: 1x1 adapter, mask, 3x3, ReLU, 3x3.

    Shapes: (N, S, H, W) and a mask (N, 1, H, W) -> (N, T, H, W).
    Parameters: S T + T, and 2 (9 T T + T).
    Source: Yang et al. 2022, MGD, section 3.2.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.adapter = nn.Conv2d(student, teacher, 1)
        self.generation = nn.Sequential(
            nn.Conv2d(teacher, teacher, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(teacher, teacher, 3, padding=1)
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Hide the places where the mask is 0 and generate the whole."""
        generated: Tensor = self.generation(self.adapter(features) * mask)
        return generated


class Adapters(nn.ModuleList):
    """One module per level: a 1x1 convolution for maps, a linear layer for tokens and vectors, or the identity.

    Shapes: L tensors of the student's shapes, and masks where levels are generated -> L tensors of the teacher's width.
    """

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor] = ()) -> list[Tensor]:
        """Bring each level to the teacher's width, on the device it is on."""
        for adapter, level in zip(self, levels, strict=True):
            adapter.to(level.device)  # the student may have moved since; weights stay the same objects for optimizers
        if masks:
            return [adapter(*pair) for adapter, *pair in zip(self, levels, masks, strict=True)]
        return [adapter(level) for adapter, level in zip(self, levels, strict=True)]


def build_adapters(student: Sequence[Shape], teacher: Sequence[Shape], *, name: str, kind: AdapterKind) -> Adapters:
    """Build the adapters between two taps from the shapes of their levels.

    `kind` is `linear` (one trained matrix per level), `generation` (MGD's), `none` (equal widths) or `any`
    (widths need not be equal).

    Shapes: maps (N, C, H, W), tokens (N, L, C) or vectors (N, C), the same kind on both sides.
    Parameters: sum of s_l * t_l + t_l; 5,544 from V2 (32) to V1 (56).
    Errors: `UsageError` that names the term and the level.
    """
    if len(student) != len(teacher):
        raise UsageError(
            f"the taps of {name} do not match: the student's has {len(student)} levels, the teacher's {len(teacher)}"
        )
    return Adapters(
        _adapter(s, t, where=f"level {number} of {name}", kind=kind)
        for number, (s, t) in enumerate(zip(student, teacher, strict=True), start=1)
    )


def _adapter(student: Shape, teacher: Shape, *, where: str, kind: AdapterKind) -> nn.Module:
    if len(student) != len(teacher):
        raise UsageError(f"{where}: the student gives {student} and the teacher {teacher}, which cannot be compared")
    if len(student) == 3 and student[1] != teacher[1]:
        raise UsageError(f"{where}: the student's {student[1]} tokens do not compare with the teacher's {teacher[1]}")
    maps = len(student) == 4
    s, t = (shape[1] if maps else shape[-1] for shape in (student, teacher))
    if kind == "generation":
        return MaskedGeneration(s, t)
    if kind == "linear":
        return nn.Conv2d(s, t, 1) if maps else nn.Linear(s, t)
    if kind == "none" and s != t:
        raise UsageError(
            f"{where}: without an adapter the student's {s} channels do not compare with the teacher's {t}"
        )
    return nn.Identity()


def match_sizes(teacher: Tensor, student: Tensor) -> Tensor:
    """Bring a teacher's map to the height and width of the student's: averaged where larger, else bilinear.

    Shapes: (N, T, h, w) and (N, S, H, W) -> (N, T, H, W).
    """
    size = (student.shape[2], student.shape[3])
    if teacher.shape[2:] == size:
        return teacher
    if all(t >= s for t, s in zip(teacher.shape[2:], size, strict=True)):
        return F.adaptive_avg_pool2d(teacher, size)
    return F.interpolate(teacher, size=size, mode="bilinear", align_corners=False)


def as_maps(features: Tensor) -> Tensor:
    """View vectors (N, C) as maps (N, C, 1, 1) and tokens (N, L, C) as maps (N, C, L, 1)."""
    if features.dim() == 2:
        return features[:, :, None, None]
    return features.transpose(1, 2)[..., None] if features.dim() == 3 else features


def describe(student: Shape, teacher: Shape) -> str:
    """Describe how a level of the student is compared with the teacher's."""
    widths = [shape[1] if len(shape) == 4 else shape[-1] for shape in (student, teacher)]
    text = f"{widths[0]} to {widths[1]} channels"
    if len(student) == 4 and student[2:] != teacher[2:]:
        larger = all(t >= s for t, s in zip(teacher[2:], student[2:], strict=True))
        theirs, ours = ("x".join(map(str, shape[2:])) for shape in (teacher, student))
        text += f", the teacher's {theirs} {'averaged' if larger else 'interpolated'} to {ours}"
    return text
