"""What a training leaves of its numbers: rows of `metrics.csv`, curves for TensorBoard, and a bar on a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featherpress.compress.runtime.progress import Progress
from featherpress.compress.runtime.run_folder import MetricsFile
from featherpress.compress.training.curves import Curves


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """Where numbers go; of several processes only the first has `curves`, and keeps rows."""

    metrics: MetricsFile
    curves: Curves | None
    progress: Progress

    def record(self, row: Mapping[str, float]) -> None:
        """Keep a row of a step."""
        if self.curves is None:
            return
        self.metrics.append(row)
        self.curves.add(int(row["step"]), {name: value for name, value in row.items() if name not in ("step", "epoch")})


@contextmanager
def open_log(
    folder: Path, columns: Sequence[str], *, label: str, step: int, evaluated: int, total: int, leads: bool
) -> Iterator[TrainingLog]:
    """Open a log after a step of so many; rows of later steps, and of evaluations after `evaluated`, are dropped."""
    metrics, curves = MetricsFile(folder / "metrics.csv", columns), None
    if leads:
        metrics.keep_until(step, evaluated=evaluated)
        curves = Curves(folder, first=step + 1)
    with Progress(label, total=total, done=step) as progress:
        yield TrainingLog(metrics, curves, progress)
