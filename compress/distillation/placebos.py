"""A teacher's outputs without its knowledge: what a loss gives whatever it is told."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from featherpress.compress.distillation.teachers import TeacherOutputs
from featherpress.errors import UsageError

Placebo = Literal["shuffled", "smoothing", "compute"]
"""Arms without the teacher's knowledge; the last is the control, trained for as long as the teacher costs."""

PLACEBOS: tuple[Placebo, ...] = get_args(Placebo)

_LEAST = 1e-6


def shuffled(outputs: TeacherOutputs) -> TeacherOutputs:
    """Give each example what the teacher says of another one of the batch: wrong knowledge, same losses."""
    return outputs.filled([tensor.roll(1, dims=0) for tensor in outputs.tensors()])


def smoothed(outputs: TeacherOutputs, context: Mapping[str, Any]) -> TeacherOutputs:
    """Put labels in the place of the teacher's logits, as sure as it is on average: no knowledge, as much smoothing.

    With `labels` in the context for classes, with `positive` for the priors of a detector, which is then as sure of
    faces as the teacher is over positive priors, and of background as it is over the rest.

    Errors: `UsageError` where the context has neither.
    """
    logits = outputs.outputs["logits"]
    if "positive" in context:
        made = _of_priors(logits, context["positive"])
    elif "labels" in context:
        made = _of_labels(logits, context["labels"])
    else:
        raise UsageError("smoothing needs the labels: step.loss(outputs, labels=...)")
    return TeacherOutputs(outputs={**outputs.outputs, "logits": made}, features=outputs.features)


def _of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Build logits (N, C, ...) that give each label the mean probability, and the others the rest in equal parts."""
    index = labels.clamp(min=0)[:, None]
    right = logits.float().softmax(dim=1).gather(1, index).mean().clamp(_LEAST, 1 - _LEAST)
    made = ((1 - right) / (logits.shape[1] - 1)).log().expand(logits.shape).clone()
    return made.scatter(1, index, right.log().expand(index.shape)).to(logits.dtype)


def _of_priors(logits: Tensor, positive: Tensor) -> Tensor:
    """Build logits (N, P, 2) of background and face that are alike for all positives, and for all others."""
    face = logits.float().softmax(dim=2)[..., 1]
    faces, others = (face[mask].mean() if mask.any() else face.new_tensor(_LEAST) for mask in (positive, ~positive))
    chance = torch.where(positive, faces, others).clamp(_LEAST, 1 - _LEAST)
    return torch.stack([(1 - chance).log(), chance.log()], dim=2).to(logits.dtype)
