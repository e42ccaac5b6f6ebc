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


def smoothed(outputs: TeacherOutputs, context: Mapping[str, Any], *, kept: Tensor | None = None) -> TeacherOutputs:
    """Put labels in the place of the teacher's logits, as sure as it is on average: no knowledge, as much smoothing.

    With `labels` in the context for classes, over the positions that are `kept`, all of them without it; with
    `positive` and `negative` for the priors of a detector, which is then as sure of faces as the teacher is over
    positive priors, and of background as it is over negative ones.

    Shapes: kept (N, ...) bool.
    Errors: `UsageError` where the context has neither.
    """
    logits = outputs.outputs["logits"]
    if "positive" in context:
        made = _of_priors(logits, context["positive"], context.get("negative", ~context["positive"]))
    elif "labels" in context:
        made = _of_labels(logits, context["labels"], kept)
    else:
        raise UsageError("smoothing needs the labels: step.loss(outputs, labels=...)")
    return TeacherOutputs(outputs={**outputs.outputs, "logits": made}, features=outputs.features)


def _of_labels(logits: Tensor, labels: Tensor, kept: Tensor | None) -> Tensor:
    """Build logits (N, C, ...) that give each label the mean probability, and the others the rest in equal parts."""
    index = labels.clamp(0, logits.shape[1] - 1)[:, None]  # of labels that are ignored too, which are none
    chances = logits.float().softmax(dim=1).gather(1, index)
    right = _mean_over(chances[:, 0], torch.ones_like(labels, dtype=torch.bool) if kept is None else kept)
    made = ((1 - right) / (logits.shape[1] - 1)).log().expand(logits.shape).clone()
    return made.scatter(1, index, right.log().expand(index.shape)).to(logits.dtype)


def _of_priors(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Build logits (N, P, 2) of background and face that are alike for all positives, and for all others."""
    face = logits.float().softmax(dim=2)[..., 1]
    chance = torch.where(positive, _mean_over(face, positive), _mean_over(face, negative))
    return torch.stack([(1 - chance).log(), chance.log()], dim=2).to(logits.dtype)


def _mean_over(chances: Tensor, mask: Tensor) -> Tensor:
    mean = chances[mask].mean() if mask.any() else chances.new_zeros(())
    return mean.clamp(_LEAST, 1 - _LEAST)
