"""Boxes in Pascal VOC's format: an XML file an image, and lists of the images of each split.

Source: Everingham et al. 2010, The Pascal Visual Object Classes Challenge.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from featherpress.compress.data.sources.image_files import ImageFiles, best_folder, is_image
from featherpress.compress.data.sources.label_lines import LabelLines
from featherpress.compress.data.sources.labels import SPLITS, Box, Labels, labelled_image, require_new_names
from featherpress.errors import DataError
from featherpress.files import read_bytes

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """One XML file, its path below its folder, the image it names, and its objects as (name, corners, difficult)."""

    path: Path
    key: str
    image: str
    size: tuple[int, int] | None
    objects: list[tuple[str, list[float], bool]]


def find_voc(root: Path, split: str) -> Labels | None:
    """Read the labels of a split, or of a whole folder for no split; None where there are none in this format.

    Categories are those of all splits, in the order of their names.
    Errors: DataError with the file, and the line of a list or the number of an object.
    """
    base = next(
        (
            each
            for each in (root, *sorted(root.glob("VOCdevkit/VOC*")), *sorted(root.glob("VOC20*")))
            if _annotations(each)
        ),
        None,
    )
    names = SPLITS.get(split, (split,))
    if base is not None and (annotations := _annotations(base)):
        lists = (
            base / folder / f"{name}.txt"
            for name in names
            for folder in ("ImageSets/Main", "ImageSets/Layout", "ImageSets", ".")
        )
        listed = next((path for path in lists if path.is_file()), None) if split else None
        if split and listed is None:
            return None
        pages = _read_pages(annotations.rglob("*.xml"), annotations)
        chosen = [*pages.values()] if listed is None else [*_listed(listed, pages, annotations)]
        folders = [base / folder for folder in ("JPEGImages", "images", "Images", "img")]
        return _join(chosen, pages.values(), [*folders, base], annotations, listed or annotations)
    for name in names:
        folders = [root / name / folder for folder in ("Annotations", "annotations", "labels", ".")]
        folder = next((each for each in folders if any(each.glob("*.xml"))), None)
        if folder is not None:
            others = [path for path in root.rglob("*.xml") if folder not in path.parents] if split else []
            pages = _read_pages(folder.rglob("*.xml"), folder)
            images = [root / name / "images", root / name / "JPEGImages", root / name, folder]
            return _join(
                [*pages.values()], [*pages.values(), *_read_pages(others, root).values()], images, folder, folder
            )
    return None


def _annotations(base: Path) -> Path | None:
    folders = (base / name for name in ("Annotations", "annotations"))
    return next((folder for folder in folders if any(folder.rglob("*.xml"))), None)


def _listed(path: Path, pages: dict[str, _Page], annotations: Path) -> Iterator[_Page]:
    """Yield the pages of a split's list, which may have more words on a line than the name."""
    lines, seen = LabelLines(path), set[str]()
    while (line := lines.next()) is not None:
        word = line if line in pages else line.rsplit(maxsplit=1)[0] if line.split()[-1] in {"1", "0", "-1"} else line
        name = word.replace("\\", "/").removeprefix("./")
        name = name.rpartition(".")[0] if is_image(name) or name.endswith(".xml") else name
        name = name if name in pages else name.rpartition("/")[2]
        if name not in pages:
            raise lines.error(f"an image with {annotations / name}.xml, found none there")
        if name in seen:
            raise lines.error(f"a new image, got {name!r} a second time")
        seen.add(name)
        yield pages[name]


def _join(
    chosen: list[_Page], everything: Iterable[_Page], folders: list[Path], annotations: Path, file: Path
) -> Labels:
    everything, left_out = [*everything], Counter[str]()
    categories = sorted({name for page in everything for name, _, _ in page.objects})
    files = ImageFiles(best_folder(folders, [page.image for page in chosen]))
    corners = [value for page in everything for _, box, _ in page.objects for value in box]
    # VOC counts pixels from 1, and its tools do; who counts from 0 has a box that starts there.
    first = 1 if corners and min(corners) >= 1 and all(map(float.is_integer, corners)) else 0
    rows, seen = [], dict[str, Path]()
    for place, page in enumerate(chosen, start=1):
        name = _image_of(page, files)
        if name in seen:
            raise DataError(f"{page.path}: expected a new image, got {name!r}, which {seen[name].name} has")
        seen[name] = page.path
        boxes = []
        for number, (category, (left, top, right, bottom), difficult) in enumerate(page.objects, start=1):
            box = (
                [left - first, top - first, right, bottom]
                if right > left and bottom > top
                else [left, top, right, bottom]
            )
            boxes.append(Box(corners=box, label=categories.index(category), place=number, ignored=difficult))
            left_out["difficult boxes, ignored"] += difficult
        left_out["images without a box, kept as background"] += not boxes
        rows.append(labelled_image(name, boxes, left_out, place=place, file=page.path, size=page.size))
    # A list names some of the images in a folder; those of other lists have an XML file beside the chosen.
    unlisted = {page.path for page in everything if annotations in page.path.parents} - {page.path for page in chosen}
    known = {path.stem for path in unlisted}
    left_out["images without an XML file"] += sum(
        Path(name).stem not in known and name not in seen for name in files.files
    )
    return Labels(
        layout=f"Pascal VOC's format, pixels counted from {first}",
        file=file,
        images=files.folder,
        rows=rows,
        categories=require_new_names(categories, annotations),
        places=("image", "object"),
        left_out=left_out,
    )


def _image_of(page: _Page, files: ImageFiles) -> str:
    """Find a page's image: by the name in it, or by its own."""
    inside = page.key.rpartition("/")[0]
    try:
        said = files.find(f"{inside}/{page.image}".lstrip("/")) if page.image else ""
    except DataError as error:
        raise DataError(f"{page.path}: {error}") from error
    beside = files.find_stem(page.key)
    if len(beside) > 1 and said not in beside:
        raise DataError(f"{page.path}: expected one image of this name, got {beside[0]!r} and {beside[1]!r}")
    if beside and said and files.holds(said) and said not in beside:
        raise DataError(f"{page.path}: expected its own image, {beside[0]!r}, as `filename`, got {page.image!r}")
    if said and files.holds(said):
        return said
    return beside[0] if beside else page.image or page.key


def _read_pages(paths: Iterable[Path], folder: Path) -> dict[str, _Page]:
    keys = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(paths)}
    return {key: _read_page(path, key) for key, path in keys.items()}


def _read_page(path: Path, key: str) -> _Page:
    data = read_bytes(path, pipes=False)
    if b"<!ENTITY" in data:
        raise DataError(f"{path}: expected plain XML, got one that defines entities")
    try:
        page = ET.fromstring(data)  # noqa: S314 - without entities there is nothing to expand
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path} is not XML: {error}") from error
    if page.tag != "annotation":
        raise DataError(f"{path}: expected an <annotation>, got <{page.tag}>")
    name = (page.findtext("filename") or "").strip().replace("\\", "/")
    objects = [_read_object(each, f"{path}, object {number}") for number, each in enumerate(page.iterfind("object"), 1)]
    return _Page(path=path, key=key, image=name.rpartition("/")[2], size=_size(page), objects=objects)


def _size(page: ET.Element) -> tuple[int, int] | None:
    """Return the size a page says; tools that could not read the image write 0."""
    said = [(page.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    width, height = (int(text) if text.isdecimal() and len(text) < 10 else 0 for text in said)
    return (width, height) if width and height else None


def _read_object(each: ET.Element, where: str) -> tuple[str, list[float], bool]:
    name = (each.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{where}: expected a <name>, got none")
    box = each.find("bndbox")
    if box is None:
        raise DataError(f"{where}: expected a <bndbox>, got {', '.join(f'<{part.tag}>' for part in each)}")
    texts = [(box.findtext(corner) or "").strip() for corner in _CORNERS]
    try:
        corners = [float(text) for text in texts]
    except ValueError:
        corners = []
    if not corners or not all(map(math.isfinite, corners)):
        raise DataError(
            f"{where}: expected four finite numbers as {', '.join(_CORNERS)}, got {', '.join(map(repr, texts))}"
        )
    if corners[2] < corners[0] or corners[3] < corners[1]:
        raise DataError(f"{where}: expected xmin up to xmax and ymin up to ymax, got {', '.join(texts)}")
    difficult = (each.findtext("difficult") or "0").strip().lower()
    if difficult not in {"0", "1"}:
        raise DataError(f"{where}: expected 0 or 1 as <difficult>, got {difficult!r}")
    return name, corners, difficult == "1"
