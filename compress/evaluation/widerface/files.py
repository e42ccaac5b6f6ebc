"""The files of the WIDER FACE evaluation: text predictions and the official ground truth."""

import math
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.detections import BoolArray, Detections, FloatArray
from featherpress.errors import DataError

WiderPredictions: TypeAlias = Mapping[str, Mapping[str, FloatArray]]
"""By event and image name (no suffix), the detections as rows of x, y, width, height, score."""

SUBSETS = ("easy", "medium", "hard")

_SHARES = 1.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WiderImage:
    """The labelled faces of one image, and which of them each subset counts.

    Shapes: boxes (n, 4) as x, y, width, height; counted[subset] (n,), False where the face is ignored.
    """

    event: str
    name: str
    boxes: NDArray[np.float64]
    counted: Mapping[str, BoolArray]


def prediction_rows(detections: Detections) -> NDArray[np.float64]:
    """Return detections as the rows of a prediction file.

    Shapes: boxes (k, 4) as x1, y1, x2, y2 -> (k, 5) as x, y, width, height, score.
    """
    corners = detections.boxes.astype(np.float64)
    scores = detections.scores.astype(np.float64)
    return np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2], scores])


def write_predictions(folder: Path, predictions: WiderPredictions) -> None:
    """Write `<event>/<image>.txt` for every image, with all the digits it takes to read the same numbers back."""
    for event, images in predictions.items():
        (folder / event).mkdir(parents=True, exist_ok=True)
        for name, rows in images.items():
            lines = [f"{event}/{name}.jpg", str(len(rows))]
            lines += [" ".join(map(repr, row)) for row in rows.tolist()]
            (folder / event / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_predictions(source: Path) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Read the text predictions in a folder or a tar archive of one.

    A file's folder names the event and its first line the image. Folders around those of the events do not matter.
    Archives are read in place, so nothing in one can reach the disk.

    Errors: DataError for a missing, empty or broken source, with the file and the line.
    """
    predictions: dict[str, dict[str, NDArray[np.float64]]] = {}
    for event, where, text in _texts(source):
        name, rows = _parse(text, where)
        images = predictions.setdefault(event, {})
        if name in images:
            raise DataError(f"{where}, line 1: predictions for {event}/{name} were read already; keep one of the two.")
        images[name] = rows
    if not predictions:
        raise DataError(f"No predictions in {source}: expected <event>/<image>.txt for every image.")
    rows = np.concatenate([each for images in predictions.values() for each in images.values()])
    rows = rows[(rows[:, 2:4] > 0).all(axis=1)]
    if len(rows) and (rows[:, :2] + rows[:, 2:4]).max() <= _SHARES:
        raise DataError(
            f"{source}: expected boxes in pixels, got {len(rows):,} that all lie within 0 to 1: multiply them by the "
            "width and the height of their images"
        )
    return predictions


def _texts(source: Path) -> Iterator[tuple[str, str, str]]:
    """Yield event, where the file lies, and its text."""
    if not source.exists():
        raise DataError(f"No predictions at {source}: give a folder with one folder an event, or a tar.gz of it.")
    files = _folder_files(source) if source.is_dir() else _archive_files(source)
    for event, where, raw in files:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise DataError(f"{where}, line {line}: expected plain text; got bytes that are not UTF-8.") from error
        yield event, where, text


def _folder_files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    for path in sorted(source.rglob("*.txt")):
        if path.parent != source and not path.name.startswith("."):
            yield path.parent.name, str(path), path.read_bytes()


def _archive_files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                file = archive.extractfile(member) if member.isreg() else None
                if file and path.suffix == ".txt" and path.parent.name and not path.name.startswith("."):
                    yield path.parent.name, f"{source}: {path}", file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source} is not a whole tar archive ({error}): give a folder or a tar.gz of it.") from error


def _parse(text: str, where: str) -> tuple[str, NDArray[np.float64]]:
    """Read one file: the image, the number of detections, then one detection a line."""
    lines = text.splitlines()
    name = PurePosixPath(lines[0].strip()).name.removesuffix(".jpg") if lines else ""
    if not name:
        raise DataError(f"{where}, line 1: expected the image, as <event>/<image>.jpg; got an empty line.")
    rows = []
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()[:5]
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 5 or not all(map(math.isfinite, row)):
            raise DataError(f"{where}, line {number}: expected x, y, width, height and score; got {line.strip()!r}.")
        rows.append(row)
    stated = lines[1].strip() if len(lines) > 1 else ""
    if stated != str(len(rows)):
        raise DataError(
            f"{where}, line 2: expected the number of detections that follow, {len(rows)}; got {stated!r}. "
            "The file may be cut short."
        )
    return name, np.array(rows, dtype=np.float64).reshape(-1, 5)


def read_ground_truth(folder: Path) -> tuple[WiderImage, ...]:
    """Read the official `wider_face_val.mat` and the lists of the three subsets beside it.

    Errors: DataError for a file that is missing or does not hold what it should.
    """
    faces = _load_mat(folder / "wider_face_val.mat", ("event_list", "file_list", "face_bbx_list"))
    lists = {subset: _load_mat(folder / f"wider_{subset}_val.mat", ("gt_list",))["gt_list"] for subset in SUBSETS}
    try:
        return tuple(_images(faces, lists))
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"The lists in {folder} do not fit together ({error}): use the official four files.") from error


def _load_mat(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    # Only this reader needs scipy, and it is slow to import.
    from scipy.io import loadmat  # noqa: PLC0415

    if not path.is_file():
        raise DataError(f"No {path.name} in {path.parent}: give the folder with the official WIDER FACE .mat files.")
    try:
        content: dict[str, NDArray[Any]] = loadmat(path, variable_names=names)
        return {name: content[name] for name in names}
    except KeyError as error:
        raise DataError(f"{path} lacks {error}: use the official WIDER FACE .mat files.") from error
    except Exception as error:  # scipy raises anything on what is broken
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}): use the official one.") from error


def _images(faces: dict[str, NDArray[Any]], lists: dict[str, NDArray[Any]]) -> Iterator[WiderImage]:
    for i, event in enumerate(faces["event_list"][:, 0]):
        boxes_of, names = faces["face_bbx_list"][i, 0], faces["file_list"][i, 0]
        for j, name in enumerate(names[:, 0]):
            boxes = boxes_of[j, 0].astype(np.float64).reshape(-1, 4)
            counted = {}
            for subset in SUBSETS:
                numbers = lists[subset][i, 0][j, 0].ravel().astype(np.int64)  # counted from 1
                if (numbers < 1).any():
                    raise ValueError(f"{subset} counts face 0 of {name[0]}")
                counted[subset] = np.zeros(len(boxes), np.bool_)
                counted[subset][numbers - 1] = True
            yield WiderImage(event=str(event[0]), name=str(name[0]), boxes=boxes, counted=counted)
