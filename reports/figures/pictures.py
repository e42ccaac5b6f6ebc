"""Pictures that a task drew, side by side: an image, its truth, and what each model answered."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from featherpress.records.run import PanelRow, Pictures
from featherpress.reports.figures.gallery import GAP, HEAD, HIGHEST, pixels
from featherpress.reports.figures.style import DPI, INK, LEGEND, PAGE, SMALL, TEXT, canvas

ROW_GAP, LINE = 0.05, 0.14  # inches: below a row, and for a line of text or of the legend
KEYS = 6  # entries of the legend in a line
WIDEST = 1.7  # inches a panel, so that few of them do not fill a page


def rows_shown(pictures: Pictures) -> tuple[PanelRow, ...]:
    """Return the first rows, as many as fit on a page, one at least."""
    room = HIGHEST
    shown: list[PanelRow] = []
    for row, height in zip(pictures.images, _heights(pictures), strict=True):
        room -= height + _below(row)
        if room < 0 and shown:
            break
        shown.append(row)
    return tuple(shown)


def draw_pictures(pictures: Pictures) -> Figure:
    """Draw a row an image and a column a panel, with what each says below it, and the legend of the colours.

    Errors: `FileError` when a picture cannot be read.
    """
    rows, names, cell = rows_shown(pictures), _names(pictures), _cell(pictures)
    heights = _heights(pictures)[: len(rows)]
    lines = -(-len(pictures.legend) // KEYS)
    height = HEAD + sum(heights) + sum(map(_below, rows)) + LINE * lines + 0.08
    figure = canvas(PAGE, height)
    figure.set_layout_engine("none")
    top = height - HEAD
    for row, tall in zip(rows, heights, strict=True):
        for panel in row.panels:
            left = names.index(panel.name) * (cell + GAP)
            place = (left / PAGE, (top - tall) / height, cell / PAGE, tall / height)
            axes = figure.add_axes(place, title=panel.name if row is rows[0] else "")
            axes.imshow(pixels(pictures.file.parent / panel.file, width=round(cell * DPI), height=round(tall * DPI)))
            axes.set_axis_off()
            axes.title.set(fontsize=TEXT, color=INK, fontweight="bold")
            if panel.text:
                axes.text(0.5, -0.02, panel.text, transform=axes.transAxes, ha="center", va="top", fontsize=SMALL)
        top -= tall + _below(row)
    if pictures.legend:
        keys = [Patch(facecolor=e.colour, edgecolor=INK, linewidth=0.3, label=e.name) for e in pictures.legend]
        figure.legend(handles=keys, loc="lower left", ncols=KEYS, handlelength=1.0, handleheight=1.0, **LEGEND)
    return figure


def _names(pictures: Pictures) -> list[str]:
    return [*dict.fromkeys(panel.name for row in pictures.images for panel in row.panels)]


def _cell(pictures: Pictures) -> float:
    """Return how wide a panel is in inches."""
    columns = len(_names(pictures))
    return min(WIDEST, (PAGE - GAP * (columns - 1)) / columns)


def _heights(pictures: Pictures) -> list[float]:
    """Return how high each row is in inches, by its first panel."""
    found = (pixels(pictures.file.parent / row.panels[0].file) for row in pictures.images)
    return [_cell(pictures) * each.shape[0] / each.shape[1] for each in found]


def _below(row: PanelRow) -> float:
    return ROW_GAP + LINE * max(panel.text.count("\n") + bool(panel.text) for panel in row.panels)
