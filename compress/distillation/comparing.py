"""One term between a student and one of its teachers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.distillation.adapters import as_maps, match_sizes
from featherpress.compress.distillation.losses.features import random_mask
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.distillation.terms import Features, Logits, Term
from featherpress.errors import UsageError


class Pair(NamedTuple):
    """What a term's loss is called with, at one level: its share of the term, both sides, and the loss's keywords."""

    share: float
    student: Tensor
    teacher: Tensor
    keywords: Mapping[str, Any]


def adapt_levels(term: Features, adapt: Any, levels: Sequence[Tensor], *, seed: int) -> list[Tensor]:
    """Bring a student's levels to the teacher's width, or generate them from the places that a drawn mask leaves."""
    floats, hidden = [level.float() for level in levels], []
    if term.entry.adapter == "generation":
        generator = torch.Generator().manual_seed(seed)
        hidden = [random_mask(level, masked=term.options["masked"], generator=generator) for level in floats]
    adapted: list[Tensor] = adapt(floats, hidden)
    return adapted


def pair_features(
    name: str,
    term: Features,
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    keywords: Mapping[str, Any],
    mask: Tensor | None,
) -> list[Pair]:
    """Pair adapted levels with the teacher's, by the levels' weights.

    Errors: `UsageError` for other numbers of examples, and for a mask that does not fit.
    """
    weights = term.levels or (1.0,) * len(student)
    pairs = []
    for weight, s, t in zip(weights, student, teacher, strict=True):
        if len(s) != len(t):
            raise UsageError(f"{name}: the student has {len(s)} examples, the teacher {len(t)}")
        options = dict(keywords)
        ours, theirs = as_maps(s), as_maps(t.to(s.device))
        if mask is not None and s.dim() > 2:  # a vector has no positions
            options["mask"] = _mask_of(name, term, mask, ours)
        pairs.append(Pair(weight, ours, match_sizes(theirs.float(), ours), options))
    return pairs


def pair_outputs(
    name: str,
    term: Logits,
    ours: Outputs,
    theirs: Outputs,
    *,
    keywords: Mapping[str, Any],
    context: Mapping[str, Any],
) -> Pair:
    """Pair outputs, with the positions that count.

    Errors: `UsageError` for outputs that are not there or differ in shape, and for a mask that the loss does not take.
    """
    if term.output not in ours:
        raise UsageError(f"{name} compares outputs: step.loss(outputs, ...) with what the student returned")
    if term.output not in theirs:
        raise UsageError(f"{name}: `teacher_outputs` has no {term.output!r}; it has {', '.join(theirs) or 'none'}")
    s, t = ours[term.output], theirs[term.output].to(ours[term.output].device)
    if s.shape != t.shape:
        raise UsageError(f"{name}: the student's {tuple(s.shape)} do not compare with the teacher's {tuple(t.shape)}")
    mask = kept_positions(term, s, context)
    if mask is not None:
        _require_mask(name, term)
        keywords = {**keywords, "mask": mask}
    return Pair(1.0, s.float(), t.float(), keywords)


def _require_mask(name: str, term: Term) -> None:
    if not term.entry.takes("mask"):
        raise UsageError(f"{name}: {term.entry.name} takes no mask; leave out what is not to count beforehand")


def kept_positions(term: Logits, logits: Tensor, context: Mapping[str, Any]) -> Tensor | None:
    """Return which positions (N, ...) count; None where all of them do."""
    positions = logits.shape[:1] + logits.shape[2:]
    mask, labels = context.get("mask"), context.get("labels")
    about_places = mask is not None and mask.dim() > 1 and logits.dim() == 2  # of tokens, where each text has a class
    kept = None if mask is None or about_places else mask.bool()
    if kept is not None and kept.shape != positions:
        raise UsageError(f"a mask of {tuple(kept.shape)} does not fit logits of {tuple(logits.shape)}")
    if isinstance(labels, Tensor) and labels.shape == positions:
        counted = labels != term.ignore_index
        if not counted.all():
            kept = counted if kept is None else kept & counted
    elif isinstance(labels, Tensor) and labels.dim() == len(positions):
        last = term.entry.layout == "classes" and labels.shape == logits.shape[:-1]
        if last or (labels == term.ignore_index).any():
            raise UsageError(
                f"labels of {tuple(labels.shape)} do not fit logits of {tuple(logits.shape)}, whose classes lie on "
                "axis 1"
            )
    return kept


def _mask_of(name: str, term: Features, mask: Tensor, level: Tensor) -> Tensor:
    """Bring a mask (N, L) of tokens or (N, H, W) of pixels to a level's places, (N, 1, H, W) bool."""
    _require_mask(name, term)
    if mask.dim() == 3:
        size = (level.shape[2], level.shape[3])
        return F.interpolate(mask[:, None].float(), size=size, mode="nearest").bool()
    if mask.shape != (level.shape[0], level.shape[2]):
        raise UsageError(f"{name}: a mask of {tuple(mask.shape)} does not fit features of {tuple(level.shape)}")
    return mask.bool()[:, None, :, None]
