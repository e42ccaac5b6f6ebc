"""What arms score above their control."""

from matplotlib.figure import Figure

from featherpress.records.comparison import Comparison
from featherpress.reports.figures.style import COLUMN, INK, MUTED, ROLES, SMALL, canvas, tidy
from featherpress.reports.formats import change
from featherpress.reports.metrics import with_unit


def draw_differences(comparison: Comparison) -> Figure:
    """Draw the difference of each arm to the control with its interval: a row an arm, a dot each seed."""
    arms = [("student", comparison.distilled.scores, comparison.difference)]
    arms += [(each.name, each.scores.scores, each.difference) for each in comparison.others]
    figure = canvas(COLUMN, 0.62 + 0.3 * len(arms))
    axes = figure.add_subplot()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for row, (name, scores, found) in enumerate(arms):
        color = ROLES[name].color if name in ROLES else INK
        axes.plot([found.low, found.high], [row, row], color=color, linewidth=1.4, solid_capstyle="butt")
        axes.plot(found.mean, row, ROLES["student"].marker, color=color, markersize=4.5)
        if len(scores) > 1:
            gaps = [after - before for before, after in zip(comparison.control.scores, scores, strict=True)]
            axes.plot(gaps, [row + 0.22] * len(gaps), "o", markersize=2, color="white", mec=color, mew=0.6)
        axes.annotate(
            change(found.mean),
            (found.mean, row),
            (0, 3.5),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            color=INK,
        )
    axes.set_yticks(range(len(arms)), [name for name, _, _ in arms])
    axes.set_ylim(len(arms) - 0.5, -0.6)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=6)
    tidy(axes, x=f"difference to the control, {with_unit(comparison.scored_by)}", grid="x")
    return figure
