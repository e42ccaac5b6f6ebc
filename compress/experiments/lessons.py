"""Lessons: which terms compare a student with which teacher, through which adapters, with what weight, and when."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.compress.distillation.adapters import Adapters, as_maps, match_sizes
from featherpress.compress.distillation.losses.features import (
    attention_transfer,
    cwd,
    fgd,
    fitnets,
    foreground_weights,
    mgd,
    pkd,
    random_mask,
)
from featherpress.compress.distillation.losses.outputs import dkd, kl, margin, regression
from featherpress.compress.distillation.taps import Tap
from featherpress.compress.experiments.placebos import shuffled, smoothed
from featherpress.compress.experiments.teacher_outputs import Lesson, Teacher
from featherpress.compress.recipes import DistillationRecipe
from featherpress.compress.recipes.terms import (
    AttentionTerm,
    CwdTerm,
    DkdTerm,
    FeatureTerm,
    FgdTerm,
    FitnetsTerm,
    KlTerm,
    MarginTerm,
    MgdTerm,
    PkdTerm,
    RegressionTerm,
    Term,
)
from featherpress.compress.tasks.base import LabelContext, LossContext, Outputs, PriorContext
from featherpress.compress.tasks.detection.assignment import pairwise_iou
from featherpress.models.priors import decode_boxes

Features = Mapping[str, list[Tensor]]
"""What taps caught, by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tutor:
    """A teacher attached to one student: its weight among several, and the taps and adapters of each feature term."""

    teacher: Teacher
    weight: float = 1.0
    taps: Mapping[str, str]
    adapters: Mapping[str, Adapters]


class Lessons:
    """All that a student learns from its teachers.

    Terms that weigh nothing are left out. `scale` multiplies everything: with 0 all is computed and nothing counts,
    which must be plain training, bit for bit. A `placebo` keeps the losses and takes the knowledge out.
    """

    def __init__(
        self, recipe: DistillationRecipe, tutors: Sequence[Tutor], *, scale: float = 1.0, placebo: str = ""
    ) -> None:
        self.recipe, self.tutors, self.scale, self.placebo = recipe, tuple(tutors), scale, placebo
        self.terms: dict[str, Term] = {name: term for name, term in recipe.losses.items() if term.weight}
        # Names of terms may be those of a module's methods.
        self.adapters = nn.ModuleList(
            nn.ModuleDict({f"kd_{name}": part for name, part in tutor.adapters.items()}) for tutor in self.tutors
        )
        self._calls: dict[tuple[int, str], Any] = {}
        self._taps: dict[str, Tap] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The names under which terms are logged."""
        return tuple(f"kd_{name}" for name in self.terms)

    def prepare(self, accelerator: Any) -> list[Any]:
        """Put the adapters on the run's device and under whatever synchronises their gradients; return these."""
        self.adapters.to(accelerator.device)
        for number, tutor in enumerate(self.tutors):
            for name, part in tutor.adapters.items():
                trained = any(weight.requires_grad for weight in part.parameters())
                # One wrapper a term: terms may be off at different times, and DDP wants all of a module or nothing.
                if trained:
                    self._calls[number, name] = accelerator.prepare(part)
        return list(self._calls.values())

    @contextmanager
    def open(self, student: nn.Module) -> Iterator[None]:
        """Keep hooks on the student's tapped modules while the context lasts."""
        paths = {term.student for term in self.terms.values() if isinstance(term, FeatureTerm)}
        with ExitStack() as stack:
            self._taps = {path: stack.enter_context(Tap(student, path).open()) for path in sorted(paths)}
            yield
        self._taps = {}

    def take(self) -> Features:
        """Return what the student's taps caught in the last forward."""
        return {path: tap.take() for path, tap in self._taps.items()}

    def ask(self, batch: Any, *, step: int, total: int) -> dict[int, Lesson]:
        """Run the teachers whose turn it is; none if every term is off.

        Call it before the student's forward, so that the student's activations are not held meanwhile.
        """
        if not self._active(step, total):
            return {}
        lessons = {number: self.tutors[number].teacher.teach(batch) for number in self._shares(step, total)}
        if self.placebo == "shuffled":
            return {number: shuffled(lesson) for number, lesson in lessons.items()}
        return lessons

    def compare(
        self,
        outputs: Outputs,
        features: Features,
        lessons: Mapping[int, Lesson],
        context: LossContext,
        *,
        step: int,
        total: int,
    ) -> dict[str, Tensor]:
        """Compare a student with its teachers at a step; terms are weighted and ramped, those that are off left out.

        Several teachers: the mean of their terms by weight or, one after the other, those of the one whose turn it is.
        """
        active, shares = self._active(step, total), self._shares(step, total)
        sums: dict[str, Tensor] = {}
        for number, lesson in lessons.items():
            tutor = self.tutors[number]
            if self.placebo == "smoothing":
                lesson = smoothed(lesson, context)  # noqa: PLW2901
            nearer = cache(partial(_teacher_is_nearer, outputs, lesson.outputs, context))
            for name, factor in active.items():
                term = self.terms[name]
                levels: list[tuple[Tensor, Tensor]] = []
                if isinstance(term, FeatureTerm):
                    adapt = self._calls.get((number, name), tutor.adapters[name])
                    seed = zlib.crc32(f"{number} {name} {step}".encode())
                    adapted = _adapt(term, adapt, features[term.student], seed=seed)
                    levels = _pair(adapted, lesson.features[tutor.taps[name]])
                value = _compare(term, outputs, lesson.outputs, levels, context, nearer=nearer)
                weighted = self.scale * factor * term.weight * shares[number] * value
                sums[name] = sums[name] + weighted if name in sums else weighted
        return {f"kd_{name}": value for name, value in sums.items()}

    def _active(self, step: int, total: int) -> dict[str, float]:
        """Name the terms that are on at a step, with their factors."""
        factors = {name: term_factor(term, self.recipe, step=step, total=total) for name, term in self.terms.items()}
        return {name: factor for name, factor in factors.items() if factor > 0}

    def ramp(self, step: int, total: int) -> float:
        """Return the factor that a term without times of its own has at a step."""
        return ramp(step, total=total, ramp_steps=self.recipe.ramp_steps, stop=self.recipe.stop)

    def _shares(self, step: int, total: int) -> dict[int, float]:
        """Return which teachers are active at a step, and with what share."""
        weights = [tutor.weight for tutor in self.tutors]
        ends = [sum(weights[: number + 1]) / sum(weights) for number in range(len(weights))]
        if self.recipe.teaching == "sequential":
            turn = next((number for number, end in enumerate(ends) if step < round(end * total)), len(ends) - 1)
            return {turn: 1.0}
        return {number: weight / sum(weights) for number, weight in enumerate(weights)}


def _adapt(term: FeatureTerm, adapt: Any, levels: list[Tensor], *, seed: int) -> list[Tensor]:
    """Bring a student's levels to the teacher's width, or generate them from the places that a drawn mask leaves."""
    if isinstance(term, MgdTerm):
        generator = torch.Generator().manual_seed(seed)
        masks = [random_mask(level, masked=term.masked, generator=generator) for level in levels]
        generated: list[Tensor] = adapt(levels, masks)
        return generated
    adapted: list[Tensor] = adapt(levels)
    return adapted


def _pair(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pair levels as maps of one size."""
    pairs = zip(map(as_maps, student), map(as_maps, teacher), strict=True)
    return [(s, match_sizes(t, s)) for s, t in pairs]


def ramp(step: int, *, total: int, ramp_steps: int, start: float = 0.0, stop: float = 0.0) -> float:
    """Return a factor over the steps: 0 until `start`, up over the ramp, 1, then 0 at the end."""
    first = round(total * start)
    if step < first or step >= total * (1 - stop):
        return 0.0
    return min(1.0, (step - first + 1) / max(ramp_steps, 1))


def term_factor(term: Term, recipe: DistillationRecipe, *, step: int, total: int) -> float:
    """Return the factor of one term, which may have times of its own."""
    return ramp(
        step,
        total=total,
        start=term.start,
        ramp_steps=recipe.ramp_steps if term.ramp_steps is None else term.ramp_steps,
        stop=recipe.stop if term.stop is None else term.stop,
    )


def _compare(
    term: Term,
    student: Outputs,
    teacher: Outputs,
    levels: Sequence[tuple[Tensor, Tensor]],
    context: LossContext,
    *,
    nearer: Callable[[], Tensor],
) -> Tensor:
    """Compute one term, not yet weighted; `nearer` marks where the teacher's box is better than the student's."""
    if isinstance(term, FeatureTerm):
        weights = term.levels or (1.0,) * len(levels)
        values = [weight * _compare_maps(term, s, t, context) for weight, (s, t) in zip(weights, levels, strict=True)]
        return torch.stack(values).sum() / sum(weights)
    if isinstance(context, PriorContext):
        return _compare_priors(term, student, teacher, context, nearer)
    return _compare_logits(term, student["logits"], teacher["logits"], context)


def _compare_maps(term: FeatureTerm, student: Tensor, teacher: Tensor, context: LossContext) -> Tensor:
    match term:
        case PkdTerm():
            return pkd(student, teacher)
        case CwdTerm():
            return cwd(student, teacher, temperature=term.temperature)
        case FitnetsTerm():
            return fitnets(student, teacher)
        case AttentionTerm():
            return attention_transfer(student, teacher)
        case MgdTerm():
            return mgd(student, teacher)
        case FgdTerm():
            assert isinstance(context, PriorContext)
            size = (student.shape[2], student.shape[3])
            foreground, background = foreground_weights(context.boxes, context.present, image=context.image, size=size)
            return fgd(
                student,
                teacher,
                foreground=foreground,
                background=background,
                temperature=term.temperature,
                background_weight=term.background,
                attention_weight=term.attention,
            )
    raise AssertionError(f"no comparison of maps for {term.loss}")


def _compare_priors(
    term: Term, student: Outputs, teacher: Outputs, context: PriorContext, nearer: Callable[[], Tensor]
) -> Tensor:
    """Compare a detector's outputs.

    Classes over positives, mined negatives and what the teacher scores above `teacher_score`; boxes and landmarks on
    positives where the teacher's box is nearer to the label than the student's.
    """
    targets, count = context.targets, context.count
    if isinstance(term, MarginTerm):
        sure = teacher["logits"].float().softmax(dim=-1)[..., 1] > term.teacher_score
        where = targets.positive | context.negatives | (sure & targets.negative)
        return margin(student["logits"], teacher["logits"], where, count=count, temperature=term.temperature)
    assert isinstance(term, RegressionTerm)
    return regression(student[term.output], teacher[term.output], nearer(), count=count)


def _compare_logits(term: Term, student: Tensor, teacher: Tensor, context: LabelContext) -> Tensor:
    if isinstance(term, KlTerm):
        return kl(student, teacher, temperature=term.temperature)
    assert isinstance(term, DkdTerm)
    return dkd(student, teacher, context.labels, temperature=term.temperature, target=term.target, rest=term.rest)


def _teacher_is_nearer(student: Outputs, teacher: Outputs, context: LossContext) -> Tensor:
    """Mark the positives where the teacher's box overlaps the label more than the student's does; (N, P) bool."""
    assert isinstance(context, PriorContext)
    targets = context.targets
    nearer = torch.zeros_like(targets.positive)
    rows, columns = targets.positive.nonzero(as_tuple=True)
    own = targets.priors[columns]
    label = decode_boxes(targets.boxes[rows, columns], own)[:, None]

    def overlap(deltas: Tensor) -> Tensor:
        boxes = decode_boxes(deltas.detach()[rows, columns].float(), own)
        return pairwise_iou(boxes[:, None], label)[:, 0, 0]

    nearer[rows, columns] = overlap(teacher["boxes"]) > overlap(student["boxes"])
    return nearer
