"""Arrays in a file: written completely or not at all, and refused in one sentence when broken."""

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from featherpress.errors import DataError
from featherpress.files import replacing

Arrays = dict[str, NDArray[Any]]
Content = TypeVar("Content")

# What zipfile, zlib and numpy's header parser raise on damaged files, and we on what is not in them.
_BROKEN = (
    *(AttributeError, EOFError, KeyError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write one compressed npz of plain arrays, complete or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_arrays(path: Path, build: Callable[[Arrays], Content], *, what: str) -> Content:
    """Build from what `save_arrays` wrote; `what` names it in the words of an error.

    Errors: DataError for a missing, truncated or foreign file.
    """
    try:
        # numpy leaves a broken file open when it opens it itself.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return build({key: file[key] for key in file.files})
    except FileNotFoundError as error:
        raise DataError(f"No saved {what} at {path}: give a file that an evaluation wrote.") from error
    except _BROKEN as error:
        why = str(error).partition(". ")[0]  # numpy goes on to advise what is not safe
        raise DataError(f"{path} is not a complete file of saved {what} ({why}): evaluate again.") from error


class Saved:
    """What is kept in one npz: a class whose `from_arrays` takes the arrays that its `save` wrote; `WHAT` names it."""

    __slots__ = ()
    WHAT: ClassVar[str]

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Take the arrays of a saved file."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Errors: DataError for a missing, truncated or foreign file.
        """
        return load_arrays(path, cls.from_arrays, what=cls.WHAT)
