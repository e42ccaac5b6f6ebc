"""What models are scored by, their scores over seeds, and the logged steps of a training."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from featherpress.errors import FileError
from featherpress.records.evaluation import AnyEvaluation, DetectorEvaluation
from featherpress.reports.formats import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What models are scored by, from 0 to 1: its key in records, its name, and what it is taken over."""

    key: str
    name: str
    over: str

    @property
    def title(self) -> str:
        """The name as a sentence begins with it."""
        return f"{self.name[0].upper()}{self.name[1:]}"

    @property
    def whole(self) -> str:
        """The name of the score of everything: "AP, all faces"."""
        return f"{self.name}, {self.over}"


AP = Metric(key="ap", name="AP", over="all faces")
ACCURACY = Metric(key="accuracy", name="accuracy", over="all images")
METRICS = {metric.key: metric for metric in (AP, ACCURACY)}


def scores(evaluations: Sequence[AnyEvaluation], bucket: str | None = None) -> tuple[float, ...]:
    """Return the scores that are known, one a seed: of everything, or APs of one bucket of faces' heights."""
    if bucket is None:
        found = [each.ap if isinstance(each, DetectorEvaluation) else each.accuracy for each in evaluations]
    else:
        detectors = [each for each in evaluations if isinstance(each, DetectorEvaluation)]
        found = [b.ap for each in detectors for b in each.by_height if b.name == bucket]
    return tuple(value for value in found if value is not None)


def mean_score(values: Sequence[float]) -> float | None:
    """Return the mean over seeds, None when there is no value."""
    return statistics.fmean(values) if values else None


def score(values: Sequence[float]) -> str:
    """Return the mean over seeds, with the sample's standard deviation when there are several."""
    return spread(mean_score(values), statistics.stdev(values) if len(values) > 1 else None)


def read_metrics(file: Path) -> pd.DataFrame | None:
    """Read metrics.csv; rows of one step, such as its losses and its score, become one, where the last value counts.

    `score` is what was measured on validation images, by the run's metric; NaN where a step has no value.

    Units: `epoch` is counted from 1 in the result, from 0 in the file.
    """
    if not file.exists():
        return None
    scores = [f"val_{key}" for key in METRICS]
    needed = {"step": "step", "epoch": "epoch", "task": "task", "score": " or ".join(scores)}
    try:
        frame = pd.read_csv(file).rename(columns=dict.fromkeys(scores, "score"))
        missing = [said for name, said in needed.items() if name not in frame.columns]
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
    return None if frame.empty else frame


def series(steps: pd.DataFrame, x: str, y: str) -> "pd.Series[float]":
    """Return the values of the column `y` by those of `x`, where it has any; empty when the column is absent."""
    return steps.reindex(columns=[x, y]).dropna().groupby(x)[y].last()
