"""Files that are there whole or not at all: written under a temporary name, then renamed."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PARTS, _PART_BYTES = 64, 4096


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside a file: it becomes the file when the block succeeds, and is removed when it fails.

    The folder is made where it is missing, and a link is followed. Several processes may write the same file at once:
    the last one wins.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # a device or a pipe is written to, and not replaced
        yield path
        return
    target = resolve(path) if path.is_symlink() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with naming(path, temporary):
            yield temporary
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path, *, pipes: bool = True) -> bytes:
    """Read a file whole, or a pipe to its end unless no `pipes` are to be waited for.

    Errors: `OSError`, for a device too, which may never end.
    """
    if path.is_char_device() or path.is_block_device() or (path.is_fifo() and not pipes):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_bytes()


def split_weights(name: str) -> tuple[str, Path | None]:
    """Split `TARGET@FILE`, a model with a file's weights, and the shape of a pruned one; without a file None.

    A module may lie in a folder with an @ in its name, as `nets@2/mine.py:net`.
    """
    target, _, file = name.partition("@")
    if ":" not in target and ":" in file and not Path(file).is_file():
        folder, colon, factory = name.partition(":")
        target, _, file = factory.partition("@")
        target = folder + colon + target
    return target, Path(file) if file else None


def is_table(path: Path) -> bool:
    """Tell a table, of cells between commas or tabs, by its suffix."""
    return path.suffix.lower() in {".csv", ".tsv"}


def separator(text: str) -> str:
    """Return what is between the cells of a table: tabs where its heading has one, else commas."""
    return "\t" if "\t" in text.partition("\n")[0] else ","


def resolve(path: Path) -> Path:
    """Return where a path leads in the end; a link that leads to itself stays what it is, and is no error."""
    return Path(os.path.realpath(path))


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an error of the disk name the file, not its `temporary`: a full one does not say what it was to hold."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def require_readable(path: Path) -> None:
    """Raise the system's error for a file that may not be read: safetensors says that there is none."""
    path.open("rb").close()


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole, on the disk before it has its name."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON, whole or not at all.

    Errors: `ValueError` for NaN and infinity, which JSON does not have.
    """
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def hash_file(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_file(path: Path) -> str:
    """Return a short text that changes with a file's content, empty where there is none; of large files parts are read.

    These are 64 of 4 kB, evenly spread, and the size: a photograph that is another one differs in all of them.
    """
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.blake2b(str(size).encode(), digest_size=8)
            if size <= _PARTS * _PART_BYTES:
                digest.update(file.read())
            else:
                for number in range(_PARTS):
                    file.seek(number * (size - _PART_BYTES) // (_PARTS - 1))
                    digest.update(file.read(_PART_BYTES))
            return digest.hexdigest()
    except OSError:
        return ""
