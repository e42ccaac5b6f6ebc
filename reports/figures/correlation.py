"""Linear CKA of student and control with the teacher, level by level."""

from matplotlib.figure import Figure

from featherpress.records.run import Correlation
from featherpress.reports.figures.style import COLUMN, INK, ROLES, SMALL, canvas, role_keys, tidy


def level_correlation(found: Correlation) -> Figure:
    """Draw the CKA with the teacher's features: a group of bars per level, a bar per role."""
    figure = canvas(COLUMN, 2.2)
    axes = figure.add_subplot()
    width = 0.8 / len(found.roles)
    for place, role in enumerate(found.roles):
        for column, level in enumerate(found.levels):
            value = level.cka.get(role)
            if value is not None:
                x = column - 0.4 + width * (place + 0.5)
                axes.bar(x, value, 0.9 * width, color=ROLES[role].color)
                axes.annotate(f"{value:.2f}", (x, value), ha="center", va="bottom", fontsize=SMALL, color=INK)
    axes.set_xticks(range(len(found.levels)), [f"stride {level.stride} px" for level in found.levels])
    axes.set_ylim(0, 1.1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    tidy(axes, y="linear CKA with the teacher", grid="y")
    axes.tick_params(axis="x", length=0)
    role_keys(figure, {role: role for role in found.roles}, columns=2)
    return figure
