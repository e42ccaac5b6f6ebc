"""A recipe's distillation: its terms and schedule in steps, on a Distiller."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import Tensor

from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.losses.registry import find_loss
from featherpress.compress.distillation.step import Step
from featherpress.compress.distillation.terms import Features, Logits, Term
from featherpress.compress.experiments.teacher_outputs import CachedTeacher
from featherpress.compress.recipes import DistillationRecipe
from featherpress.compress.recipes.terms import FeatureTerm, output_of
from featherpress.compress.recipes.terms import Term as RecipeTerm

_LONGEST_RAMP = 1000


class RecipeDistiller:
    """A Distiller with a recipe's schedule, and teachers whose outputs may be cached.

    `caches` are by the teacher's name. `scale` multiplies everything: with 0 all is computed and nothing counts, which
    must be plain training, bit for bit.
    """

    def __init__(
        self,
        recipe: DistillationRecipe,
        kd: Distiller,
        *,
        caches: Mapping[str, CachedTeacher] | None = None,
        scale: float = 1.0,
    ) -> None:
        self.recipe, self.kd, self.caches, self.scale = recipe, kd, caches or {}, scale

    @property
    def columns(self) -> tuple[str, ...]:
        """The names under which terms are logged."""
        return tuple(f"kd_{name}" for name in self.kd.terms)

    def step(self, inputs: Tensor, keys: Tensor, *, step: int, total: int) -> AbstractContextManager[Step]:
        """Begin a step of the Distiller: the teachers whose turn it is answer, from their caches where they have one.

        Shapes: inputs (N, 3, H, W), keys (N, 2) of the crops.
        """
        self.kd.steps = step
        factors = {
            name: term_factor(self.recipe.losses[name], self.recipe, step=step, total=total) for name in self.kd.terms
        }
        if not any(factors.values()):
            return self.kd.step(factors={})
        at = (step + 0.5) / total  # the middle of the step
        asked = {name: self.caches[name].ask(inputs, keys) for name in self.kd.turns(at) if name in self.caches}
        return self.kd.step(inputs, at=at, factors=factors, teacher_outputs=asked)

    def ramp(self, step: int, total: int) -> float:
        """Return the factor that a term without times of its own has at a step."""
        return ramp(step, total=total, ramp_steps=ramp_steps(self.recipe, total), stop=self.recipe.stop)


def build_term(term: RecipeTerm, *, taps: Mapping[str, str]) -> Term:
    """Return a recipe's term as a Distiller takes it; `taps` are the paths at which it taps the teachers, by name."""
    options = {name: getattr(term, name) for name in find_loss(term.loss).options}
    if isinstance(term, FeatureTerm):
        return Features(
            term.loss,
            student=term.student,
            teacher=taps,
            levels=term.levels,
            adapter=term.adapter,
            weight=term.weight,
            **options,
        )
    return Logits(term.loss, output=output_of(term), weight=term.weight, **options)


def ramp(step: int, *, total: int, ramp_steps: int, start: float = 0.0, stop: float = 0.0) -> float:
    """Return a factor over the steps: 0 until `start`, up over the ramp, 1, then 0 at the end."""
    first = round(total * start)
    if step < first or step >= total * (1 - stop):
        return 0.0
    return min(1.0, (step - first + 1) / max(ramp_steps, 1))


def ramp_steps(recipe: DistillationRecipe, total: int) -> int:
    """Return over how many of all steps terms grow: a part of them unless the recipe says, so that they always do."""
    return min(total // 10, _LONGEST_RAMP) if recipe.ramp_steps is None else recipe.ramp_steps


def term_factor(term: RecipeTerm, recipe: DistillationRecipe, *, step: int, total: int) -> float:
    """Return the factor of one term, which may have times of its own."""
    return ramp(
        step,
        total=total,
        start=term.start,
        ramp_steps=ramp_steps(recipe, total) if term.ramp_steps is None else term.ramp_steps,
        stop=recipe.stop if term.stop is None else term.stop,
    )
