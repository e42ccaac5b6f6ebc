"""A sweep over budgets: a recipe for each, the same teachers for all, and what each student scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featherpress.compress.evaluation.comparison import make_arm, make_difference
from featherpress.compress.evaluation.saved_scores import read_saved
from featherpress.compress.experiments.build import build_teacher, build_whole
from featherpress.compress.experiments.pruned import prune_student
from featherpress.compress.experiments.teachers import teacher_name
from featherpress.compress.pruning.result import Pruned
from featherpress.compress.recipes import Recipe
from featherpress.compress.recipes.schema import PruneRecipe
from featherpress.compress.tasks import task_of
from featherpress.errors import DataError
from featherpress.records.audit import Audit, Budget
from featherpress.records.comparison import Comparison
from featherpress.records.evaluation import find_evaluation
from featherpress.records.sweep import MadeBy, Quantity, Sweep, SweepPoint, SweepTeacher
from featherpress.verdicts import Interval, Scores, paired_interval, score_interval


def budget_folder(out: Path, quantity: Quantity, limit: int) -> Path:
    """Return where the run of one budget lies."""
    return out / f"{quantity}-{limit}"


def fitted_recipe(recipe: Recipe, name: str, settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a student with other settings; the sweep's budget file is not its own."""
    student = recipe.student.model_copy(update={"settings": {**recipe.student.settings, **settings}})
    return recipe.model_copy(update={"name": f"{recipe.name}-{name}", "budget": "", "student": student})


def pruned_recipe(recipe: Recipe, name: str, quantity: Quantity, limit: int) -> Recipe:
    """Return the recipe of a student that is cut to one limit; how, says the recipe's own `student.prune`.

    Where it has no weights and a teacher is the same model, it is cut out of the teacher.
    """
    given = recipe.student
    own = (given.prune or PruneRecipe()).model_copy(update={"params": None, "macs": None, quantity: limit})
    original = any((each.model, each.settings) == (given.model, given.settings) for each in recipe.all_teachers)
    weights = given.weights or ("teacher" if original and not given.backbone else "")
    student = given.model_copy(update={"prune": own, "weights": weights})
    return recipe.model_copy(update={"name": f"{recipe.name}-{name}", "budget": "", "student": student})


def prune_ahead(recipe: Recipe) -> Pruned:
    """Cut a recipe's student as a run would, out of the weights that are there: those of a teacher may come later.

    Errors: those of `prune`.
    """
    task = task_of(recipe)
    teachers = [build_teacher(recipe, number, task=task) for number in range(len(recipe.all_teachers))]
    return prune_student(recipe, build_whole(recipe, task=task, teachers=teachers))


def share_teachers(recipe: Recipe, trained: Path) -> Recipe:
    """Return a recipe whose teachers have the weights of a run that trained them first."""

    def weights(number: int) -> dict[str, str]:
        return {"weights": str(trained / teacher_name(number) / "weights" / "last.safetensors")}

    teachers = tuple(
        own if own.weights else own.model_copy(update=weights(number)) for number, own in enumerate(recipe.all_teachers)
    )
    return recipe.model_copy(update={"teacher": teachers[0]} if recipe.teacher else {"teachers": teachers})


def has_teachers(folder: Path) -> bool:
    """Tell whether a run has trained teachers, or begun to."""
    return (folder / teacher_name(0) / "weights").is_dir()


def measure_point(folder: Path, *, name: str, budget: int, made_by: MadeBy, settings: Mapping[str, Any]) -> SweepPoint:
    """Read what a run's student costs and scores, beside its teacher and its control.

    Errors: `DataError` where the run has no scores.
    """
    student = read_saved(folder)
    order = student.examples
    teacher = read_saved(folder / "eval" / "teacher.json", order=order).scores
    control = read_saved(folder / "control", order=order).scores if (folder / "control").is_dir() else None
    comparison = Comparison.find(folder / "eval" / "comparison.json")
    counted = Budget.find(folder / "budget.json")
    evaluated = find_evaluation(folder / "eval" / "validation.json")
    if evaluated is None:
        raise DataError(f"{folder} has no evaluation of its student")

    def own(scores: Scores) -> Interval:
        return score_interval(scores).as_share() if student.bounded else score_interval(scores)

    fields = {
        "budget": budget,
        "folder": name,
        "made_by": made_by,
        "settings": dict(settings),
        "params": evaluated.params,
        "macs": counted.student.total.macs if counted else None,
        "student": make_arm(tuple(student.scores.observed().tolist())),
        "score": make_difference(own(student.scores)),
        "control": make_arm(tuple(control.observed().tolist())) if control else None,
        "control_score": make_difference(own(control)) if control else None,
        "beside_teacher": make_difference(paired_interval(candidate=student.scores, baseline=teacher)),
        "gain": comparison.difference if comparison else None,
        "verdict": comparison.verdict if comparison else None,
    }
    return SweepPoint.model_validate({key: value for key, value in fields.items() if value is not None})


def add_point(sweep: Sweep, recipe: Recipe, folder: Path, point: SweepPoint) -> Sweep:
    """Return the sweep with one more budget, and with its teacher as that budget's run scored it."""
    points = {each.budget: each for each in (*sweep.points, point)}
    changed = {
        "points": tuple(points[limit] for limit in sorted(points)),
        "metric": task_of(recipe).metric,
        "teacher": _teacher(folder),
    }
    return Sweep.model_validate({**dict(sweep), **changed})


def _teacher(folder: Path) -> SweepTeacher:
    evaluated, counted = find_evaluation(folder / "eval" / "teacher.json"), Budget.find(folder / "budget.json")
    assert evaluated is not None
    audit: Audit | None = counted.teacher if counted else None
    macs = audit.total.macs if audit else None
    return SweepTeacher(model=evaluated.model, score=evaluated.score, params=evaluated.params, macs=macs)
