"""One run's part of the report: its headings and its numbered figures."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from matplotlib.figure import Figure

from featherpress.reports.blocks import Heading, Picture
from featherpress.reports.figures.style import COLUMN
from featherpress.reports.runs import Run, place, several
from featherpress.reports.sources import Sources

#: Draws a figure when it is needed, one at a time.
Draw: TypeAlias = Callable[[], Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """A run being written about: `prefix` tells its figures' files from other runs', `level` is its headings'.

    `sources` is all that the report is written from; `figures` collects what has to be drawn, by name without suffix.
    """

    run: Run
    sources: Sources
    figures: dict[str, Draw]
    prefix: str = ""
    level: int = 2

    def heading(self, title: str) -> Heading:
        """Return a section's heading."""
        return Heading(text=title, level=self.level)

    def figure(
        self, name: str, draw: Draw, *, alt: str, caption: str, records: Sequence[str], width: float = COLUMN
    ) -> Picture:
        """Keep a figure to be drawn, `width` inches wide, and return the block that shows it with its caption below."""
        file = f"{self.prefix}{name}"
        self.figures[file] = draw
        number = len(self.figures)
        return Picture(file=file, alt=alt, caption=caption, number=number, width=width, records=records)

    def files(self, roles: Collection[str], record: str) -> list[str]:
        """Return where a record of each role lies in the run's folder, as `place` has it; of further seeds, in theirs.

        Of a teacher that the run did not train, only the evaluation is there.
        """
        if self.run.scored_only:
            return [str(self.run.evaluated[role][0].file) for role in roles]
        found = [kept.get(role, ()) for role in roles for kept in (self.run.evaluated, self.run.logged)]
        return [*(place(role, record) for role in roles), *(["seed-*/"] if several(found) else [])]
