"""Boxes in COCO's format: one JSON of images, annotations and categories.

Source: Lin et al. 2014, Microsoft COCO, and its data format.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featherpress.compress.data.sources.coco_points import PointOrder, is_finite, read_points
from featherpress.compress.data.sources.image_files import ImageFiles, best_folder, is_inside_name
from featherpress.compress.data.sources.labels import Box, Labels, labelled_image, require_new_names
from featherpress.compress.data.sources.segments import box_of_segments
from featherpress.errors import DataError
from featherpress.files import read_bytes

LISTS = ("images", "annotations", "categories")
"""What such a file is made of."""

_FLAGS = {"iscrowd": "crowds, ignored", "ignore": "boxes marked `ignore`, ignored"}


def read_coco(path: Path, folders: Sequence[Path] = ()) -> Labels:
    """Read the labels of every image in the file's order; images and annotations are counted from 1 in errors.

    Images are looked for in each of the folders, or beside the file.
    Errors: DataError with the file and the place in it.
    """
    content, left_out = _load(path), Counter[str]()
    for number, row in enumerate(content["images"], start=1):
        _require(row, ("id", "file_name"), f"{path}, image {number}")
    names = [row["file_name"] for row in content["images"] if isinstance(row["file_name"], str)]
    files = ImageFiles(best_folder(folders or [path.parent], names))
    images = _images(content["images"], files, path)
    categories = _categories(content, path, left_out)
    numbers = {key: number for number, key in enumerate(categories)}
    boxes: dict[object, list[Box]] = {key: [] for key in images}
    for number, row in enumerate(content["annotations"], start=1):
        where = f"{path}, annotation {number}"
        _require(row, ("image_id", "category_id"), where)
        category = _listed(row, "category_id", categories, "categories", where)
        box = Box(corners=_corners(row, where), label=numbers[category], place=number)
        flags = [_flag(row, key, where, left_out) for key in _FLAGS]
        box.ignored = any(flags)
        box.points = read_points(row, categories[category], where, left_out)
        boxes[_listed(row, "image_id", images, "images", where)].append(box)
    _count_others(files, images, boxes, left_out)
    return Labels(
        layout="COCO's format",
        file=path,
        images=files.folder,
        rows=[
            labelled_image(name, boxes[key], left_out, place=place, size=size)
            for place, (key, (name, size)) in enumerate(images.items(), start=1)
        ],
        categories=require_new_names((order.category for order in categories.values()), path),
        places=("image", "annotation"),
        left_out=left_out,
    )


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(read_bytes(path, pipes=False))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images, annotations and categories, got {_kind(content)}")
    for key in LISTS:
        if not isinstance(content.get(key), list):
            got = _kind(content[key]) if key in content else "nothing"
            raise DataError(f"{path}: expected a list under `{key}`, got {got}")
    return content


def _categories(content: Mapping[str, list[Any]], path: Path, left_out: Counter[str]) -> dict[object, PointOrder]:
    """Map the categories' ids to their names and points; one that only heads others, as Roboflow's, is left out."""
    rows: dict[object, PointOrder] = {}
    used = {
        row.get("category_id")
        for row in content["annotations"]
        if isinstance(row, dict) and _is_id(row.get("category_id"))
    }
    above = {
        row.get("supercategory")
        for row in content["categories"]
        if isinstance(row, dict) and isinstance(row.get("supercategory"), str)
    }
    for number, row in enumerate(content["categories"], start=1):
        where = f"{path}, category {number}"
        _require(row, ("id", "name"), where)
        key = _id(row["id"], where, "a category")
        if key in rows:
            raise DataError(f"{where}: expected a new category, got the id {key!r} a second time")
        heads = isinstance(row["name"], str) and row["name"] in above
        if heads and row.get("supercategory") in (None, "", "none") and key not in used:
            left_out[f"category {row['name']!r}, which only heads others"] += 1
        else:
            rows[key] = PointOrder.of(row, content["annotations"], key, where)
    return rows


def _images(rows: Sequence[Any], files: ImageFiles, path: Path) -> dict[object, tuple[str, tuple[int, int] | None]]:
    """Map the images' ids to their files and sizes."""
    images: dict[object, tuple[str, tuple[int, int] | None]] = {}
    seen: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, image {number}"
        key, said = _id(row["id"], where, "an image"), row["file_name"]
        if not isinstance(said, str) or not is_inside_name(said.replace("\\", "/")) or not is_inside_name(said):
            raise DataError(f"{where}: expected a path inside the image folder as file_name, got {said!r}")
        try:
            name = files.find(said)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if key in images or name in seen:
            what = f"the id {key!r}" if key in images else f"the file_name {said!r}"
            also = f", of the file that {seen[name]!r} is" if name in seen and seen[name] != said else ""
            raise DataError(f"{where}: expected a new image, got {what} a second time{also}")
        images[key] = name, _size(row)
        seen[name] = said
    return images


def _size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the width and height that a file says of an image; converters that know neither write 0."""
    said = row.get("width"), row.get("height")
    return (int(said[0]), int(said[1])) if all(is_finite(each) and each > 0 for each in said) else None  # type: ignore[arg-type, operator]


def _corners(row: Mapping[str, Any], where: str) -> list[float]:
    """Return the corners of an annotation's box, or of the box around its segments where it has none."""
    box = row.get("bbox")
    if box is None or box == []:
        around = box_of_segments(row.get("segmentation"), where)
        if around is None:
            got = f"{box!r} and no segmentation" if "bbox" in row else ", ".join(sorted(map(str, row)))
            raise DataError(f"{where}: expected the key 'bbox', got {got}")
        return around
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        raise DataError(f"{where}: expected four finite numbers x, y, width, height as bbox, got {str(box)[:60]}")
    if min(box[2:]) < 0:
        raise DataError(f"{where}: expected a width and height of at least 0 in bbox, got {str(box)[:60]}")
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _flag(row: Mapping[str, Any], key: str, where: str, left_out: Counter[str]) -> bool:
    value = row.get(key)
    if value is None:
        return False
    if not isinstance(value, int | float) or value not in {0, 1}:
        raise DataError(f"{where}: expected 0 or 1 as {key}, got {value!r}")
    left_out[_FLAGS[key]] += int(value)
    return bool(value)


def _count_others(
    files: ImageFiles,
    images: Mapping[object, tuple[str, Any]],
    boxes: Mapping[object, list[Box]],
    left_out: Counter[str],
) -> None:
    named = {name for name, _ in images.values()}
    left_out["images that the labels do not name"] += sum(name not in named for name in files.files)
    left_out["images without a box, kept as background"] += sum(not each for each in boxes.values())


def _listed(row: Mapping[str, Any], key: str, known: Mapping[object, Any], where_listed: str, where: str) -> object:
    """Return an id that must be one of those listed."""
    value = row[key]
    if _is_id(value) and value in known:
        return value
    same = any(str(each) == str(value) for each in known)
    hint = "; one of the two is text and the other a number" if same else ""
    article = "an" if key.startswith("i") else "a"
    raise DataError(f"{where}: expected {article} {key} of `{where_listed}`, got {value!r}{hint}")


def _require(row: object, keys: Sequence[str], where: str) -> None:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, got {_kind(row)}")
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"{where}: expected the key {missing[0]!r}, got {', '.join(sorted(row)) or 'none'}")


def _id(value: object, where: str, what: str) -> object:
    if not _is_id(value):
        raise DataError(f"{where}: expected a number or text as {what}'s id, got {_kind(value)}")
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
