"""`evaluate --recipe`: trained weights on a recipe's data, whatever the task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from featherpress.commands.printing import show
from featherpress.errors import UsageError
from featherpress.extras import require_extra

_ROLES: dict[str, Literal["student", "teacher"]] = {"student": "student", "teacher": "teacher"}
_SPLITS: dict[str, Literal["val", "train", "holdout"]] = {"val": "val", "train": "train", "holdout": "holdout"}


def evaluate_by_recipe(
    name: str,
    settings: Sequence[str] | None,
    weights: Path | None,
    *,
    role: str,
    split: str,
    limit: int,
    baseline: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Score weights of a recipe's student or teacher, and print the record or a table.

    Errors: `UsageError` where the recipe or the weights are not given, or for a role or a split that there is not.
    """
    require_extra("train", "the evaluation of a recipe's model")
    if not name or weights is None:
        raise UsageError("evaluate needs --recipe and --weights: the file of a model that the recipe builds")
    chosen = require_role(role)
    if split not in _SPLITS:
        raise UsageError(f"with --recipe --split is {' or '.join(_SPLITS)}, got {split!r}")
    from featherpress.compress.evaluation.detector.listing import render_evaluation
    from featherpress.compress.evaluation.score_listing import render_score
    from featherpress.compress.experiments.evaluating import compare_evaluations, evaluate_weights, save_evaluation
    from featherpress.compress.recipes import load_recipe

    recipe = load_recipe(name, settings=settings or ())
    scored = evaluate_weights(recipe, weights, role=chosen, split=_SPLITS[split], images=limit)
    if baseline is not None:
        scored.record["baseline"] = compare_evaluations(scored, recipe, baseline)
    if out is not None:
        save_evaluation(scored, out)
    record = scored.record
    show(record, as_json, lambda: render_score(record) if "score" in record else render_evaluation(record))


def require_role(model: str) -> Literal["student", "teacher"]:
    """Return which of a recipe's models MODEL names, the student unless it says.

    Errors: `UsageError` for another word.
    """
    if (model or "student") not in _ROLES:
        raise UsageError(f"with --recipe MODEL is {' or '.join(_ROLES)}, got {model!r}")
    return _ROLES[model or "student"]
