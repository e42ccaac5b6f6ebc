"""From the name that labels give an image to its file, however a tool or a file system spells it."""

import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from featherpress.compress.data.images import UNREAD
from featherpress.errors import DataError

logger = logging.getLogger("featherpress")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_ARCHIVE = re.compile(r"^.*?\.zip@?/")
_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an image that it was given."""


class ImageFiles:
    """The images of a folder, found by the names in labels.

    Slashes either way, letters composed or not, in either case, quoted as in a URL, with folders in front that are not
    there, inside an archive that was unpacked, and with Label Studio's prefix or without are the same name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> str:
        """Return the path below the folder; the name itself where no file fits.

        Errors: DataError where several do.
        """
        spellings = [*_spellings(name.replace("\\", "/"))]
        for spelling in spellings:
            if self.holds(spelling):
                return spelling
        for spelling in spellings:
            found = self._by_key.get(_key(spelling), [])
            if len(found) > 1:
                raise DataError(f"expected one image in {self.folder} for {name!r}, got {found[0]!r} and {found[1]!r}")
            if found:
                return found[0]
        return spellings[0]

    def find_stem(self, stem: str) -> list[str]:
        """Return the images whose path below the folder is this, but for the suffix."""
        return self._by_stem.get(_key(stem), [])

    def holds(self, name: str) -> bool:
        """Return whether a file lies there by exactly this name."""
        return (self.folder / name).is_file()

    @cached_property
    def files(self) -> list[str]:
        """Every image below the folder, by its path in it."""
        found = []
        for base, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(base).relative_to(self.folder)
            found += [(inside / name).as_posix() for name in files if is_image(name)]
        return sorted(found)

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        table, bare = _table(self.files, str), _table(self.files, _without_prefix)
        return bare | table

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _table(self.files, lambda name: name.rpartition(".")[0])


def is_image(name: str) -> bool:
    """Return whether a file has the suffix of an image, and is none that a file system keeps for itself."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def warn_of_unread(files: Iterable[Path], folder: Path) -> list[Path]:
    """Say how many files of a folder are photographs in a format that is not read, name one, and return them."""
    unread = [path for path in files if path.suffix.lower() in UNREAD]
    if unread:
        logger.warning(
            "passed over %d %s in %s in a format that is not read, as %s: convert them to JPEG or PNG",
            len(unread),
            "photograph" if len(unread) == 1 else "photographs",
            folder,
            unread[0].relative_to(folder),
        )
    return unread


def is_inside_name(name: str) -> bool:
    """Return whether a name is a relative path without `..`, for POSIX and for Windows."""
    paths = (PurePosixPath(name), PureWindowsPath(name))
    leaves = any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)
    return bool(name) and "\0" not in name and not leaves


def best_folder(folders: Iterable[Path], names: Iterable[str]) -> Path:
    """Return the folder that holds most of some images, the first of equals, and only one that is there if any is.

    A folder that has them by exactly these names comes before one that has them by others.
    """
    sample = [name.replace("\\", "/") for name in names][:20]
    folders = [*dict.fromkeys(folders)]
    there = [folder for folder in folders if folder.is_dir()]

    def held(folder: Path) -> tuple[int, int]:
        files = ImageFiles(folder)
        exact = sum(files.holds(name) for name in sample)
        loose = 0 if exact else sum(any(map(files.holds, _spellings(name))) for name in sample)
        return exact, loose

    return max(there or folders, key=held)


def _spellings(name: str) -> Iterator[str]:
    """Give a name as it is, and as other tools write it; folders in front are taken off one by one."""
    bare = _ARCHIVE.sub("", name)
    for each in dict.fromkeys((name, bare, unquote(name), unquote(bare))):
        if not is_inside_name(each):
            continue
        parts = [part for part in each.split("/") if part not in {"", "."}]
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        yield from tails
        yield from (bare for tail in tails if (bare := _without_prefix(tail)) != tail)


def _without_prefix(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + _PREFIX.sub("", file)


def _table(names: Iterable[str], part: Callable[[str], str]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for name in names:
        table.setdefault(_key(part(name)), []).append(name)
    return table


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
