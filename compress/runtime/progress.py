"""Progress bars, shown only on a terminal."""

from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from featherpress.compress.runtime.ranks import is_leader


class Progress:
    """Count steps with loss, images a second and the time left; silent when standard error is not a terminal.

    A bar inside another one has a line below it, which goes when it ends. Only the first process of a run shows them.
    """

    _display: ClassVar[RichProgress | None] = None  # a terminal has one

    def __init__(self, label: str, *, total: int, done: int = 0) -> None:
        self._label, self._total, self._done = label, total, done

    def __enter__(self) -> Self:
        self._outer = Progress._display
        self._bar = self._outer or _build_display()
        self._task = self._bar.add_task(self._label, total=self._total, completed=self._done, note="")
        if self._outer is None:
            Progress._display = self._bar
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer is None:
            Progress._display = None
            self._bar.stop()
        else:
            self._bar.remove_task(self._task)

    def advance(self, *, loss: float | None = None, images_per_second: float | None = None) -> None:
        """Count one more."""
        notes = []
        if loss is not None:
            notes.append(f"loss {loss:.3f}")
        if images_per_second is not None:
            notes.append(f"{images_per_second:.0f} images/s")
        self._bar.update(self._task, advance=1, note="  ".join(notes))


class Milestones:
    """A bar that is printed once a step and not redrawn, for long steps in which others draw bars of their own."""

    def __init__(self, *, total: int, done: int = 0) -> None:
        self._bar = _build_display(speed_over=float("inf"))
        self._task = self._bar.add_task("", total=total, completed=done, note="")

    def show(self, label: str) -> None:
        """Print the bar under the name of the step that begins."""
        self._bar.update(self._task, description=label)
        if not self._bar.disable:
            self._bar.console.print(self._bar)

    def advance(self, note: str) -> None:
        """Count one more; the note stands in the bar from the next one on."""
        self._bar.update(self._task, advance=1, note=note)


def _build_display(*, speed_over: float = 30.0) -> RichProgress:
    """Build the columns; the speed is measured over the last so many seconds."""
    console = Console(stderr=True)
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal and is_leader()),
        speed_estimate_period=speed_over,
    )
