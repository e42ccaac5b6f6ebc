"""WIDER FACE: its folder layout, its label files, and RetinaFace's five landmarks beside them.

Source: Yang et al. 2016, WIDER FACE; Deng et al. 2019, RetinaFace (labels v1.1).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from featherpress.compress.data.samples import Objects
from featherpress.compress.data.sources.label_lines import BOX_FIELDS, LabelLines
from featherpress.compress.data.sources.labelled import LabelledFolder, LabelledImage
from featherpress.errors import DataError

INVALID_FIELD = 7

LANDMARK_FIELDS = (19, 20)
"""x, y, w, h, five times (x, y, visibility) and, in most files, a score; visibility -1: not labelled."""


class WiderFaces(LabelledFolder):
    """One split of WIDER FACE; landmarks come with it when RetinaFace's labels lie beside it.

    `root` is a folder in WIDER FACE's layout (`WIDER_train`, `WIDER_val`, `wider_face_split` and, if there are
    landmarks, `retinaface_gt_v1.1`), or the one that holds such a folder as `widerface`.
    `limit` keeps the first images only.
    Errors: DataError where the layout or a label is not as expected, and on reading an image that cannot be used.
    """

    def __init__(self, root: Path | str, split: str, *, limit: int | None = None) -> None:
        base = _find_base(Path(root))
        labels = base / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        images = base / f"WIDER_{split}" / "images"
        for expected in (labels, images):
            if not expected.exists():
                raise DataError(f"expected {expected} for the split {split!r} of WIDER FACE, found nothing there")
        labelled = read_labels(labels)
        landmarks = base / "retinaface_gt_v1.1" / split / "label.txt"
        if landmarks.is_file():
            labelled = _join(labelled, read_landmarks(landmarks))
        super().__init__(images, list(labelled.values()), labels=labels, limit=limit)
        self.split = split


def read_labels(path: Path) -> dict[str, LabelledImage]:
    """Read a `wider_face_*_bbx_gt.txt`: for every image its name, the number of faces, and a line for each.

    Faces that WIDER marks invalid, or that are empty, come out ignored.
    Errors: DataError with file and line.
    """
    labelled: dict[str, LabelledImage] = {}
    lines = LabelLines(path)
    while (line := lines.next()) is not None:
        name = lines.name(line)
        if name in labelled:
            raise lines.error(f"a new image, got {name!r} a second time")
        place, rows, places = lines.number, [], []
        for _ in range(lines.count(name)):
            rows.append(lines.parse(lines.next(), name, {BOX_FIELDS}))
            places.append(lines.number)
        if not rows:
            lines.skip_zeros()
        labelled[name] = LabelledImage(name=name, objects=_faces(rows), place=place, object_places=tuple(places))
    return labelled


def read_landmarks(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Read RetinaFace's `label.txt`: boxes (n, 4) as x, y, w, h and landmarks (n, 10) of every labelled face, by image.

    Errors: DataError with file and line.
    """
    rows: dict[str, list[list[float]]] = {}
    lines = LabelLines(path)
    name: str | None = None
    while (line := lines.next()) is not None:
        if line.startswith("#"):
            name = lines.name(line[1:].strip())
            if name in rows:
                raise lines.error(f"a new image, got {name!r} a second time")
            rows[name] = []
        elif name is None:
            raise lines.error(f"'# image' before its faces, got {line[:40]!r}")
        else:
            numbers = lines.parse(line, name, {4, 5, *LANDMARK_FIELDS})
            if len(numbers) in LANDMARK_FIELDS and min(numbers[6:19:3]) >= 0:
                rows[name].append(numbers[:4] + [n for i, n in enumerate(numbers[4:19]) if i % 3 != 2])
    tables = {name: torch.tensor(faces).view(-1, 14) for name, faces in rows.items()}
    return {name: (table[:, :4], table[:, 4:]) for name, table in tables.items()}


def is_widerface(root: Path) -> bool:
    """Return whether a folder, or a folder `widerface` in it, is in WIDER FACE's layout."""
    return any((base / "wider_face_split").is_dir() for base in (root, root / "widerface"))


def _find_base(root: Path) -> Path:
    for base in (root, root / "widerface"):
        if (base / "wider_face_split").is_dir():
            return base
    raise DataError(
        f"expected WIDER FACE in {root} (wider_face_split beside WIDER_train and WIDER_val, or all of them in "
        f"a folder widerface), found {'no such folders' if root.is_dir() else 'no such folder'}"
    )


def _faces(rows: list[list[float]]) -> Objects:
    table = torch.tensor(rows).view(-1, BOX_FIELDS)
    corner, size = table[:, :2], table[:, 2:4]
    ignored = (table[:, INVALID_FIELD] != 0) | (size <= 0).any(dim=1)
    return Objects.without_landmarks(torch.cat([corner, corner + size], dim=1), ignored)


def _join(
    labelled: Mapping[str, LabelledImage], landmarks: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, LabelledImage]:
    """Add landmarks to the faces whose box lies within a pixel of a labelled one."""
    joined = dict(labelled)
    for name, (boxes, points) in landmarks.items():
        if name not in labelled or not len(labelled[name].objects) or not len(boxes):
            continue
        own = labelled[name].objects
        xywh = torch.cat([own.boxes[:, :2], own.sizes], dim=1)
        distance, nearest = torch.cdist(xywh, boxes, p=math.inf).min(dim=1)
        matched = distance <= 1
        faces = replace(own, landmarks=points[nearest] * matched[:, None], has_landmarks=matched)
        joined[name] = replace(labelled[name], objects=faces)
    return joined
