"""Images, truths and masks side by side, for a report."""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featherpress.compress.data.examples import ExampleDataset
from featherpress.compress.data.sources.masks import IGNORED
from featherpress.compress.evaluation.metrics.overlap import MaskOverlaps
from featherpress.records.run import LegendEntry, Panel, PanelRow, Pictures

_LONG_SIDE = 480
_GOLDEN = 0.618033988749895
_LIGHTNESS = (0.5, 0.7, 0.38)

Colours = NDArray[np.uint8]


def write_pictures(
    folder: Path, dataset: ExampleDataset, predictions: Mapping[str, MaskOverlaps], *, classes: Sequence[str]
) -> None:
    """Save the images of which all models' masks were kept, `pictures.json` beside them; nothing where there is none.

    Ignored pixels are black in the truth.
    """
    numbers = {dataset.name(index): index for index in range(len(dataset))}
    kept = [set(each.shown) for each in predictions.values()]
    names = [name for name in numbers if kept and all(name in each for each in kept)]
    if not names:
        return
    folder.mkdir(parents=True, exist_ok=True)
    colours = class_colours(len(classes))
    rows = []
    for number, name in enumerate(names):
        example = dataset[numbers[name]]
        masks = {
            "truth": example.target["masks"].numpy(),
            **{role: each.shown[name] for role, each in predictions.items()},
        }
        drawn = {"image": Image.fromarray(example.image.permute(1, 2, 0).numpy())}
        drawn |= {panel: Image.fromarray(colours[mask]) for panel, mask in masks.items()}
        rows.append(PanelRow(file=name, panels=tuple(_save(folder, number, *panel) for panel in drawn.items())))
    legend = [LegendEntry(name=name, colour=_hex(colours[place])) for place, name in enumerate(classes)]
    legend.append(LegendEntry(name="ignored", colour=_hex(colours[IGNORED])))
    Pictures(images=tuple(rows), legend=tuple(legend)).save(folder / "pictures.json")


def class_colours(classes: int) -> Colours:
    """Return a colour for each class, hues as far apart as can be, and black for all other values; (256, 3) uint8."""
    colours = np.zeros((256, 3), np.uint8)
    for number in range(classes):
        hue, lightness = number * _GOLDEN % 1, _LIGHTNESS[number % len(_LIGHTNESS)]
        colours[number] = np.rint(np.multiply(colorsys.hls_to_rgb(hue, lightness, 0.65), 255))
    return colours


def reduced(picture: Image.Image, resample: Image.Resampling = Image.Resampling.BOX) -> Image.Image:
    """Return a picture whose longer side has at most 480 pixels."""
    scale = min(1.0, _LONG_SIDE / max(picture.size))
    return picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)), resample)


def _save(folder: Path, number: int, panel: str, picture: Image.Image) -> Panel:
    """Save one panel, photographs as JPEG and masks as PNG, reduced where they are large."""
    photograph = panel == "image"
    small = reduced(picture, Image.Resampling.BOX if photograph else Image.Resampling.NEAREST)
    file = f"{number:03d}_{panel}.{'jpg' if photograph else 'png'}"
    small.save(folder / file)
    return Panel(name=panel, file=file)


def _hex(colour: Colours) -> str:
    return f"#{bytes(colour.tolist()).hex()}"
