"""What models are scored by, and the logged steps of a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featherpress.errors import FileError

FloatArray: TypeAlias = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The logged steps of one training, a column an array; NaN where a step has no value.

    `score` is what was measured on validation images, by the run's metric.

    Shapes: every column (steps,).
    """

    columns: Mapping[str, FloatArray]

    def series(self, x: str, y: str) -> tuple[FloatArray, FloatArray]:
        """Return the columns `x` and `y` where `y` has a value; empty when the column is absent."""
        if y not in self.columns:
            return np.empty(0), np.empty(0)
        known = np.isfinite(self.columns[y])
        return self.columns[x][known], self.columns[y][known]


def read_metrics(file: Path) -> Metrics | None:
    """Read metrics.csv; rows of one step, such as its losses and its score, become one, where the last value counts.

    Units: `epoch` is counted from 1 in the result, from 0 in the file.
    """
    if not file.exists():
        return None
    needed = ["step", "epoch", "task"]
    try:
        frame = pd.read_csv(file).rename(columns={f"val_{key}": "score" for key in METRICS})
        missing = [name for name in needed if name not in frame.columns]
        if "score" not in frame.columns:
            missing.append(" or ".join(f"val_{key}" for key in METRICS))
        if missing:
            raise FileError(
                f"{file}: expected a table of a training's steps, got no column {' and no '.join(missing)}."
            )
        frame = frame.astype(np.float64)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FileError(f"{file}: expected a table of numbers, got something else ({error}).") from error
    # A run that was killed can leave a last row half written.
    frame = frame.dropna(subset=["step", "epoch"]).dropna(subset=["task", "score"], how="all")
    frame = frame.groupby("step", as_index=False).last()
    frame["epoch"] += 1
    if frame.empty:
        return None
    return Metrics(columns={str(name): frame[name].to_numpy(dtype=np.float64) for name in frame.columns})
