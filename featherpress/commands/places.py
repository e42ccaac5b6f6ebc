"""Where results go: checked before the work, so that nothing is lost at its end.

A file that is there is replaced where it is the same command's own of before, and no other is.
"""

import os
from collections.abc import Callable
from pathlib import Path

from featherpress.errors import FeatherpressError, UsageError


def require_place(path: Path | None, *, folder: bool = False) -> None:
    """Refuse a path where no file, or no folder, can be written; nothing is created yet.

    Errors: `UsageError` for a path of the other kind, and for a parent that is a file or read-only.
    """
    if path is None:
        return
    if path.exists() and path.is_dir() != folder:
        what, other = ("file", "folder") if folder else ("folder", "file")
        raise UsageError(f"{path} is a {what}; name a {other}")
    # Where a file is replaced, it is its folder that must take the new one.
    start = path if folder and path.exists() else path.absolute().parent
    nearest = next(parent for parent in (start, *start.parents) if parent.exists() or parent == parent.parent)
    if not nearest.is_dir():
        raise UsageError(f"{path} cannot be written: {nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{path} cannot be written: {nearest} is read-only")


def require_own(path: Path | None, is_own: Callable[[Path], object], what: str) -> None:
    """Refuse to replace a file that is not one of a kind, `what` in words, by which `is_own` knows it again.

    An empty file holds nothing to lose, and a device or a pipe is written to.
    Errors: `UsageError` as `require_place`, and for a file of another kind.
    """
    require_place(path)
    if path is None or not path.is_file() or not path.stat().st_size:
        return
    try:
        own = is_own(path)
    except (FeatherpressError, OSError):
        own = False
    if not own:
        raise UsageError(f"{path} is there and is not {what}, so that it is not replaced; name another file")


def require_empty(folder: Path | None) -> None:
    """Refuse a folder for results that is not empty, as old files would be taken for results.

    Errors: `UsageError` as `require_place`, and for what is not empty.
    """
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder; name a new one with --out")
    require_place(folder, folder=True)
