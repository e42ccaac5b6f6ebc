"""Trained weights scored on a recipe's data, whatever the task."""

from pathlib import Path
from typing import Any, Literal

from torch import nn

from featherpress.compress.evaluation.comparison import compare
from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.compress.evaluation.saved_scores import read_saved
from featherpress.compress.evaluation.scoring import describe_weights
from featherpress.compress.experiments.build import input_settings
from featherpress.compress.recipes import Recipe
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.base import Split
from featherpress.errors import DataError, UsageError
from featherpress.files import write_json
from featherpress.models import load_weights
from featherpress.verdicts import Claim

Role = Literal["student", "teacher"]


def evaluate_weights(
    recipe: Recipe, weights: Path, *, role: Role = "student", split: Split = "val", images: int = 0
) -> EvaluationResult:
    """Score weights of a recipe's student, or of its first teacher, on a split of its data, or on its first images.

    Errors: `UsageError` for a recipe without such a model; `CheckpointError` for weights that are not the model's;
    `DataError` for data that cannot be used.
    """
    if role == "teacher" and not recipe.all_teachers:
        raise UsageError(f"the recipe {recipe.name} has no teacher to evaluate")
    own = recipe.student if role == "student" else recipe.all_teachers[0]
    task = task_of(recipe)
    dataset = task.open(split)
    task.check(dataset)
    model: nn.Module = task.build(own.model, own.settings, **input_settings(own))
    load_weights(model, weights)
    about = describe_weights(weights, model, name=own.model, role=role)
    model.to(default_device())
    return task.evaluate(model, dataset, label="evaluating", split=split, about=about, images=images)


def compare_evaluations(scored: EvaluationResult, recipe: Recipe, earlier: Path) -> dict[str, Any]:
    """Put an interval on the difference to an earlier evaluation of the same images, or to a run.

    Errors: `DataError` for one of other images, or scored by another metric.
    """
    task = task_of(recipe)
    side = read_saved(earlier, order=scored.predictions.names)
    if side.metric != task.metric.name:
        raise DataError(f"{earlier} is scored by {side.metric}, the recipe's task by {task.metric.name}")
    claim = Claim(metric=task.metric.name, files=(scored.record["weights"], earlier.name))
    found = compare(baseline=side.scores, candidate=task.scores([scored.predictions]), claim=claim)
    return {
        "folder": earlier.name,
        "score": found.baseline[0],
        "difference": found.difference.to_dict(),
        "verdict": found.verdict,
        "sentence": found.sentence,
    }


def save_evaluation(scored: EvaluationResult, out: Path) -> None:
    """Write `evaluation.json`, and beside it what was predicted for each image."""
    write_json(out / "evaluation.json", scored.record)
    scored.predictions.save(out / "evaluation.npz")
