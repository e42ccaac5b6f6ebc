"""Boxes in COCO's format: one `annotations.json` and the images it names.

Source: Lin et al. 2014, Microsoft COCO, and its data format.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from featherpress.compress.data.samples import Objects
from featherpress.compress.data.sources.labelled import LabelledFolder, LabelledImage, is_finite, is_inside_name
from featherpress.errors import DataError

LABELS = "annotations.json"

POINTS = 15
"""Five times (x, y, visibility): the eyes, the nose and the corners of the mouth, left as seen in the image first."""


class CocoFaces(LabelledFolder):
    """A folder with `annotations.json`, and its images beside that or in a folder `images`.

    Boxes are of one category: the only one, the one called "face", or the one named. Crowds and empty boxes are
    ignored faces. Five key points, all visible, are the landmarks; other numbers of key points are left alone.
    Errors: DataError where the file or a label is not as expected, and on reading an image that cannot be used.
    """

    places = ("image", "annotation")

    def __init__(self, root: Path | str, *, category: str = "", limit: int | None = None) -> None:
        root = Path(root)
        if not (root / LABELS).is_file():
            raise DataError(f"expected {LABELS} in {root}, found {'none' if root.is_dir() else 'no such folder'}")
        images = root / "images"
        super().__init__(
            images if images.is_dir() else root,
            read_coco(root / LABELS, category=category),
            labels=root / LABELS,
            limit=limit,
        )


def read_coco(path: Path, *, category: str = "") -> list[LabelledImage]:
    """Read the labels of every image in the file's order; images and annotations are counted from 1 in errors.

    Errors: DataError with the file and the place in it.
    """
    content = _load(path)
    wanted = _category(content["categories"], category, path)
    names = _names(content["images"], path)
    faces: dict[object, dict[int, list[float]]] = {key: {} for key in names}
    for number, row in enumerate(content["annotations"], start=1):
        where = f"{path}, annotation {number}"
        _require(row, ("image_id", "category_id", "bbox"), where)
        if _key(row["image_id"], where) not in faces:
            raise DataError(f"{where}: expected an image_id of `images`, got {row['image_id']!r}")
        if row["category_id"] == wanted:
            faces[row["image_id"]][number] = _face(row, where)
    return [
        LabelledImage(name=name, objects=_faces(faces[key].values()), place=place, object_places=tuple(faces[key]))
        for place, (key, name) in enumerate(names.items(), start=1)
    ]


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images, annotations and categories, got {_kind(content)}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            got = _kind(content[key]) if key in content else "nothing"
            raise DataError(f"{path}: expected a list under `{key}`, got {got}")
    return content


def _category(rows: Sequence[Any], wanted: str, path: Path) -> object:
    """Choose the category whose boxes are the faces."""
    for number, row in enumerate(rows, start=1):
        _require(row, ("id", "name"), f"{path}, category {number}")
    names = [str(row["name"]) for row in rows]
    listed = ", ".join(map(repr, names[:10])) or "none"
    chosen = [row["id"] for row in rows if str(row["name"]).lower() == (wanted or "face").lower()]
    if not wanted and not chosen and len(rows) == 1:
        chosen = [rows[0]["id"]]
    if len(chosen) == 1:
        return chosen[0]
    if wanted:
        raise DataError(f"{path}: expected one category {wanted!r}, got {listed}")
    raise DataError(f"{path}: expected one category, or one named 'face', got {listed}; say which one holds the faces")


def _names(rows: Sequence[Any], path: Path) -> dict[object, str]:
    """Map the images' ids to their names."""
    names: dict[object, str] = {}
    seen = set()
    for number, row in enumerate(rows, start=1):
        where = f"{path}, image {number}"
        _require(row, ("id", "file_name"), where)
        key, name = _key(row["id"], where), row["file_name"]
        if not isinstance(name, str) or not is_inside_name(name):
            raise DataError(f"{where}: expected a path inside the image folder as file_name, got {name!r}")
        if key in names or name in seen:
            what = f"the id {key!r}" if key in names else f"the file_name {name!r}"
            raise DataError(f"{where}: expected a new image, got {what} a second time")
        names[key] = name
        seen.add(name)
    return names


def _check_box(box: object, where: str) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        raise DataError(f"{where}: expected four finite numbers x, y, width, height as bbox, got {str(box)[:60]}")
    if min(box[2:]) < 0:
        raise DataError(f"{where}: expected a width and height of at least 0 in bbox, got {str(box)[:60]}")


def _face(row: Mapping[str, Any], where: str) -> list[float]:
    """Return the box, whether it is a crowd, whether it has landmarks, and these."""
    _check_box(row["bbox"], where)
    points = _points(row, where)
    return [*row["bbox"], bool(row.get("iscrowd", 0)), bool(points), *(points or [0.0] * 10)]


def _faces(rows: Iterable[Sequence[float]]) -> Objects:
    table = torch.tensor([*rows], dtype=torch.float32).view(-1, 16)
    corner, size = table[:, :2], table[:, 2:4]
    return Objects(
        boxes=torch.cat([corner, corner + size], dim=1),
        landmarks=table[:, 6:],
        has_landmarks=table[:, 5] > 0,
        ignored=(table[:, 4] > 0) | (size <= 0).any(dim=1),
        labels=torch.zeros(len(table), dtype=torch.int64),
    )


def _points(row: Mapping[str, Any], where: str) -> list[float]:
    """Return the five landmarks as x, y pairs; empty where there are not five, or one is not labelled."""
    values = row.get("keypoints")
    if not isinstance(values, list) or len(values) != POINTS:
        return []
    if not all(map(is_finite, values)):
        raise DataError(f"{where}: expected finite numbers as keypoints, got {str(values)[:60]}")
    return [value for i, value in enumerate(values) if i % 3 != 2] if min(values[2::3]) > 0 else []


def _require(row: object, keys: Sequence[str], where: str) -> None:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, got {_kind(row)}")
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"{where}: expected the key {missing[0]!r}, got {', '.join(sorted(row)) or 'none'}")


def _key(value: object, where: str) -> object:
    if isinstance(value, (list, dict)):
        raise DataError(f"{where}: expected a number or text as an image's id, got {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(type(value), "a number")
