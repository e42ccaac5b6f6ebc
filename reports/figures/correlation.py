"""Per-level correlation of student and control with the teacher: a dot a channel, a bar the mean."""

import numpy as np
from matplotlib.figure import Figure

from featherpress.records import Correlation
from featherpress.reports.figures.style import COLUMN, INK, ROLES, SMALL, canvas, role_keys, tidy


def level_correlation(found: Correlation) -> Figure:
    """Draw Pearson's r with each of the teacher's channels, by level, a column of dots a role."""
    figure = canvas(COLUMN, 2.5)
    axes = figure.add_subplot()
    # The same shake in every drawing.
    shake = np.random.default_rng(0)
    wide = 0.8 / len(found.roles)
    for place, role in enumerate(found.roles):
        for column, level in enumerate(found.levels):
            x = column - 0.4 + wide * (place + 0.5)
            values = np.array(level.channels.get(role, ()))
            spread = shake.uniform(-0.32, 0.32, len(values)) * wide
            axes.plot(x + spread, values, ".", color=ROLES[role].color, markersize=3.4, alpha=0.7, markeredgewidth=0)
            mean = level.mean(role)
            if mean is not None:
                axes.plot([x - 0.42 * wide, x + 0.42 * wide], [mean, mean], color=INK, linewidth=1.2)
                axes.annotate(
                    f"{mean:.2f}", (x, 1.03), ha="center", va="bottom", fontsize=SMALL, color=INK, annotation_clip=False
                )
    axes.set_xticks(range(len(found.levels)), [f"stride {level.stride} px" for level in found.levels])
    lowest = min((value for level in found.levels for each in level.channels.values() for value in each), default=0.0)
    axes.set_ylim(min(0.0, lowest - 0.05), 1.12)
    axes.set_yticks([tick for tick in (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0) if tick >= axes.get_ylim()[0]])
    tidy(axes, y="Pearson's r with the teacher", grid="y")
    axes.tick_params(axis="x", length=0)
    role_keys(figure, {role: role for role in found.roles}, columns=2)
    return figure
