"""What `--dry-run` prints below a recipe: its models, the size of the run, and its files, as TOML comments."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from featherpress.commands.model_names import count_model, shape_seen

if TYPE_CHECKING:
    from featherpress.budgets import Audit
    from featherpress.compress.recipes import Recipe, StudentRecipe, TeacherRecipe


def render_dry_run(recipe: "Recipe", *, models: Sequence[str], without_teachers: bool = False) -> str:
    """Return models, size and files of a recipe's run, one comment per line.

    `models` are the names of what is trained for every seed; `without_teachers` is for training without teachers.
    """
    lines = [
        *_costs(recipe, without_teachers=without_teachers),
        *_sizes(recipe, models, without_teachers=without_teachers),
        *_needs(recipe, models, without_teachers=without_teachers),
    ]
    return "\n".join(f"# {line}" for line in lines)


def _costs(recipe: "Recipe", *, without_teachers: bool) -> Iterator[str]:
    for number, teacher in enumerate(() if without_teachers else recipe.all_teachers):
        yield f"{_role(recipe, number)}: {_cost(recipe, teacher)[0]}{'' if teacher.weights else ', trained first'}"
    cost, audit = _cost(recipe, recipe.student)
    within = ""
    if recipe.budget and audit is not None:
        within = f", {'over' if audit.exit_code else 'within'} the budget {recipe.budget}"
    yield f"student: {cost}{within}"


def _cost(recipe: "Recipe", model: "StudentRecipe | TeacherRecipe") -> "tuple[str, Audit | None]":
    from featherpress.budgets.views.layout import format_macs

    budget = recipe.budget if model is recipe.student else ""
    params, audit = count_model(model.model, budget=budget, shape=shape_seen(recipe), settings=model.settings)
    cost = f"{model.model}, {params:,} parameters"
    if audit is not None:
        height, width = audit.cost.inputs[0][-2:]
        cost += f", {format_macs(audit.cost.macs)} MACs at {width}x{height}"
    return cost, audit


def _sizes(recipe: "Recipe", models: Sequence[str], *, without_teachers: bool) -> Iterator[str]:
    from featherpress.compress.experiments.estimate import estimate

    plan = estimate(recipe, without_teachers=without_teachers)
    if plan is None:
        yield "images, steps, size of the lessons' cache: not known while images are missing"
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
        size = f"{plan.cache_bytes / 1e6:,.0f} MB for {plan.lessons:,} crops"
        yield f"lessons' cache: {size}, on disk while a student trains"


def _role(recipe: "Recipe", number: int) -> str:
    return "teacher" if recipe.teacher else f"teacher {number + 1}"


def _needs(recipe: "Recipe", models: Sequence[str], *, without_teachers: bool) -> Iterator[str]:
    from featherpress.compress.recipes.needs import describe_variable, list_needs

    needs = list_needs(recipe, arms=models, without_teachers=without_teachers)
    if not needs:
        yield "files: none needed"
        return
    missing = sum(need.missing for need in needs)
    yield f"files: {len(needs)} needed, {missing} missing" if missing else f"files: {len(needs)} needed, all there"
    yield from dict.fromkeys(f"  {describe_variable(need)}" for need in needs if need.variable)
    for need in needs:
        yield f"  {'missing' if need.missing else 'found  '} {need.path} ({need.key})"
