"""One run's part of the report: its headings and its numbered figures."""

import html
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from featherpress.reports.runs import Run
from featherpress.reports.tables import escape

__all__ = ["Chapter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A run being written about: `prefix` tells its figures' files from other runs', `level` is its headings'.

    `figures` collects what has to be saved, by file name.
    """

    run: Run
    prefix: str = ""
    level: int = 2
    figures: dict[str, Figure] = field(default_factory=dict)

    def heading(self, title: str) -> str:
        """Return a section's heading."""
        return f"{'#' * self.level} {title}"

    def figure(self, name: str, figure: Figure, *, alt: str, caption: str) -> str:
        """Keep a figure to be saved and return the Markdown that shows it with its caption below."""
        file = f"{self.prefix}{name}.png"
        self.figures[file] = figure
        # Widths in proportion to the figures' inches, so that their letters come out alike.
        tag = f'<img src="figures/{file}" alt="{html.escape(alt)}" width="{round(120 * figure.get_figwidth())}">'
        return f"{tag}\n\n*Figure {len(self.figures)}. {escape(caption)}*"
