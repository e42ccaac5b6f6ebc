"""Evaluation on WIDER FACE's own validation images: the official faces, and the three official scores."""

from pathlib import Path

import torch

from featherpress.compress.data.samples import Objects
from featherpress.compress.data.sources.labelled import LabelledFolder, LabelledImage
from featherpress.compress.evaluation.detections import DetectionSet, FloatArray
from featherpress.compress.evaluation.widerface.files import (
    WiderImage,
    WiderPredictions,
    prediction_rows,
    read_ground_truth,
)
from featherpress.compress.evaluation.widerface.protocol import WiderScores, evaluate_widerface
from featherpress.errors import DataError


class OfficialImages(LabelledFolder):
    """The images of the ground truth that a folder holds, each with the faces that Hard counts; others are ignored.

    `root` holds `WIDER_val/images`, or `widerface` with that in it, or the folders of the events themselves.
    `missing` is how many images of the ground truth are not there. Unless `present_only`, none may be.
    Errors: DataError where images are missing, and as `read_ground_truth`.
    """

    # These labels are the protocol's, whatever they say.
    places, outside_allowed = ("image", "face"), True

    def __init__(self, root: Path, ground_truth: Path, *, present_only: bool = False, limit: int | None = None) -> None:
        images = _find_images(root)
        official = read_ground_truth(ground_truth)
        self.official = tuple(each for each in official if (images / _name(each)).is_file())
        self.missing = len(official) - len(self.official)
        if self.missing and not (present_only and self.official):
            first = next(_name(each) for each in official if not (images / _name(each)).is_file())
            others = f"first {limit} of the others" if limit else "others"
            hint = f"; --present-only scores the {others}, which is not an official result" if self.official else ""
            raise DataError(
                f"{self.missing:,} of the {len(official):,} images of the ground truth are not in {images}, first "
                f"{first}{hint}"
            )
        labels = ground_truth / "wider_face_val.mat"
        labelled = [*map(_labelled, range(1, len(self.official) + 1), self.official)]
        super().__init__(images, labelled, labels=labels, limit=limit)
        self.missing += len(self.official) - len(self)
        self.official = self.official[: len(self)]

    def score(self, predictions: DetectionSet) -> WiderScores:
        """Score predictions for these images by the official protocol."""
        return evaluate_widerface(predictions_by_event(predictions), self.official, partial=bool(self.missing))


def predictions_by_event(predictions: DetectionSet) -> WiderPredictions:
    """Order detections by event and image, as rows of x, y, width, height and score.

    Errors: DataError for an image that lies in no event's folder.
    """
    by_event: dict[str, dict[str, FloatArray]] = {}
    for name, each in zip(predictions.names, predictions.detections, strict=True):
        event, _, image = name.rpartition("/")
        if not event:
            raise DataError(f"expected every image in a folder of its event, as WIDER FACE has them, got {name!r}")
        by_event.setdefault(event, {})[image.removesuffix(".jpg")] = prediction_rows(each)
    return by_event


def _find_images(root: Path) -> Path:
    for images in (root / "WIDER_val" / "images", root / "widerface" / "WIDER_val" / "images", root):
        if images.is_dir():
            return images
    raise DataError(f"expected WIDER FACE's validation images in {root}, found no such folder")


def _name(image: WiderImage) -> str:
    return f"{image.event}/{image.name}.jpg"


def _labelled(number: int, image: WiderImage) -> LabelledImage:
    boxes = torch.from_numpy(image.boxes).float()
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    faces = Objects.without_landmarks(corners, torch.from_numpy(~image.counted["hard"]))
    return LabelledImage(name=_name(image), objects=faces, place=number, object_places=tuple(range(1, len(boxes) + 1)))
