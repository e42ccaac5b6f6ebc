"""Where tools put a file in COCO's format, and the images it names."""

import json
from pathlib import Path

from featherpress.compress.data.sources.coco import LISTS, read_coco
from featherpress.compress.data.sources.labels import SPLITS, Labels
from featherpress.errors import DataError
from featherpress.files import read_bytes

FILES = ("annotations.json", "_annotations.coco.json", "result.json", "labels.json", "coco.json")
"""Ours and CVAT's, Roboflow's, Label Studio's, FiftyOne's; COCO's own lie in a folder `annotations`."""


def find_coco(root: Path, split: str) -> Labels | None:
    """Read the labels of a split, or of a whole folder for no split; None where there are none in this format.

    Errors: DataError where several files could be meant, and as `read_coco`.
    """
    for name in SPLITS.get(split, (split,)):
        found = [root / name / file for file in FILES if (root / name / file).is_file()][:1]
        for pattern in _patterns(name):
            found = found or sorted(root.glob(pattern))
        if not found:
            found = [path for path in sorted((root / name).glob("*.json")) if _looks_right(path)]
        if len(found) > 1:
            listed = ", ".join(str(path.relative_to(root)) for path in found[:5])
            raise DataError(f"expected one COCO file for {split or 'all images'} in {root}, found {listed}")
        if found:
            return read_coco(found[0], _image_folders(root, name, found[0]))
    return None


def _patterns(split: str) -> list[str]:
    if not split:
        return ["annotations/instances_default.json", "annotations/*.json"]
    kinds = ("instances_", "person_keypoints_", "")
    patterns = [
        f"annotations/{kind}{case}{end}.json"
        for kind in kinds
        for case in (split, split.title())
        for end in ("", "[0-9]*")
    ]
    return [*patterns, f"annotations/*_{split}.json", f"{split}.json", f"labels/{split}.json"]


def _looks_right(path: Path) -> bool:
    try:
        content = json.loads(read_bytes(path, pipes=False))
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and all(key in content for key in LISTS)


def _image_folders(root: Path, split: str, file: Path) -> list[Path]:
    """List where the images of a file may lie, the first of which is taken if none of them is anywhere."""
    beside, base = file.parent, file.stem.rpartition("_")[2]
    own = [beside / name for name in ("images", "data") if (beside / name).is_dir()]
    named = [folder / name for folder in (root / "images", root) for name in dict.fromkeys((base, split)) if name]
    return [
        *own,
        beside,
        *named,
        root / split / "images",
        root / "images",
        root / "images" / "default",
        root / "data",
        root,
    ]
