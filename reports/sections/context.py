"""One run's part of the report: its headings and its numbered figures."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from matplotlib.figure import Figure

from featherpress.reports.blocks import Heading, Picture
from featherpress.reports.figures.style import COLUMN
from featherpress.reports.runs import Run
from featherpress.reports.sources import Sources

# Where the evaluation and the logged steps of a training lie in its folder.
EVALUATION, METRICS = "eval/validation.json", "metrics.csv"

#: Draws a figure when it is needed, one at a time.
Draw: TypeAlias = Callable[[], Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """A run being written about: `prefix` tells its figures' files from other runs', `level` is its headings'.

    `sources` is all that the report is written from; `figures` collects what has to be drawn, by name without suffix.
    """

    run: Run
    sources: Sources
    prefix: str = ""
    level: int = 2
    figures: dict[str, Draw] = field(default_factory=dict)

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

    def files(self, roles: Collection[str], name: str) -> list[str]:
        """Return where a record of each role lies in the run's folder: `name` is its place in a training's.

        Of a teacher that the run did not train, only the evaluation is there. Further seeds have a folder each.
        """
        places = {"control": f"control/{name}"}
        places["teacher"] = "eval/teacher.json" if name == EVALUATION else f"teacher/{name}"
        several = any(
            len(found) > 1 for role in roles for found in (self.run.evaluations(role), self.run.metrics(role))
        )
        return [*(places.get(role, name) for role in roles), *(["seed-*/"] if several else [])]
