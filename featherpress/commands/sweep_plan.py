"""What a sweep is to do: which budgets, and the student that is made for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featherpress.amounts import read_amounts
from featherpress.commands.model_names import shape_seen
from featherpress.commands.printing import stdout_to_stderr
from featherpress.commands.subjects import choose_fit_inputs, usual_knobs
from featherpress.errors import UsageError
from featherpress.records.sweep import SWEEP, UNITS, MadeBy, Quantity, Sweep, SweepTarget

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import nn

    from featherpress.budgets.fitting.fit import FitRow
    from featherpress.compress.recipes import Recipe


class Student(NamedTuple):
    """What is made for a budget: its recipe, the settings that the sweep chose, and what it costs where known."""

    budget: int
    recipe: "Recipe"
    settings: Mapping[str, Any]
    params: int | None = None
    macs: int | None = None
    model: "nn.Module | None" = None


def read_request(
    recipe: "Recipe",
    folder: Path,
    *,
    params: str,
    macs: str,
    by: MadeBy | None,
    knobs: Sequence[str] | None,
    resume: bool,
) -> Sweep:
    """Return the sweep that is asked for; one that is resumed keeps what is done, and may be given further budgets.

    Errors: UsageError where no budgets, or those of two quantities, are given, or other ones than the sweep began with.
    """
    began = Sweep.find(folder / SWEEP) if resume else None
    if params and macs:
        raise UsageError("a sweep is over --params or over --macs: give one of the two")
    quantity: Quantity = "macs" if macs else "params"
    limits = read_amounts(params or macs) if params or macs else ()
    if began is not None:
        asked = (quantity if limits else began.quantity, by or began.made_by, tuple(knobs or began.knobs))
        if asked != (began.quantity, began.made_by, began.knobs):
            raise UsageError(
                f"the sweep in {folder} is over {UNITS[began.quantity]}, its students made by {began.made_by}; "
                "resume it with the same, or name another --out"
            )
        return began.model_copy(update={"limits": tuple(sorted({*began.limits, *limits}))})
    if not limits:
        raise UsageError("a sweep needs budgets: --params 128K,256K, or --macs 50M,100M")
    turned = tuple(knobs or usual_knobs(recipe.student.model))
    made_by: MadeBy = by or ("fit" if turned and not recipe.student.prune else "prune")
    if made_by == "fit" and not turned:
        raise UsageError(
            f"{recipe.student.model} has no knobs that are known: name them, as --knob width=8:64, or leave --by out "
            "to prune it"
        )
    return Sweep(
        recipe=recipe.name,
        model=recipe.student.model,
        quantity=quantity,
        made_by=made_by,
        knobs=turned if made_by == "fit" else (),
        limits=limits,
        seeds=recipe.seeds,
        target=_find_target(recipe, quantity),
    )


def _find_target(recipe: "Recipe", quantity: Quantity) -> SweepTarget | None:
    """Return what the recipe's budget file allows of a quantity."""
    if not recipe.budget:
        return None
    from featherpress.budgets import load_budget

    limit = getattr(load_budget(recipe.budget).total, quantity)
    amount = limit.reference if limit else None
    return None if amount is None else SweepTarget(budget=recipe.budget, amount=amount)


def plan_students(recipe: "Recipe", sweep: Sweep, *, ahead: bool = False) -> list[Student]:
    """Return the student of every budget.

    A pruned one is cut when its run begins; `ahead` it is cut here too, out of the weights that are there.
    Errors: UsageError where a budget is below what the knobs can reach; those of `fit` and `prune`.
    """
    if sweep.made_by == "prune":
        return [_pruned(recipe, sweep, limit, ahead=ahead) for limit in sweep.limits]
    rows = _fit_all(recipe, sweep)
    return [_fitted(recipe, sweep, limit, row) for limit, row in rows.items()]


def _fitted(recipe: "Recipe", sweep: Sweep, limit: int, row: "FitRow") -> Student:
    from featherpress.compress.experiments.sweep import fitted_recipe

    own = fitted_recipe(recipe, f"{sweep.quantity}-{limit}", row.settings)
    return Student(limit, own, row.settings, row.params, row.macs)


def _pruned(recipe: "Recipe", sweep: Sweep, limit: int, *, ahead: bool) -> Student:
    from featherpress.compress.experiments.sweep import prune_ahead, pruned_recipe

    own = pruned_recipe(recipe, f"{sweep.quantity}-{limit}", sweep.quantity, limit)
    if not ahead:
        return Student(limit, own, {})
    made = prune_ahead(own)
    return Student(limit, own, {}, made.cost.params, made.cost.macs, made.model)


def _fit_all(recipe: "Recipe", sweep: Sweep) -> "dict[int, FitRow]":
    """Find the settings that use each budget best."""
    from featherpress.budgets import fit
    from featherpress.budgets.fitting.fit import parse_knob

    name, knobs = recipe.student.model, [parse_knob(text) for text in sweep.knobs]
    make = partial(_build, name, recipe.student.settings)
    args, kwargs = choose_fit_inputs(name, make, knobs, inputs=[shape_seen(recipe)], formulas={})
    build = _keep_outlines(make)
    found = {}
    for limit in sweep.limits:
        with stdout_to_stderr():
            params, macs = (limit, None) if sweep.quantity == "params" else (None, limit)
            result = fit(build, knobs, name=name, params=params, macs=macs, example_inputs=args, kwargs=kwargs)
        if not result.rows:
            least = min(getattr(row, sweep.quantity) for row in result.neighbours)
            raise UsageError(
                f"no settings of {name} come to {limit:,} {UNITS[sweep.quantity]}: {least:,} is the nearest; leave "
                "that budget out, or give --by prune"
            )
        found[limit] = result.rows[0]
    _require_different(found, sweep)
    return found


def _keep_outlines(make: "Callable[..., nn.Module]") -> "Callable[..., nn.Module]":
    """Build every candidate once for all budgets; one that is built with memory, to be counted, is another."""
    import torch

    kept = cache(make)

    def build(**turned: Any) -> "nn.Module":
        return kept(**turned) if torch.empty(0).is_meta else make(**turned)

    return build


def _require_different(found: "Mapping[int, FitRow]", sweep: Sweep) -> None:
    """Refuse budgets that come to the same student: it would be trained twice."""
    seen: dict[tuple[tuple[str, Any], ...], int] = {}
    for limit, row in found.items():
        key = tuple(row.settings.items())
        if key in seen:
            raise UsageError(
                f"the budgets {seen[key]:,} and {limit:,} come to the same student of {row.params:,} parameters; leave "
                "one out, or give --by prune"
            )
        seen[key] = limit


def _build(name: str, settings: Mapping[str, Any], **turned: Any) -> Any:
    from featherpress.models.factories import load_factory

    return load_factory(name, {**settings, **turned})


def describe_plan(recipe: "Recipe", sweep: Sweep, students: Sequence[Student]) -> "RenderableType":
    """Make the table of the students that a sweep would train, and lines on how much that is."""
    from rich.console import Group
    from rich.text import Text

    from featherpress.budgets.views.layout import console_table, format_macs

    rows = []
    for each in students:
        cost = each.params if sweep.quantity == "params" else each.macs
        made = ", ".join(f"{key} {value}" for key, value in each.settings.items()) or "pruned"
        rows.append(
            [
                f"{each.budget:,}",
                made,
                "-" if each.params is None else f"{each.params:,}",
                "-" if each.macs is None else format_macs(each.macs),
                "-" if cost is None else f"{each.budget - cost:,}",
            ]
        )
    header = (f"budget ({UNITS[sweep.quantity]})", "student", "params", "MACs", "left")
    made = f"{sweep.model}, made by {sweep.made_by}"
    if sweep.made_by == "prune" and not recipe.all_teachers[0].weights:
        made += "; costs may differ a little once the weights are trained, and stay within the budgets"
    lines = [made, *_target_line(sweep), "", *_size_lines(recipe, students)]
    return Group(console_table(header, rows), Text(), *map(Text, lines))


def _target_line(sweep: Sweep) -> list[str]:
    if sweep.target is None:
        return []
    return [f"the budget {sweep.target.budget} allows {sweep.target.amount:,} {UNITS[sweep.quantity]}"]


def _size_lines(recipe: "Recipe", students: Sequence[Student]) -> Iterator[str]:
    """Say how many trainings there are, of how many steps, and about how long they take on this machine."""
    from featherpress.compress.experiments.arms import list_arms
    from featherpress.compress.experiments.estimate import estimate, seconds_per_step

    plan = estimate(recipe)
    if plan is None:
        yield "images, steps and time: not known while images are missing"
        return
    arms, seeds = list_arms(recipe), len(recipe.seeds)
    trainings = len(students) * len(arms) * seeds
    yield (
        f"trainings: {trainings} ({len(students)} budgets, {len(arms)} arms: {', '.join(arms)}; {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}) of {plan.steps:,} steps each"
    )
    for steps in plan.teacher_steps.values():
        yield f"before them a teacher, once, of {steps:,} steps"
    timed = [seconds_per_step(each.recipe, each.model) for each in students]
    known = [each for each in timed if each is not None]
    if len(known) == len(students):
        total = sum(seconds * plan.steps * len(arms) * seeds for seconds in known)
        yield f"time: about {_duration(total)} for the students on this machine, by one step of each, scoring aside"
    else:
        yield "time: not known, since a step of a model that computes its own loss is not timed"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
