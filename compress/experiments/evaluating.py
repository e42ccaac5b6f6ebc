"""Trained weights scored on a recipe's data, whatever the task."""

from pathlib import Path
from typing import Any

from featherpress.compress.data.subsets import left_out
from featherpress.compress.evaluation.comparison import compare
from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.compress.evaluation.saved_scores import read_saved
from featherpress.compress.evaluation.scoring import describe_weights
from featherpress.compress.experiments.build import Role, build_trained
from featherpress.compress.recipes import Recipe
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.base import Split
from featherpress.errors import DataError
from featherpress.files import write_json
from featherpress.records.evaluation import SCORED
from featherpress.verdicts import Claim


def evaluate_weights(
    recipe: Recipe, weights: Path, *, role: Role = "student", split: Split = "val", images: int = 0
) -> EvaluationResult:
    """Score weights of a recipe's student, or of its first teacher, on a split of its data, or on its first images.

    Errors: `UsageError` for a recipe without such a model; `CheckpointError` for weights that are not the model's;
    `DataError` for data that cannot be used.
    """
    task = task_of(recipe)
    own, model = build_trained(recipe, weights, task=task, role=role)
    dataset = task.open(split)
    task.check(dataset)
    about = describe_weights(weights, model, name=own.model, role=role)
    model.to(default_device())
    scored = task.evaluate(model, dataset, label="evaluating", split=split, about=about, images=images)
    if counts := left_out(dataset):
        scored.record["data"]["left_out"] = counts
    return scored


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
    write_json(out / SCORED, scored.record)
    scored.predictions.save(out / "evaluation.npz")
