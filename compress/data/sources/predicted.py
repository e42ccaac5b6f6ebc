"""Images with the faces that another model found in them, in place of labels."""

import json
from pathlib import Path
from typing import Any

import torch

from featherpress.compress.data.samples import Faces
from featherpress.compress.data.sources.labelled import LabelledFolder, LabelledImage, is_finite
from featherpress.errors import DataError

POSITIVE_THRESHOLD = 0.6
"""From this score on, what a teacher finds in a photograph is taken for a face."""

SCHEMA = "featherpress.detections/1"


class PredictedFaces(LabelledFolder):
    """The images of a folder with what a model found there, as `featherpress detect --json` wrote it.

    What scores `positive_threshold` or more is a face; the rest is ignored, and so are empty boxes. This compares two
    models where nobody labelled anything. Their agreement is not accuracy: both may be wrong.
    Errors: DataError where the file is another, or names an image outside the folder.
    """

    def __init__(
        self, root: Path, path: Path, *, positive_threshold: float = POSITIVE_THRESHOLD, limit: int | None = None
    ) -> None:
        self.positive_threshold, content = positive_threshold, _load(path)
        self.ignore_threshold = float(content["threshold"])
        images = [
            _read(row, place, root=root, path=path, positive_threshold=positive_threshold)
            for place, row in enumerate(content["images"], 1)
        ]
        super().__init__(root, images, labels=path, places=("image", "face"), limit=limit, outside_allowed=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: expected what `featherpress detect --json` writes ({SCHEMA})")
    if not is_finite(content.get("threshold")):
        raise DataError(f"{path}: expected the `threshold` that its faces were found with, got none")
    return content


def _read(row: Any, place: int, *, root: Path, path: Path, positive_threshold: float) -> LabelledImage:
    where = f"{path}, image {place}"
    if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("faces"), list):
        raise DataError(f"{where}: expected a `file` and its `faces`")
    file = Path(row["file"]).absolute()
    if not file.is_relative_to(root.absolute()):
        raise DataError(f"{where}: expected an image in {root}, got {row['file']}")
    found = [_face(face, f"{where}, face {number}") for number, face in enumerate(row["faces"], start=1)]
    boxes = torch.tensor([box for box, _ in found], dtype=torch.float32).view(-1, 4)
    uncertain = torch.tensor([score < positive_threshold for _, score in found], dtype=torch.bool)
    faces = Faces(
        boxes=boxes,
        landmarks=torch.zeros(len(found), 10),
        has_landmarks=torch.zeros(len(found), dtype=torch.bool),
        ignored=uncertain | (boxes[:, 2:] <= boxes[:, :2]).any(dim=1),
    )
    name = file.relative_to(root.absolute()).as_posix()
    return LabelledImage(name=name, faces=faces, place=place, face_places=tuple(range(1, len(found) + 1)))


def _face(face: Any, where: str) -> tuple[list[float], float]:
    box = face.get("box") if isinstance(face, dict) else None
    numbers = [*box, face.get("score")] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(map(is_finite, numbers)):
        raise DataError(f"{where}: expected a `box` of four numbers and a `score`")
    *corners, score = map(float, numbers)
    return corners, score
