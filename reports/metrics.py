"""What models are scored by, their scores over seeds, and the logged steps of a training."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from featherpress.errors import FileError
from featherpress.records.evaluation import AnyEvaluation, DetectorEvaluation, Metric, TaskEvaluation
from featherpress.reports.formats import spread


def with_unit(metric: Metric) -> str:
    """Return a metric's name with its unit where it has one."""
    return f"{metric.name} ({metric.unit})" if metric.unit else metric.name


def title(metric: Metric) -> str:
    """Return a metric's name as a sentence begins with it; mAP and its like stay as they are."""
    word = metric.name.split(maxsplit=1)[0]
    return metric.name if word != word.lower() else f"{metric.name[0].upper()}{metric.name[1:]}"


def scores(evaluations: Sequence[AnyEvaluation], part: str | None = None) -> tuple[float, ...]:
    """Return the scores that are known, one a seed: of everything, or of a class or a range of faces' heights."""
    return _known(each.score if part is None else _part(each, part) for each in evaluations)


def further_scores(evaluations: Sequence[AnyEvaluation], name: str) -> tuple[float, ...]:
    """Return another score by its name where it is known, one a seed."""
    return _known(each.further.get(name) for each in evaluations if isinstance(each, TaskEvaluation))


def _part(evaluation: AnyEvaluation, name: str) -> float | None:
    if isinstance(evaluation, DetectorEvaluation):
        return next((bucket.ap for bucket in evaluation.by_height if bucket.name == name), None)
    classes = evaluation.by_class if isinstance(evaluation, TaskEvaluation) else ()
    return next((each.score for each in classes if each.name == name), None)


def _known(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)


def mean_score(values: Sequence[float]) -> float | None:
    """Return the mean over seeds, None when there is no value."""
    return statistics.fmean(values) if values else None


def score(values: Sequence[float]) -> str:
    """Return the mean over seeds, with the sample's standard deviation when there are several."""
    return spread(mean_score(values), statistics.stdev(values) if len(values) > 1 else None)


SCORED = "val_"


def read_metrics(file: Path) -> pd.DataFrame | None:
    """Read metrics.csv; rows of one step, such as its losses and its score, become one, where the last value counts.

    `score` is what was measured on validation images, in the column `val_` with the metric's key; NaN where a step has
    no value. The key is kept in `attrs`.

    Units: `epoch` is counted from 1 in the result, from 0 in the file.
    """
    if not file.exists():
        return None
    needed = {"step": "step", "epoch": "epoch", "task": "task", "score": "val_... of one metric"}
    try:
        frame = pd.read_csv(file)
        scored = [name for name in frame.columns if str(name).startswith(SCORED)]
        frame = frame.rename(columns=dict.fromkeys(scored[:1], "score"))
        missing = [said for name, said in needed.items() if name not in frame.columns or len(scored) > 1]
        if missing:
            raise FileError(
                f"{file}: expected a table of a training's steps, got no column {' and no '.join(missing)}."
            )
        frame = frame.astype(np.float64).replace([np.inf, -np.inf], np.nan)
    except (OSError, ValueError) as error:
        raise FileError(f"{file}: expected a table of numbers, got something else ({error}).") from error
    # A run that was killed can leave a last row half written.
    frame = frame.dropna(subset=["step", "epoch"]).dropna(subset=["task", "score"], how="all")
    frame = frame.groupby("step", as_index=False).last()
    frame["epoch"] += 1
    frame.attrs["metric"] = scored[0].removeprefix(SCORED)
    return None if frame.empty else frame


def series(steps: pd.DataFrame, x: str, y: str) -> "pd.Series[float]":
    """Return the values of the column `y` by those of `x`, where it has any; empty when the column is absent."""
    return steps.reindex(columns=[x, y]).dropna().groupby(x)[y].last()
