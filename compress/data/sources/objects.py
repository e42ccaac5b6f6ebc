"""Labelled images of any categories, in whatever layout they lie."""

from collections.abc import Sequence
from pathlib import Path

from featherpress.compress.data.samples import Objects
from featherpress.compress.data.sources.class_names import LISTS, SETTINGS
from featherpress.compress.data.sources.coco_files import FILES, find_coco
from featherpress.compress.data.sources.labelled import LabelledFolder
from featherpress.compress.data.sources.labels import Labels
from featherpress.compress.data.sources.voc import find_voc
from featherpress.compress.data.sources.yolo import find_yolo
from featherpress.errors import DataError


class LabelledObjects(LabelledFolder):
    """Labelled images as they were read; says how many, in which layout, and what was left out.

    Errors: DataError for boxes from 0 to 1, and on reading an image that does not fit its label.
    """

    def __init__(self, labels: Labels, *, limit: int | None = None) -> None:
        self.places, self.layout = labels.places, labels.layout
        super().__init__(
            labels.images,
            labels.rows,
            labels=labels.file,
            limit=limit,
            categories=labels.categories,
            left_out=labels.left_out,
        )


def open_objects(
    root: Path | str, split: str = "", *, categories: Sequence[str] = (), limit: int | None = None
) -> LabelledObjects:
    """Open labelled images in COCO's, YOLO's or Pascal VOC's layout, found by looking; all categories, or some.

    Without a split the whole folder is one. Categories are numbered in the order given, or in that of the labels.
    Errors: DataError where no layout fits, which says what was looked for, and where a label is not as expected.
    """
    labels = find_labels(Path(root), split)
    return LabelledObjects(labels.choose(categories) if categories else labels, limit=limit)


def find_labels(root: Path, split: str = "", *, anywhere: bool = False) -> Labels:
    """Read the labels of a split, or of a whole folder, in the first layout that fits.

    With `anywhere`, a folder without such a split is taken as a whole.
    Errors: DataError as `open_objects`.
    """
    if not root.is_dir():
        raise DataError(f"expected labelled images in {root}, found no such folder")
    for part in (split, "") if anywhere else (split,):
        for find in (find_coco, find_yolo, find_voc):
            labels = find(root, part)
            if labels is not None:
                return labels
    _refuse_whole(root, split)
    of = f" of the split {split!r}" if split else ""
    at = f"{split}/" if split else ""
    lists = (
        f"Annotations/*.xml with ImageSets/Main/{split}.txt or {split}/*.xml" if split else "Annotations/*.xml or *.xml"
    )
    raise DataError(
        f"expected labels{of} in {root}, found none; looked for {at}annotations.json, "
        f"{', '.join(FILES[1:])} and annotations/*.json (COCO's format), labels/*.txt beside images/ with "
        f"{', '.join((SETTINGS[0], *LISTS[:2]))} (YOLO's), {lists} (Pascal VOC's)"
    )


def _refuse_whole(root: Path, split: str) -> None:
    """Say of labels that are there, but for one undivided folder, how to divide them."""
    for find in (find_coco, find_yolo, find_voc) if split else ():
        labels = find(root, "")
        if labels is not None:
            raise DataError(
                f"expected labels of the split {split!r} in {root}, found {len(labels.rows):,} images in "
                f"{labels.layout} without such a split: put what to train on into {root / 'train'} and what to score "
                f"on into {root / 'val'}, each with its labels"
            )


class CocoFaces(LabelledObjects):
    """Labelled faces in any of these layouts, as `open_objects` finds them.

    Faces are of one category: the only one, the one called "face", or the one named. Crowds, difficult and empty boxes
    are ignored faces. Five key points, all labelled, are the landmarks.
    Errors: DataError as `open_objects`, and where it is not clear which category the faces are.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "",
        *,
        category: str = "",
        limit: int | None = None,
        anywhere: bool = False,
    ) -> None:
        labels = find_labels(Path(root), split, anywhere=anywhere)
        super().__init__(labels.choose([_face_category(labels, category)]), limit=limit)

    def faces(self, index: int) -> Objects:
        """Return the labelled faces of one image, without reading it."""
        return self.labelled[index].objects


def _face_category(labels: Labels, wanted: str) -> str:
    """Choose the category whose boxes are the faces."""
    if wanted:
        return wanted
    if "face" in map(str.casefold, labels.categories):
        return "face"
    if len(labels.categories) == 1:
        return labels.categories[0]
    raise DataError(
        f"{labels.file}: expected one category, or one named 'face', got {labels.listed}; say which one holds the faces"
    )
