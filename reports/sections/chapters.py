"""One run's part of the report: its headings and its numbered figures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from matplotlib.figure import Figure

from featherpress.reports.blocks import Heading, Picture
from featherpress.reports.figures.style import COLUMN
from featherpress.reports.inputs import Inputs
from featherpress.reports.runs import Run

__all__ = ["Chapter", "Draw"]

#: Draws a figure when it is needed, one at a time.
Draw: TypeAlias = Callable[[], Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A run being written about: `prefix` tells its figures' files from other runs', `level` is its headings'.

    `inputs` is all that the report is written from; `figures` collects what has to be drawn, by name without suffix.
    """

    run: Run
    inputs: Inputs
    prefix: str = ""
    level: int = 2
    figures: dict[str, Draw] = field(default_factory=dict)

    def heading(self, title: str) -> Heading:
        """Return a section's heading."""
        return Heading(text=title, level=self.level)

    def figure(self, name: str, draw: Draw, *, alt: str, caption: str, width: float = COLUMN) -> Picture:
        """Keep a figure to be drawn, `width` inches wide, and return the block that shows it with its caption below."""
        file = f"{self.prefix}{name}"
        self.figures[file] = draw
        return Picture(file=file, alt=alt, caption=caption, number=len(self.figures), width=width)
