"""Pictures that a task drew, side by side: an image, its truth, and what each model answered."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from featherpress.records.run import Panel, PanelRow, Pictures
from featherpress.reports.figures.gallery import GAP, HEAD, HIGHEST, pixels
from featherpress.reports.figures.style import DPI, INK, LEGEND, PAGE, TEXT, canvas, legible

ROW_GAP, LINE = 0.05, 0.14  # inches: below a row, and for a line of text or of the legend
KEYS = 6  # entries of the legend in a line
WIDEST, TEXTS = 1.7, 1.1  # inches a panel at most, so that few of them do not fill a page; and where some are texts
ALONE, LETTERS = 9.0, 14  # points of a text without a picture, and its letters in an inch


def rows_shown(pictures: Pictures) -> tuple[PanelRow, ...]:
    """Return the first rows, as many as fit on a page, one at least."""
    room = HIGHEST
    shown: list[PanelRow] = []
    for row, height in zip(pictures.images, _heights(pictures), strict=True):
        room -= height + _below(row, _cell(pictures))
        if room < 0 and shown:
            break
        shown.append(row)
    return tuple(shown)


def page_width(pictures: Pictures) -> float:
    """Return how wide all panels are together in inches, with a legend as wide as the page."""
    columns = len(_names(pictures))
    return PAGE if pictures.legend else _cell(pictures) * columns + GAP * (columns - 1)


def draw_pictures(pictures: Pictures) -> Figure:
    """Draw a row an image and a column a panel, with what each says below it, and the legend of the colours.

    Errors: `FileError` when a picture cannot be read.
    """
    rows, names, cell = rows_shown(pictures), _names(pictures), _cell(pictures)
    heights = _heights(pictures)[: len(rows)]
    lines = -(-len(pictures.legend) // KEYS)
    below = [_below(row, cell) for row in rows]
    width, height = page_width(pictures), HEAD + sum(heights) + sum(below) + LINE * lines + 0.08
    figure = canvas(width, height)
    figure.set_layout_engine("none")
    top = height - HEAD
    for row, tall, under in zip(rows, heights, below, strict=True):
        for panel in row.panels:
            left = names.index(panel.name) * (cell + GAP)
            place = (left / width, (top - tall) / height, cell / width, tall / height)
            axes = figure.add_axes(place, title=panel.name if row is rows[0] else "")
            axes.title.set(fontsize=TEXT, color=INK, fontweight="bold")
            _fill(axes, pictures, panel, cell, tall)
        top -= tall + under
    if pictures.legend:
        keys = [Patch(facecolor=e.colour, edgecolor=INK, linewidth=0.3, label=legible(e.name)) for e in pictures.legend]
        figure.legend(handles=keys, loc="lower left", ncols=KEYS, handlelength=1.0, handleheight=1.0, **LEGEND)
    return figure


def _fill(axes: Axes, pictures: Pictures, panel: Panel, width: float, height: float) -> None:
    """Show a picture with its text below it, or the text in its place; sizes in inches."""
    axes.set_axis_off()
    if panel.file:
        axes.imshow(pixels(pictures.file.parent / panel.file, width=round(width * DPI), height=round(height * DPI)))
    place, side = (-0.02, "top") if panel.file else (0.5, "center")
    if panel.text:
        axes.text(
            *(0.5, place, _wrap(panel, width)),
            transform=axes.transAxes,
            ha="center",
            va=side,
            fontsize=TEXT if panel.file else ALONE,
            color=INK,
            parse_math=False,
        )


def _names(pictures: Pictures) -> list[str]:
    return [*dict.fromkeys(panel.name for row in pictures.images for panel in row.panels)]


def _cell(pictures: Pictures) -> float:
    """Return how wide a panel is in inches."""
    columns = len(_names(pictures))
    widest = WIDEST if all(panel.file for row in pictures.images for panel in row.panels) else TEXTS
    return min(widest, (PAGE - GAP * (columns - 1)) / columns)


def _heights(pictures: Pictures) -> list[float]:
    """Return how high each row is in inches, by its first panel."""
    found = (pixels(pictures.file.parent / row.panels[0].file) for row in pictures.images)
    return [_cell(pictures) * each.shape[0] / each.shape[1] for each in found]


def _wrap(panel: Panel, width: float) -> str:
    """Break a panel's lines where they are wider than it, in inches; what is left after two is cut."""
    lines = legible(panel.text).split("\n")
    return "\n".join(textwrap.fill(line, int(LETTERS * width), max_lines=2, placeholder=" …") for line in lines)


def _below(row: PanelRow, width: float) -> float:
    texts = [_wrap(panel, width) for panel in row.panels if panel.file]
    return ROW_GAP + LINE * max(text.count("\n") + bool(text) for text in texts)
