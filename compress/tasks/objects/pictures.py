"""Images with what is there and what each model found, side by side, for a report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from featherpress.compress.data.examples import ExampleDataset
from featherpress.compress.evaluation.metrics.mean_precision import ObjectSet
from featherpress.compress.tasks.segmentation.pictures import class_colours
from featherpress.records.run import LegendEntry, Panel, PanelRow, Pictures

_LONG_SIDE = 480
_SHOWN = 6
_SURE = 0.3
"""From this score on a detection is drawn."""


def write_pictures(folder: Path, dataset: ExampleDataset, predictions: Mapping[str, ObjectSet]) -> None:
    """Save a few images, evenly spaced, with the boxes of the truth and of every model, `pictures.json` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {dataset.name(index): index for index in range(len(dataset))}
    first = next(iter(predictions.values()))
    places = np.linspace(0, len(first.names) - 1, min(_SHOWN, len(first.names))).round().astype(int).tolist()
    colours = class_colours(len(first.categories))
    rows = []
    for number, place in enumerate(places):
        image = dataset[numbers[first.names[place]]].image.permute(1, 2, 0).numpy()
        panels = {"truth": _rows(first.labelled, place, first.truth_boxes, first.truth_classes)}
        for role, each in predictions.items():
            boxes, classes, scores = _rows(each.found, place, each.boxes, each.classes, each.scores)
            panels[role] = (boxes[scores >= _SURE], classes[scores >= _SURE])
        saved = []
        for name, (boxes, classes) in panels.items():
            file = f"{number:03d}_{name}.jpg"
            _drawn(image, boxes, [tuple(colours[kind].tolist()) for kind in classes]).save(folder / file, quality=90)
            saved.append(Panel(name=name, file=file))
        rows.append(PanelRow(file=first.names[place], panels=tuple(saved)))
    legend = tuple(
        LegendEntry(name=name, colour=f"#{bytes(colours[kind].tolist()).hex()}")
        for kind, name in enumerate(first.categories)
    )
    Pictures(images=tuple(rows), legend=legend).save(folder / "pictures.json")


def _rows(counts: NDArray[Any], place: int, *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Take the rows of one image."""
    start = int(counts[:place].sum())
    return tuple(column[start : start + int(counts[place])] for column in columns)


def _drawn(image: NDArray[np.uint8], boxes: NDArray[Any], colours: list[tuple[int, ...]]) -> Image.Image:
    """Draw boxes into a picture, reduced where it is large."""
    picture = Image.fromarray(image)
    scale = min(1.0, _LONG_SIDE / max(picture.size))
    picture = picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
    draw = ImageDraw.Draw(picture)
    for box, colour in zip((boxes * scale).tolist(), colours, strict=True):
        draw.rectangle(box, outline=colour, width=2)
    return picture
