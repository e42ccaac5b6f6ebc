"""The names of a YOLO data set's classes: `data.yaml`, `classes.txt`, or Darknet's `obj.names`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featherpress.compress.data.sources.label_lines import LabelLines
from featherpress.compress.data.sources.labels import SPLITS
from featherpress.errors import DataError
from featherpress.extras import require_extra
from featherpress.files import read_bytes

SETTINGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LISTS = ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "labels/classes.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNames:
    """Names in the order of their numbers, and the file that has them.

    `numbers_per_box` is how many numbers follow a class where the file says so, as for key points; else 0.
    """

    names: tuple[str, ...]
    file: Path
    numbers_per_box: int = 0
    content: Mapping[str, Any] = field(default_factory=dict)

    def images(self, split: str) -> Iterator[Path]:
        """List the folders that the file names for a split, wherever its tool thought that they lie."""
        base = self.file.parent
        own = self.content.get("path")
        for key in SPLITS.get(split, (split,)):
            said = self.content.get(key)
            if not isinstance(said, str):
                continue
            said = said.replace("\\", "/")
            bases = [base / str(own), base] if isinstance(own, str) else [base]
            inside = said.lstrip("./")
            yield from (folder for each in bases for folder in (each / said, each / inside) if folder.is_dir())


def read_class_names(folders: Iterable[Path]) -> ClassNames | None:
    """Read the first such file in one of the folders; None where there is none.

    Errors: DataError where a file does not name its classes.
    """
    for folder in folders:
        for name in SETTINGS:
            if (folder / name).is_file():
                return _read_settings(folder / name)
        for name in LISTS:
            if (folder / name).is_file():
                lines = LabelLines(folder / name)
                return ClassNames(names=tuple(iter(lines.next, None)), file=folder / name)
    return None


def _read_settings(path: Path) -> ClassNames:
    require_extra("train", f"reading {path}")
    # Comes with the extra.
    import yaml  # noqa: PLC0415

    try:
        content = yaml.safe_load(read_bytes(path, pipes=False))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        names = [names.get(number) for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
        raise DataError(
            f"{path}: expected `names`, a list of the classes or a table of them from 0 on, got {str(names)[:60]}"
        )
    count = content.get("nc", len(names))
    if count != len(names):
        raise DataError(f"{path}: expected as many `names` as `nc` says, {count}, got {len(names)}")
    points = content.get("kpt_shape") or [0, 0]
    return ClassNames(
        names=tuple(map(str, names)),
        file=path,
        numbers_per_box=4 + points[0] * points[1] if points[0] else 0,
        content=content,
    )
