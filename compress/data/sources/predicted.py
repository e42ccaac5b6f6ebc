"""Images with the faces that another model found in them, in place of labels."""

from pathlib import Path

import torch

from featherpress.compress.data.samples import Objects
from featherpress.compress.data.sources.labelled import LabelledFolder, LabelledImage
from featherpress.errors import DataError
from featherpress.records.run import DetectedFaces, DetectedImage

POSITIVE_THRESHOLD = 0.6
"""From this score on, what a teacher finds in a photograph is taken for a face."""


class PredictedFaces(LabelledFolder):
    """The images of a folder with what a model found there, as `featherpress detect --json` wrote it.

    What scores `positive_threshold` or more is a face; the rest is ignored, and so are empty boxes. This compares two
    models where nobody labelled anything. Their agreement is not accuracy: both may be wrong.
    Errors: FileError where the file is another, or names an image outside the folder.
    """

    places, outside_allowed = ("image", "face"), True

    def __init__(
        self, root: Path, path: Path, *, positive_threshold: float = POSITIVE_THRESHOLD, limit: int | None = None
    ) -> None:
        self.positive_threshold, predictions = positive_threshold, DetectedFaces.load(path)
        self.ignore_threshold = predictions.threshold
        self.found_by = {key: getattr(predictions, key) for key in ("model", "weights", "weights_sha256")}
        images = [
            _read(row, place, root=root, path=path, positive_threshold=positive_threshold)
            for place, row in enumerate(predictions.images, 1)
        ]
        super().__init__(root, images, labels=path, limit=limit)


def _read(row: DetectedImage, place: int, *, root: Path, path: Path, positive_threshold: float) -> LabelledImage:
    file = Path(row.file).absolute()
    if not file.is_relative_to(root.absolute()):
        raise DataError(f"{path}, image {place}: expected an image in {root}, got {row.file}")
    boxes = torch.tensor([face.box for face in row.faces], dtype=torch.float32).view(-1, 4)
    uncertain = torch.tensor([face.score < positive_threshold for face in row.faces], dtype=torch.bool)
    faces = Objects.without_landmarks(boxes, uncertain | (boxes[:, 2:] <= boxes[:, :2]).any(dim=1))
    name = file.relative_to(root.absolute()).as_posix()
    return LabelledImage(name=name, objects=faces, place=place, object_places=tuple(range(1, len(row.faces) + 1)))
