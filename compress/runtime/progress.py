"""A progress bar, shown only on a terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from featherpress.compress.runtime.run_folder import is_leader


class Progress:
    """Count steps with loss, images a second and the time left; silent when standard error is not a terminal.

    Only the first process of a run shows it.
    """

    def __init__(self, label: str, *, total: int, done: int = 0) -> None:
        console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal and is_leader()),
        )
        self._task = self._bar.add_task(label, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, *, loss: float | None = None, images_per_second: float | None = None) -> None:
        """Count one more."""
        notes = []
        if loss is not None:
            notes.append(f"loss {loss:.3f}")
        if images_per_second is not None:
            notes.append(f"{images_per_second:.0f} images/s")
        self._bar.update(self._task, advance=1, note="  ".join(notes))
