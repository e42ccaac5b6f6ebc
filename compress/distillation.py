"""A student's lessons: what is compared with the teacher, through which adapters, with what weight, and when."""

from dataclasses import dataclass
from itertools import starmap

import torch
from torch import Tensor, nn

from featherpress.compress.losses.distillation import (
    class_distillation,
    feature_distillation,
    regression_distillation,
)
from featherpress.compress.losses.matching import Targets, pairwise_iou
from featherpress.compress.recipes import DistillationRecipe
from featherpress.compress.teachers import Lesson
from featherpress.errors import UsageError
from featherpress.models.priors import decode_boxes

__all__ = ["Adapters", "distillation_terms", "ramp"]


class Adapters(nn.ModuleList):
    """One 1x1 convolution a level, from the student's width to the teacher's.

    They are trained beside the student, saved for resuming, and belong neither to it nor to its budget.

    Shapes: L tensors (N, s_l, H_l, W_l) -> L tensors (N, t_l, H_l, W_l).
    Parameters: sum of s_l * t_l + t_l; 5,544 from V2 (32) to V1 (56).
    Errors: `UsageError` when the taps have different numbers of levels.
    """

    def __init__(self, student_widths: list[int], teacher_widths: list[int]) -> None:
        if len(student_widths) != len(teacher_widths):
            raise UsageError(
                f"the taps do not match: the student's has {len(student_widths)} levels, the teacher's "
                f"{len(teacher_widths)}"
            )
        pairs = zip(student_widths, teacher_widths, strict=True)
        super().__init__(starmap(lambda s, t: nn.Conv2d(s, t, 1), pairs))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Bring each level to the teacher's width."""
        return [adapter(level) for adapter, level in zip(self, levels, strict=True)]


def ramp(step: int, *, total: int, recipe: DistillationRecipe) -> float:
    """Return the factor on all distillation terms: up from 0 over the ramp, 1, then 0 at the end."""
    if step >= total * (1 - recipe.stop):
        return 0.0
    return min(1.0, (step + 1) / max(recipe.ramp_steps, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentOutput:
    """What the student said: raw outputs as in MODELS, and its adapted features."""

    boxes: Tensor
    logits: Tensor
    landmarks: Tensor
    features: list[Tensor]


def distillation_terms(
    student: StudentOutput,
    lesson: Lesson,
    targets: Targets,
    *,
    negatives: Tensor,
    priors: Tensor,
    recipe: DistillationRecipe,
    count: Tensor,
) -> dict[str, Tensor]:
    """Compare a student with its teacher's lesson; each term is weighted, but not yet ramped.

    Classes over positives, mined negatives and what the teacher scores above `teacher_score`; boxes and landmarks on
    positives where the teacher's box is nearer to the label than the student's.

    Shapes: outputs (N, P, ...), priors (P, 4), negatives (N, P) bool, count scalar -> scalars by name.
    """
    teacher_score = lesson.logits.float().softmax(dim=-1)[..., 1]
    where = targets.positive | negatives | ((teacher_score > recipe.teacher_score) & targets.negative)
    better = _teacher_is_nearer(student.boxes, lesson.boxes, targets, priors)
    pairs = zip(student.features, lesson.features, strict=True)
    features = torch.stack([feature_distillation(s, t) for s, t in pairs]).mean()
    classes = class_distillation(student.logits, lesson.logits, where, count=count, temperature=recipe.temperature)
    box = regression_distillation(student.boxes, lesson.boxes, better, count=count)
    landmark = regression_distillation(student.landmarks, lesson.landmarks, better, count=count)
    return {
        "kd_feature": recipe.feature * features,
        "kd_class": recipe.classification * classes,
        "kd_box": recipe.box * box,
        "kd_landmark": recipe.landmark * landmark,
    }


def _teacher_is_nearer(student: Tensor, teacher: Tensor, targets: Targets, priors: Tensor) -> Tensor:
    """Mark the positives whose label the teacher's box overlaps more than the student's; (N, P) bool."""
    nearer = torch.zeros_like(targets.positive)
    rows, columns = targets.positive.nonzero(as_tuple=True)
    own = priors[columns]
    label = decode_boxes(targets.boxes[rows, columns], own)[:, None]

    def overlap(deltas: Tensor) -> Tensor:
        boxes = decode_boxes(deltas.detach()[rows, columns].float(), own)
        return pairwise_iou(boxes[:, None], label)[:, 0, 0]

    nearer[rows, columns] = overlap(teacher) > overlap(student)
    return nearer
