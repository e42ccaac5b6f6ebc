"""Lessons without the teacher's knowledge: what a loss gives whatever it is told."""

import torch
from torch import Tensor

from featherpress.compress.experiments.teacher_outputs import Lesson
from featherpress.compress.tasks.base import LabelContext, LossContext, PriorContext

_LEAST = 1e-6


def shuffled(lesson: Lesson) -> Lesson:
    """Give each image what the teacher says of another one of the batch: wrong knowledge, same losses."""
    return lesson.filled([tensor.roll(1, dims=0) for tensor in lesson.tensors()])


def smoothed(lesson: Lesson, context: LossContext) -> Lesson:
    """Put labels in the place of the teacher's logits, as sure as it is on average: no knowledge, as much smoothing.

    A detector's are as sure of faces as the teacher is over positive priors, and of background as it is over the rest.
    """
    logits = lesson.outputs["logits"]
    if isinstance(context, LabelContext):
        made = _of_labels(logits, context.labels)
    else:
        assert isinstance(context, PriorContext)
        made = _of_priors(logits, context.targets.positive)
    return Lesson(outputs={**lesson.outputs, "logits": made}, features=lesson.features)


def _of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Build logits (N, C) that give each label the mean probability, and the others the rest in equal parts."""
    right = logits.float().softmax(dim=1).gather(1, labels[:, None]).mean().clamp(_LEAST, 1 - _LEAST)
    made = ((1 - right) / (logits.shape[1] - 1)).log().expand(logits.shape).clone()
    return made.scatter(1, labels[:, None], right.log().expand(len(labels), 1)).to(logits.dtype)


def _of_priors(logits: Tensor, positive: Tensor) -> Tensor:
    """Build logits (N, P, 2) of background and face that are alike for all positives, and for all others."""
    face = logits.float().softmax(dim=2)[..., 1]
    faces, others = (face[mask].mean() if mask.any() else face.new_tensor(_LEAST) for mask in (positive, ~positive))
    chance = torch.where(positive, faces, others).clamp(_LEAST, 1 - _LEAST)
    return torch.stack([(1 - chance).log(), chance.log()], dim=2).to(logits.dtype)
