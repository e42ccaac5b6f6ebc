"""WIDER FACE: its folder layout, its label files, and RetinaFace's five landmarks beside them.

Source: Yang et al. 2016, WIDER FACE; Deng et al. 2019, RetinaFace (labels v1.1).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from torch import Tensor

from featherpress.compress.data.images import decode_image
from featherpress.compress.data.samples import Faces, Sample
from featherpress.errors import DataError, UsageError

__all__ = ["WiderFaces", "read_landmarks", "read_labels"]

BOX_FIELDS = 10
"""x, y, w, h, blur, expression, illumination, invalid, occlusion, pose."""

INVALID_FIELD = 7

LANDMARK_FIELDS = (19, 20)
"""x, y, w, h, five times (x, y, visibility) and, in most files, a score; visibility -1: not labelled."""


class WiderFaces:
    """One split of WIDER FACE; landmarks come with it when RetinaFace's labels lie beside it.

    `root` is a folder in WIDER FACE's layout (`WIDER_train`, `WIDER_val`, `wider_face_split` and, if there are
    landmarks, `retinaface_gt_v1.1`), or the one that holds such a folder as `widerface`.
    `limit` keeps the first images only.
    Errors: DataError where the layout or a label is not as expected, and on reading an image that is broken.
    """

    def __init__(self, root: Path | str, split: str, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"expected a limit of at least 1 image, got {limit}: leave it out to use all")
        base = _find_base(Path(root))
        labels = base / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        self.images = base / f"WIDER_{split}" / "images"
        for expected in (labels, self.images):
            if not expected.exists():
                raise DataError(f"expected {expected} for the split {split!r} of WIDER FACE, found nothing there")
        faces = read_labels(labels)
        landmarks = base / "retinaface_gt_v1.1" / split / "label.txt"
        if landmarks.is_file():
            faces = _join(faces, read_landmarks(landmarks))
        self.split = split
        self._names = list(faces)[:limit]
        self._faces = [faces[name] for name in self._names]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one image; raises DataError where it is broken."""
        name = self._names[index]
        return Sample(image=decode_image(self.images / name), faces=self._faces[index], name=name)

    def name(self, index: int, /) -> str:
        """Name one image as the label file does: folder and file."""
        return self._names[index]

    def faces(self, index: int, /) -> Faces:
        """Give the labels of one image without reading it."""
        return self._faces[index]


def read_labels(path: Path) -> dict[str, Faces]:
    """Read a `wider_face_*_bbx_gt.txt`: for every image its name, the number of faces, and a line for each.

    Faces that WIDER marks invalid, or that are empty, come out ignored.
    Errors: DataError with file and line.
    """
    faces: dict[str, Faces] = {}
    lines = _Lines(path)
    for name in lines.names():
        if name in faces:
            raise lines.error(f"a new image, got {name!r} a second time")
        rows = [lines.numbers(name, {BOX_FIELDS}) for _ in range(lines.count(name))]
        if not rows:
            lines.skip_zeros()
        faces[name] = _faces(rows)
    return faces


def read_landmarks(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Read RetinaFace's `label.txt`: boxes (n, 4) as x, y, w, h and landmarks (n, 10) of every labelled face, by image.

    Errors: DataError with file and line.
    """
    rows: dict[str, list[list[float]]] = {}
    lines = _Lines(path)
    name: str | None = None
    while (line := lines.next()) is not None:
        if line.startswith("#"):
            name = line[1:].strip()
            rows[name] = []
        elif name is None:
            raise lines.error(f"'# image' before its faces, got {line[:40]!r}")
        else:
            numbers = lines.parse(line, name, {4, 5, *LANDMARK_FIELDS})
            if len(numbers) in LANDMARK_FIELDS and min(numbers[6:19:3]) >= 0:
                rows[name].append(numbers[:4] + [n for i, n in enumerate(numbers[4:19]) if i % 3 != 2])
    tables = {name: torch.tensor(faces).view(-1, 14) for name, faces in rows.items()}
    return {name: (table[:, :4], table[:, 4:]) for name, table in tables.items()}


def _find_base(root: Path) -> Path:
    for base in (root, root / "widerface"):
        if (base / "wider_face_split").is_dir():
            return base
    raise DataError(
        f"expected WIDER FACE in {root} (wider_face_split beside WIDER_train and WIDER_val, or all of them in "
        f"a folder widerface), found {'no such folders' if root.is_dir() else 'no such folder'}"
    )


def _faces(rows: list[list[float]]) -> Faces:
    table = torch.tensor(rows).view(-1, BOX_FIELDS)
    corner, size = table[:, :2], table[:, 2:4]
    return Faces(
        boxes=torch.cat([corner, corner + size], dim=1),
        landmarks=torch.zeros(len(table), 10),
        has_landmarks=torch.zeros(len(table), dtype=torch.bool),
        ignored=(table[:, INVALID_FIELD] != 0) | (size <= 0).any(dim=1),
    )


def _join(faces: dict[str, Faces], labelled: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Faces]:
    """Give landmarks to the faces whose box lies within a pixel of a labelled one."""
    joined = dict(faces)
    for name, (boxes, landmarks) in labelled.items():
        if name not in faces or not len(faces[name]) or not len(boxes):
            continue
        own = faces[name]
        xywh = torch.cat([own.boxes[:, :2], own.sizes], dim=1)
        distance, nearest = torch.cdist(xywh, boxes, p=math.inf).min(dim=1)
        found = distance <= 1
        joined[name] = Faces(
            boxes=own.boxes,
            landmarks=landmarks[nearest] * found[:, None],
            has_landmarks=found,
            ignored=own.ignored,
        )
    return joined


@dataclass(slots=True)
class _Lines:
    """The lines of a label file, and where reading stands, so that an error can say it."""

    path: Path
    number: int = 0
    lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        data = self.path.read_bytes()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        # Not splitlines: Latin-1 names may hold characters that it takes for line ends.
        self.lines = tuple(line.strip() for line in text.split("\n"))

    def error(self, message: str) -> DataError:
        """Say what was expected, and where."""
        return DataError(f"{self.path}, line {self.number}: expected {message}")

    def next(self) -> str | None:
        """Take the next line that is not blank."""
        while self.number < len(self.lines):
            self.number += 1
            if line := self.lines[self.number - 1]:
                return line
        return None

    def names(self) -> Iterator[str]:
        """Take image names, until the file ends."""
        while (line := self.next()) is not None:
            yield self.name(line)

    def name(self, line: str) -> str:
        """Check that a line is the path of an image inside the image folder."""
        if len(line.split()) == BOX_FIELDS and _numbers(line):
            raise self.error("an image, got one more face than the number above says")
        for path in (PurePosixPath(line), PureWindowsPath(line)):
            if path.is_absolute() or path.drive or ".." in path.parts:
                raise self.error(f"the path of an image inside the image folder, got {line!r}")
        return line

    def count(self, name: str) -> int:
        """Take the number of faces of an image."""
        line = self.next()
        if line is None or not line.isascii() or not line.isdigit() or len(line) > 9:
            raise self.error(f"the number of faces in {name}, got {_shown(line)}")
        return int(line)

    def numbers(self, name: str, lengths: set[int]) -> list[float]:
        """Take one face."""
        line = self.next()
        if line is None:
            raise self.error(f"one more face in {name}, got {_shown(line)}")
        return self.parse(line, name, lengths)

    def parse(self, line: str, name: str, lengths: set[int]) -> list[float]:
        """Check that a line is a face: so many finite numbers, and a size that is not negative."""
        numbers = _numbers(line)
        if len(numbers) not in lengths:
            wanted = " or ".join(str(length) for length in sorted(lengths))
            raise self.error(f"{wanted} numbers for a face in {name}, got {_shown(line)}")
        if min(numbers[2:4]) < 0:
            raise self.error(f"a width and height of at least 0 for a face in {name}, got {_shown(line)}")
        return numbers

    def skip_zeros(self) -> None:
        """Pass the line of zeros that WIDER FACE writes for an image without faces."""
        if self.number < len(self.lines):
            numbers = _numbers(self.lines[self.number])
            if len(numbers) == BOX_FIELDS and not any(numbers):
                self.number += 1


def _numbers(line: str) -> list[float]:
    """Read finite numbers, or nothing where one is not."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _shown(line: str | None) -> str:
    return "the end of the file" if line is None else repr(line if len(line) <= 60 else line[:57] + "...")
