"""Real detections side by side: hits, misses and false alarms by colour and by line style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from PIL import Image

from featherpress.errors import FileError
from featherpress.records.run import Box, Gallery, Picture, Prediction, Truth
from featherpress.reports.figures.style import DPI, INK, LEGEND, PAGE, ROLES, SMALL, TEXT, canvas

# Inches: between columns, and for the head, each line of counts and the legend.
GAP, HEAD, COUNTS, FOOT = 0.04, 0.19, 0.21, 0.27
HIGHEST = 9.0  # inches of rows that fit on a page

# The boxes of one picture and one model, by what they turned out to be, in the order they are drawn in.
Marks: TypeAlias = dict[str, list[Box]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pen:
    """How one kind of box is drawn."""

    color: str
    dashes: str | tuple[int, tuple[float, ...]]
    width: float


# Colours of Okabe and Ito; each kind differs in its line too, so that the figure survives a grey printer.
PENS: Mapping[str, Pen] = {
    "hit": Pen(color="#56B4E9", dashes="-", width=1.2),
    "missed face": Pen(color="#F0E442", dashes=(0, (2.4, 1.4)), width=1.2),
    "false alarm": Pen(color="#D55E00", dashes=(0, (1.0, 0.6)), width=1.5),
    "ignored by the protocol": Pen(color="#FFFFFF", dashes=(0, (4.0, 1.5, 1.0, 1.5)), width=0.7),
}


def mark(truth: Sequence[Truth], predictions: Sequence[Prediction], *, iou: float) -> Marks:
    """Return the boxes of each kind, as `PENS` names them: hits, false alarms, and the faces no hit explains.

    Hits are what the record says they are; each takes the free face it overlaps most, best score first.
    A detection on an ignored face is neither.
    """
    shown = sorted(predictions, key=lambda each: -each.score)
    free = [t.box for t in truth if not t.ignored]
    ignored = [t.box for t in truth if t.ignored]
    hits = [each.box for each in shown if each.hit]
    for hit in hits:
        best = max(free, key=lambda face: overlap(face, hit), default=None)
        if best is not None and overlap(best, hit) >= iou:
            free.remove(best)
    alarms = [each.box for each in shown if not each.hit and not any(overlap(i, each.box) >= iou for i in ignored)]
    return {"ignored by the protocol": ignored, "hit": hits, "missed face": free, "false alarm": alarms}


def overlap(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes."""
    both = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both) if both else 0.0


def pictures_shown(gallery: Gallery) -> tuple[Picture, ...]:
    """Return the first pictures, as many as fit on a page, one at least."""
    _, cell = _columns(gallery)
    room = np.cumsum([cell * picture.height / picture.width + COUNTS for picture in gallery.images])
    return gallery.images[: max(1, int(np.searchsorted(room, HIGHEST, side="right")))]


def draw_gallery(gallery: Gallery, *, iou: float) -> Figure:
    """Draw one row a picture and one column a model, as many rows as fit on a page, with counts below each cell.

    Errors: `FileError` when a picture cannot be read.
    """
    pictures, (roles, cell) = pictures_shown(gallery), _columns(gallery)
    # Placed by hand, rows as high as their pictures: none is stretched or framed in white.
    heights = [cell * picture.height / picture.width for picture in pictures]
    height = HEAD + sum(heights) + COUNTS * len(pictures) + FOOT
    figure = canvas(PAGE, height)
    figure.set_layout_engine("none")
    top = height - HEAD
    for picture, tall in zip(pictures, heights, strict=True):
        shown = pixels(gallery.file.parent / picture.file, width=round(cell * DPI), height=round(tall * DPI))
        for column, role in enumerate(roles):
            place = (column * (cell + GAP) / PAGE, (top - tall) / height, cell / PAGE, tall / height)
            axes = figure.add_axes(place, title=role if picture is pictures[0] else "")
            marks = mark(picture.truth, picture.predictions.get(role, ()), iou=iou)
            _draw_cell(axes, picture, shown, marks, scale=72 * cell / picture.width)
        top -= tall + COUNTS
    keys = [_box((0, 0, 1, 1), pen, width=pen.width, label=kind) for kind, pen in PENS.items()]
    figure.legend(handles=keys, loc="lower center", ncols=4, handlelength=3.2, **LEGEND)
    return figure


def _columns(gallery: Gallery) -> tuple[list[str], float]:
    """Return the roles that have a column, and how wide each is in inches."""
    roles = [role for role in ROLES if any(role in picture.predictions for picture in gallery.images)]
    return roles, (PAGE - GAP * (len(roles) - 1)) / len(roles)


def pixels(file: Path, *, width: int = 0, height: int = 0) -> NDArray[np.uint8]:
    """Return a picture, at the size it is printed at where that is given.

    Errors: `FileError` when it cannot be read.
    """
    try:
        with Image.open(file) as image:
            color = image.convert("RGB")
            return np.asarray(color.resize((width, height), Image.Resampling.LANCZOS) if width else color)
    except OSError as error:
        raise FileError(f"{file}: expected a picture of the gallery, got {type(error).__name__}.") from error


def _draw_cell(axes: Axes, picture: Picture, shown: NDArray[np.uint8], marks: Marks, *, scale: float) -> None:
    """Draw one picture with its marks; `scale` is points a pixel of the picture."""
    axes.imshow(shown, extent=(0, picture.width, picture.height, 0), aspect="auto")
    for kind, boxes in marks.items():
        for box in boxes:
            # Thinner on small faces, which a full line would cover.
            thin = min(PENS[kind].width, max(0.75, 0.09 * scale * (box[3] - box[1])))
            axes.add_patch(_box(box, PENS[kind], width=thin, label=""))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.title.set(fontsize=TEXT, color=INK, fontweight="bold")
    hits, misses, alarms = (len(marks[kind]) for kind in ("hit", "missed face", "false alarm"))
    alarmed = f"{alarms} false {'alarm' if alarms == 1 else 'alarms'}"
    counts = f"{hits} {'hit' if hits == 1 else 'hits'}, {misses} missed, {alarmed}"
    axes.set_xlabel(counts, fontsize=SMALL, color=INK, labelpad=2)


def _box(box: Box, pen: Pen, *, width: float, label: str) -> Rectangle:
    """Return a box on a dark unbroken line, so that it shows on skin and on snow."""
    unbroken = {"dash_offset": 0, "dash_list": None}
    ground = Stroke(linewidth=width + min(1.0, width), foreground="#000000", alpha=0.6, dashes=unbroken)
    return Rectangle(
        box[:2],
        box[2] - box[0],
        box[3] - box[1],
        fill=False,
        edgecolor=pen.color,
        linestyle=pen.dashes,
        linewidth=width,
        label=label,
        path_effects=[ground, Normal()],
    )
