"""What a training leaves of its numbers: rows of `metrics.csv`, curves for TensorBoard, and a bar on a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from featherpress.compress.runtime.progress import Progress
from featherpress.compress.runtime.run_folder import MetricsFile


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """Where numbers go; of several processes only the first has a `writer`, and keeps rows."""

    metrics: MetricsFile
    writer: SummaryWriter | None
    progress: Progress

    def record(self, row: Mapping[str, float]) -> None:
        """Keep a row of a step."""
        if self.writer is None:
            return
        self.metrics.append(row)
        for name, value in row.items():
            if name not in ("step", "epoch"):
                self.writer.add_scalar(name, value, int(row["step"]))


@contextmanager
def open_log(
    folder: Path, columns: Sequence[str], *, label: str, step: int, evaluated: int, total: int, leads: bool
) -> Iterator[TrainingLog]:
    """Open a log after a step of so many; rows of later steps, and of evaluations after `evaluated`, are dropped."""
    metrics, writer = MetricsFile(folder / "metrics.csv", columns), None
    with ExitStack() as stack:
        if leads:
            metrics.keep_until(step, evaluated=evaluated)
            writer = SummaryWriter(str(folder), purge_step=step + 1)
            stack.callback(writer.close)
        yield TrainingLog(metrics, writer, stack.enter_context(Progress(label, total=total, done=step)))
