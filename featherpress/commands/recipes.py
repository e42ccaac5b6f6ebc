"""Recipes and their runs: found, audited, given a folder, and described before they start."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.commands.model_names import settings_of, shape_seen
from featherpress.commands.printing import echo
from featherpress.commands.subjects import audit_model, audit_subject, count_model, open_subject
from featherpress.errors import CountError, StoppedError, TrainingError, UsageError
from featherpress.stopping import exit_code_of

if TYPE_CHECKING:
    from torch import nn

    from featherpress.budgets import Audit
    from featherpress.compress.experiments.pruned import AuditModel
    from featherpress.compress.recipes import Recipe, StudentRecipe, TeacherRecipe
    from featherpress.compress.recipes.required_files import Need

logger = logging.getLogger("featherpress")

FIRST_RECIPE = "v1_to_v2"


def find_recipe(
    name: str,
    settings: Sequence[str] | None = None,
    *,
    cache: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    out: Path | None = None,
) -> "Recipe":
    """Load a recipe; without a name it is the run's own where one is resumed, and the first shipped one elsewhere."""
    from featherpress.compress.experiments.provenance import recipe_to_resume
    from featherpress.compress.recipes import load_recipe

    settings = [*(settings or []), *([f"data.cache={cache}"] if cache else [])]
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite removes it: choose one")
    if resume and not name and out and (out / "recipe.toml").is_file():  # whose keys the first shipped one may not have
        return recipe_to_resume(name, out, settings)
    recipe = load_recipe(name or FIRST_RECIPE, settings=settings)
    folder = run_folder(recipe, out)
    return recipe_to_resume(name, folder, settings) if resume and (folder / "recipe.toml").is_file() else recipe


def run_folder(recipe: "Recipe", out: Path | None) -> Path:
    """Return the folder of a recipe's run."""
    return out or Path("runs") / recipe.name


@contextmanager
def open_logged_run(recipe: "Recipe", out: Path | None, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Open the run's folder, and keep a log in it.

    Errors: `StoppedError` where a signal stops it outside a training, which says so itself.
    """
    from featherpress.compress.runtime.distributed import is_lost
    from featherpress.compress.runtime.logs import log_into
    from featherpress.compress.runtime.run_folder import open_run

    with open_run(run_folder(recipe, out), resume=resume, overwrite=overwrite) as folder, log_into(folder / "log.txt"):
        try:
            yield folder
        except KeyboardInterrupt as stop:
            sentence = f"{folder} stopped; the same command with --resume goes on"
            raise StoppedError(sentence, exit_code_of(stop)) from None
        except OSError as error:
            raise TrainingError(
                f"could not write {error.filename or folder}: {error.strerror or error}; make room, or mend what is in "
                "the way, and the same command with --resume goes on"
            ) from error
        except RuntimeError as error:
            if not is_lost(error):
                raise
            raise TrainingError("another process of this run ended; the same command with --resume goes on") from error


def audit_recipe(recipe: "Recipe", *, allow_over_budget: bool) -> dict[str, Any]:
    """Audit a recipe's models; a student over its budget does not start.

    Nothing comes of models of which one cannot be counted, and the log says why; a budget needs the count.
    """
    try:
        return _audit_all(recipe, allow_over_budget=allow_over_budget)
    except CountError as error:
        if recipe.budget:
            raise
        logger.warning("what the models cost is not known: %s", error)
        return {}


def _audit_all(recipe: "Recipe", *, allow_over_budget: bool) -> dict[str, Any]:
    audits, shape = {}, shape_seen(recipe)
    for number, teacher in enumerate(recipe.all_teachers, start=1):
        role = "teacher" if number == 1 else f"teacher-{number}"
        counted = audit_model(teacher.model, inputs=[shape], settings=teacher.settings).to_dict()
        audits[role] = counted | {"settings": settings_of(teacher.model, teacher.settings)}
    own = recipe.student
    if own.prune or own.pruned:
        original = audit_model(own.model, budget=None, inputs=[shape], settings=own.settings).to_dict()
        audits["original"] = original | {"settings": settings_of(own.model, own.settings)}
    if own.prune:
        return audits  # its student is counted once it is cut
    student = audit_model(
        own.model, budget=recipe.budget, inputs=[shape], settings=own.settings, weights=_pruned_file(recipe)
    )
    if student.exit_code and not allow_over_budget:
        raise UsageError(
            f"the student breaks its budget: {student.failures[0]}; add --allow-over-budget to train it anyway"
        )
    settings = settings_of(own.model, own.settings)
    return audits | {"student": student.to_dict() | {"settings": settings}}


def _pruned_file(recipe: "Recipe") -> Path | None:
    from featherpress.compress.recipes.files import expand_path

    return expand_path(recipe.student.pruned) if recipe.student.pruned else None


def student_auditor(recipe: "Recipe") -> "AuditModel":
    """Return what counts a recipe's student once it is cut, as `audit_recipe` counts others."""
    from featherpress.budgets import load_budget

    own = recipe.student

    def count(model: "nn.Module") -> dict[str, Any]:
        subject = open_subject(own.model, inputs=[shape_seen(recipe)], settings=own.settings)
        limits = load_budget(recipe.budget) if recipe.budget else None  # a shipped one is the whole model's
        counted = audit_subject(subject._replace(model=model), limits)
        return counted.to_dict() | {"settings": settings_of(own.model, own.settings)}

    return count


def print_dry_run(recipe: "Recipe", models: Sequence[str], *, without_teachers: bool = False) -> None:
    """Print a recipe as TOML that can be read back, and below it, as comments, models, size and files of its run.

    `models` are the names of what is trained for every seed; `without_teachers` is for training without teachers.

    Errors: a run's own, where no file is missing and it could not start all the same.
    """
    from featherpress.compress.experiments.distill import check
    from featherpress.compress.recipes import recipe_to_toml
    from featherpress.compress.recipes.required_files import list_needs

    needs = list_needs(recipe, arms=models, without_teachers=without_teachers)
    lines = [
        *_costs(recipe, without_teachers=without_teachers),
        *_sizes(recipe, models, without_teachers=without_teachers),
        *_files(needs),
    ]
    echo("\n".join([recipe_to_toml(recipe), *(f"# {line}" for line in lines)]))
    if not any(need.missing for need in needs):
        check(recipe, without_teachers=without_teachers, leaks=False)


def _costs(recipe: "Recipe", *, without_teachers: bool) -> Iterator[str]:
    for number, teacher in enumerate(() if without_teachers else recipe.all_teachers):
        yield f"{_role(recipe, number)}: {_cost(recipe, teacher)[0]}{'' if teacher.weights else ', trained first'}"
    cost, audit = _cost(recipe, recipe.student)
    cut = recipe.student.prune
    if cut:
        limits = ((cut.params, "parameters"), (cut.macs, "MACs"))
        most = [f"at most {amount:,} {unit}" for amount, unit in limits if amount is not None]
        held = [f"the budget {recipe.budget}"] if recipe.budget else []
        yield f"student: {cost}; pruned to {', '.join([*most, *held])}"
        return
    within = ""
    if recipe.budget and audit is not None:
        within = f", {'over' if audit.exit_code else 'within'} the budget {recipe.budget}"
    yield f"student: {cost}{within}"


def _cost(recipe: "Recipe", model: "StudentRecipe | TeacherRecipe") -> "tuple[str, Audit | None]":
    from featherpress.budgets.views.layout import format_macs

    budget = recipe.budget if model is recipe.student else ""
    weights = _pruned_file(recipe) if model is recipe.student else None
    params, audit = count_model(
        model.model, budget=budget, inputs=[shape_seen(recipe)], settings=model.settings, weights=weights
    )
    cost = f"{model.model}, {params:,} parameters"
    if audit is not None:
        height, width = audit.cost.inputs[0][-2:]
        cost += f", {format_macs(audit.cost.macs)} MACs at {width}x{height}"
    return cost, audit


def _sizes(recipe: "Recipe", models: Sequence[str], *, without_teachers: bool) -> Iterator[str]:
    from featherpress.compress.experiments.estimate import estimate

    plan = estimate(recipe, without_teachers=without_teachers)
    if plan is None:
        yield "images, steps, size of the teachers' cache: not known while images are missing"
        return
    held = f", {plan.holdout:,} to choose on" if plan.holdout else ""
    loose = f"; {plan.photographs:,} photographs for the teacher to label" if plan.photographs else ""
    yield f"images: {plan.training:,} to train on{held}, {plan.validation:,} to score on{loose}"
    for number, steps in plan.teacher_steps.items():
        yield f"steps: {steps:,} for the {_role(recipe, number)}, before its student"
    images = recipe.schedule.batch_size * recipe.schedule.accumulate
    most = "at most " if recipe.schedule.patience else ""
    yield f"steps: {most}{plan.steps:,} of {images} labelled images for each model that is trained"
    seeds = 1 if without_teachers else len(recipe.seeds)
    yield f"models: {', '.join(models)}" + (f"; each for {seeds} seeds" if seeds > 1 else "")
    crops = f"; all crops would take {plan.crop_bytes / 1e6:,.0f} MB" if plan.crop_bytes else ""
    yield f"memory: at most {plan.memory_bytes / 1e6:,.0f} MB of crops and decoded images kept{crops}"
    if plan.cache_bytes:
        size = f"{plan.cache_bytes / 1e6:,.0f} MB for {plan.cached_crops:,} crops"
        yield f"teachers' cache: {size}, on disk while a student trains"


def _role(recipe: "Recipe", number: int) -> str:
    return "teacher" if recipe.teacher else f"teacher {number + 1}"


def _files(needs: "Sequence[Need]") -> Iterator[str]:
    from featherpress.compress.recipes.required_files import describe_variable

    if not needs:
        yield "files: none needed"
        return
    states = Counter(need.state for need in needs if need.state != "found")
    bad = ", ".join(f"{count} {state}" for state, count in states.items())
    yield f"files: {len(needs)} needed, {bad or 'all there'}"
    yield from dict.fromkeys(f"  {describe_variable(need)}" for need in needs if need.variable)
    for need in needs:
        yield f"  {need.state:<7} {need.path} ({need.key})"
