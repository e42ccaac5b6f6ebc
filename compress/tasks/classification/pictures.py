"""Wrong answers of classifiers as pictures, for a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from featherpress.compress.data.examples import ExampleDataset
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.tasks.segmentation.pictures import reduced
from featherpress.records.run import Panel, PanelRow, Pictures

_SHOWN = 6
_LOSSLESS = 64
"""Up to so many pixels a side JPEG would show more of itself than of the image."""


def write_wrong(
    folder: Path, dataset: ExampleDataset, answers: Mapping[str, ClassPredictions], *, classes: Sequence[str]
) -> None:
    """Save the images that a model other than the teacher was surest of and wrong, `pictures.json` beside them.

    Nothing is written where none is wrong, or where probabilities were not kept.
    """
    first = next(iter(answers.values()))
    if not all(len(each.probability) for each in answers.values()):
        return
    pupils = [each for role, each in answers.items() if role != "teacher"] or [first]
    sure = np.max([np.where(each.predicted == each.labels, 0, each.probability) for each in pupils], axis=0)
    places = [place for place in np.argsort(-sure, kind="stable")[:_SHOWN].tolist() if sure[place]]
    if not places:
        return
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {dataset.name(index): index for index in range(len(dataset))}
    rows = []
    for number, place in enumerate(places):
        name = first.names[place]
        picture = reduced(Image.fromarray(dataset[numbers[name]].image.permute(1, 2, 0).numpy()))
        file = f"{number:03d}.{'png' if max(picture.size) <= _LOSSLESS else 'jpg'}"
        picture.save(folder / file)
        truth = Panel(name="truth", file=file, text=classes[first.labels[place]])
        said = [Panel(name=role, text=_said(each, place, classes)) for role, each in answers.items()]
        rows.append(PanelRow(file=name, panels=(truth, *said)))
    caption = (
        "The wrong answers that a model other than the teacher was surest of: below an image is what it shows, beside "
        "it what each model says and the probability that it gives that."
    )
    Pictures(images=tuple(rows), caption=caption).save(folder / "pictures.json")


def _said(answers: ClassPredictions, place: int, classes: Sequence[str]) -> str:
    """Say what a model answers, whether that is right, and how likely it holds it."""
    mark = "\N{CHECK MARK}" if answers.predicted[place] == answers.labels[place] else "\N{BALLOT X}"
    return f"{mark} {classes[answers.predicted[place]]}\n{answers.probability[place]:.1%}"
