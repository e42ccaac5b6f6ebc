"""Boxes as YOLO's tools write them: a text file an image, and the names of the classes beside.

Source: Redmon et al. 2016, You Only Look Once, and the layouts of Darknet and its successors.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherpress.compress.data.images import image_size
from featherpress.compress.data.sources.class_names import ClassNames, read_class_names
from featherpress.compress.data.sources.image_files import ImageFiles
from featherpress.compress.data.sources.label_lines import LabelLines, numbers_of, shown
from featherpress.compress.data.sources.labelled import LabelledImage
from featherpress.compress.data.sources.labels import SPLITS, Box, Labels, labelled_image, require_new_names
from featherpress.errors import DataError
from featherpress.files import read_bytes

_OVER = 1.001
"""How far rounding may take a share of an image beyond 1."""

_NO_LABELS = {
    "classes.txt",
    "notes.txt",
    "readme.txt",
    "readme.roboflow.txt",
    "readme.dataset.txt",
    "train.txt",
    "val.txt",
    "test.txt",
}


@dataclass(frozen=True, slots=True)
class _Folders:
    """A folder of images, and that of their labels, which may be the same."""

    images: Path
    labels: Path

    def has_labels(self) -> bool:
        """Return whether there is a label file; beside images, one with the name of an image."""
        if self.labels != self.images:
            return self.labels.is_dir() and any(True for _ in self.files())
        files = ImageFiles(self.images)
        return any(files.find_stem(_stem(path, self.labels)) for path in self.files())

    def files(self) -> Iterator[Path]:
        """List the label files, by name."""
        return (path for path in sorted(self.labels.rglob("*.txt")) if path.name.lower() not in _NO_LABELS)


def find_yolo(root: Path, split: str) -> Labels | None:
    """Read the labels of a split, or of a whole folder for no split; None where there are none in this format.

    Errors: DataError with file and line.
    """
    for name in SPLITS.get(split, (split,)):
        names = read_class_names([root, root / name] if name else [root])
        folders = next((each for each in _folders(root, name, names) if each.has_labels()), None)
        if folders is not None and names is not None:
            return read_yolo(folders.images, folders.labels, names)
    return None


def _folders(root: Path, split: str, names: ClassNames | None) -> Iterator[_Folders]:
    """List where images and their labels may lie."""
    for said in names.images(split) if names else ():
        yield _Folders(said, _labels_of(said))
    if split:
        yield _Folders(root / "images" / split, root / "labels" / split)
        # As CVAT names them, after its own subsets.
        yield from (
            _Folders(each, each) for each in root.glob("obj_*_data") if each.name.lower() == f"obj_{split}_data"
        )
    for base in (
        (root / split, root / split / "obj_train_data")
        if split
        else (root, root / "obj_train_data", root / "data" / "obj")
    ):
        yield _Folders(base / "images", base / "labels")
        yield _Folders(base, base)


def _labels_of(images: Path) -> Path:
    """Return the folder in which labels of images lie: `labels` in the place of the last `images`."""
    parts = list(images.parts)
    places = [place for place, part in enumerate(parts) if part.lower() == "images"]
    return Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :]) if places else images


def read_yolo(images: Path, labels: Path, names: ClassNames) -> Labels:
    """Read the labels of every image of a folder; one without a label file, or with an empty one, has no object.

    A line is a class and a box, or a class and the corners of a polygon, as shares of the image.
    Errors: DataError with file and line.
    """
    files, left_out = ImageFiles(images), Counter[str]()
    if not files.files:
        raise DataError(f"expected images in {images}, to which the labels in {labels} belong, found none")
    owned, rows = _own_files(_Folders(images, labels), files, left_out), []
    for place, name in enumerate(files.files, start=1):
        path = owned.get(name)
        left_out["images without a label file, kept as background"] += path is None
        left_out["images with an empty label file, kept as background"] += (
            path is not None and not read_bytes(path, pipes=False).strip()
        )
        rows.append(_read_image(images / name, name, path, names, left_out, place=place))
    if all(row.file is None for row in rows):
        raise DataError(
            f"expected labels in {labels} for the images in {images}, found none that are named as they are"
        )
    return Labels(
        layout="YOLO's text files",
        file=labels,
        images=images,
        rows=rows,
        categories=require_new_names(names.names, names.file),
        places=("image", "line"),
        left_out=left_out,
    )


def _own_files(folders: _Folders, files: ImageFiles, left_out: Counter[str]) -> dict[str, Path]:
    """Return the label file of each image that has one, found by the name, whatever its case and composition."""
    owned: dict[str, Path] = {}
    for path in folders.files():
        stem = _stem(path, folders.labels)
        found = files.find_stem(stem)
        found = [name for name in found if name.rpartition(".")[0] == stem] or found
        if len(found) > 1:
            raise DataError(f"{path}: expected one image of this name, got {found[0]!r} and {found[1]!r}")
        if found and found[0] in owned:
            raise DataError(f"{path}: expected a new image, got {found[0]!r}, which {owned[found[0]].name} labels too")
        owned |= dict.fromkeys(found, path)
        left_out["label files without an image"] += not found
    return owned


def _stem(path: Path, labels: Path) -> str:
    return path.relative_to(labels).as_posix().removesuffix(path.suffix)


def _read_image(
    image: Path, name: str, path: Path | None, names: ClassNames, left_out: Counter[str], *, place: int
) -> LabelledImage:
    if path is None:
        return labelled_image(name, [], left_out, place=place)
    lines, boxes = LabelLines(path), []
    while (line := lines.next()) is not None:
        boxes.append(_box(line, lines, names))
    try:
        width, height = image_size(image)
    except DataError:
        # Whoever reads the image is told.
        return labelled_image(name, [], left_out, place=place, file=path)
    for box in boxes:
        left, top, right, bottom = box.corners
        box.corners = (left * width, top * height, right * width, bottom * height)
    return labelled_image(name, boxes, left_out, place=place, file=path)


def _box(line: str, lines: LabelLines, names: ClassNames) -> Box:
    """Read a line as the corners of a box, from 0 to 1."""
    number, *values = numbers_of(line) or [-1.0]
    wanted = names.numbers_per_box
    if not values or (len(values) != wanted if wanted else len(values) != 4 and (len(values) < 6 or len(values) % 2)):
        what = f"a class and {wanted} numbers" if wanted else "a class and four numbers, or a class and a polygon"
        raise lines.error(f"{what}, got {shown(line)}")
    if not number.is_integer() or not 0 <= number < len(names.names):
        hint = "; do its classes start from 1?" if number == len(names.names) else ""
        raise lines.error(
            f"a class from 0 to {len(names.names) - 1}, as {names.file} lists them, got {shown(line)}{hint}"
        )
    shares = values[:4] if wanted else values
    if min(shares) < 1 - _OVER or max(shares) > _OVER:
        raise lines.error(f"numbers from 0 to 1, as shares of the image's width and height, got {shown(line)}")
    corners = _around(values) if len(shares) > 4 else _corners(shares)
    if min(corners) < -_HALF_OUT or max(corners) > 1 + _HALF_OUT:
        raise lines.error(f"the centre, width and height of a box in the image, got {shown(line)}")
    return Box(corners=corners, label=int(number), place=lines.number)


_HALF_OUT = 0.51
"""A box has its centre in the image, so that no more than half of it lies outside."""


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _around(polygon: Sequence[float]) -> list[float]:
    return [min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])]
