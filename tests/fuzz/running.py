"""Read broken files for as long as asked, and list what was no sentence: other errors, hangs, growth."""

import contextlib
import logging
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherpress.errors import FeatherpressError

from .mutating import mutate
from .targets import TARGETS, Target

SECONDS, GROWTH = 5.0, 200 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A file that was answered by no sentence; `seed` and `case` make it again."""

    target: str
    seed: int
    case: int
    what: str


def run(cases: int, seed: int, names: Sequence[str] = ()) -> Iterator[Failure]:
    """Read so many broken files, every kind in turn."""
    chosen = [*(names or TARGETS)]
    logging.disable(logging.CRITICAL)
    try:
        for case in range(cases):
            name = chosen[case % len(chosen)]
            yield from _read(name, TARGETS[name], seed, case)
    finally:
        logging.disable(logging.NOTSET)


def write_case(target: Target, name: str, seed: int, case: int, folder: Path) -> None:
    """Write the files of a case into a folder."""
    chance = random.Random(f"{name} {seed} {case}")  # noqa: S311 - to be the same again
    content = mutate(chance.choice(target.seeds), chance)
    for file, beside in {**target.beside, target.file: content}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(beside)


def _read(name: str, target: Target, seed: int, case: int) -> Iterator[Failure]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        write_case(target, name, seed, case, folder)
        before, began = _peak(), time.process_time()
        what = _error(target, folder)
        seconds, grown = time.process_time() - began, _peak() - before
        if seconds > SECONDS:
            what = f"{what} took {seconds:.1f} s"
        if grown > GROWTH:
            what = f"{what} grew by {grown >> 20} MB"
        if what:
            yield Failure(target=name, seed=seed, case=case, what=what.strip())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _error(target: Target, folder: Path) -> str:
    """Return what an error says that is no sentence of ours; nothing where all is well."""
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
            warnings.simplefilter("ignore")
            target.read(folder)
    except (FeatherpressError, OSError):
        return ""
    except Exception:
        return traceback.format_exc(limit=-3)
    return ""


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
