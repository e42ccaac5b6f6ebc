"""Run folders: which files they hold, and how these are written."""

import csv
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from featherpress.compress.runtime.distributed import by_leader
from featherpress.errors import UsageError
from featherpress.files import naming, write_text
from featherpress.records.run import PROVENANCE

logger = logging.getLogger("featherpress")

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def open_run(folder: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[Path]:
    """Create a run's folder, or open an old one again, and lock it against other runs.

    Of several processes the first does so, while the others wait. Files that a run was writing when it ended are
    removed.

    Errors: `UsageError` as `check_folder`, and for a folder another process works in; on all processes.
    """
    lock = FileLock(folder / ".lock", timeout=0)

    def prepare() -> str:
        _check(folder, resume=resume, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        _lock(lock, folder)
        # Another run may have come and gone since.
        if _check(folder, resume=resume, overwrite=overwrite) and not resume:
            _empty(folder)
        for file in folder.rglob(".*.partial"):
            file.unlink(missing_ok=True)
        return ""

    try:
        by_leader(prepare)
        yield folder
    finally:
        lock.release()


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check, before any work, that a run may use a folder.

    Errors: `UsageError` for a folder that holds something when neither `resume` nor `overwrite` is given, for one that
    lies in another run, and for nothing to resume; on all processes.
    """
    by_leader(lambda: str(_check(folder, resume=resume, overwrite=overwrite)))


def _check(folder: Path, *, resume: bool, overwrite: bool) -> bool:
    """Check a folder, and return whether it holds something already."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder for the run")
    owner = next((each for each in folder.absolute().parents if (each / PROVENANCE).is_file()), None)
    if owner is not None:
        raise UsageError(f"{folder} lies in the run {owner}, whose files these would be; choose another --out")
    filled = is_begun(folder)
    if filled and not resume and not overwrite:
        raise UsageError(f"{folder} is not empty; add --resume to go on with it or --overwrite to start again")
    if resume and not filled:
        raise UsageError(f"there is no run in {folder} to resume")
    return filled


def is_begun(folder: Path) -> bool:
    """Return whether a run has left anything in its folder to go on with."""
    return folder.is_dir() and any(item.name != ".lock" for item in folder.iterdir())


def _lock(lock: FileLock, folder: Path) -> None:
    """Lock a folder; where the file system cannot, as some on a network, that is said, and the run goes on."""
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"another process is working in {folder}; wait for it or choose another --out") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        logger.warning("%s cannot be locked here: see to it that no other run uses it", folder)


_FILES = re.compile(
    r"(recipe\.toml|provenance\.json|sweep\.json|pruned\.safetensors|pruning\.json|labels(-\d+)?\.json"
    r"|environment\.json|budget\.json|compute\.json|log\.txt|metrics\.csv|events\.out\..*|\.lock|\..*\.partial)"
)
_FOLDERS = re.compile(
    r"(weights|state|eval|report|labels|cache|decoded|control|public|shuffled|smoothing|compute|teacher(-\d+)?|ablation"
    r"|seed-\d+|(params|macs)-\d+)"
)


def _empty(folder: Path) -> None:
    """Remove a run's files and folders; a folder that holds anything else is left untouched."""
    items = sorted(folder.iterdir())
    foreign = [item.name for item in items if not _is_ours(item)]
    if foreign or not any(_FILES.fullmatch(item.name) and item.name != ".lock" for item in items):
        what = f"holds {foreign[0]!r}" if foreign else "holds no run"
        raise UsageError(f"{folder} {what}, so that it does not look like a run; --overwrite removes runs only")
    for item in items:
        if item.name != ".lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()


def _is_ours(item: Path) -> bool:
    return bool((_FOLDERS if item.is_dir() and not item.is_symlink() else _FILES).fullmatch(item.name))


class TrainingFolder:
    """The files of one model in training: metrics, weights, states, evaluations.

    `last_weights` are the averaged weights at the end, `best_weights` those at the best evaluation so far; `evaluation`
    is the record of the evaluation on the validation images, `matches` every detection behind it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("weights", "state", "eval"):
            (path / name).mkdir(parents=True, exist_ok=True)
        self.last_weights, self.best_weights = (path / "weights" / f"{each}.safetensors" for each in ("last", "best"))
        self.evaluation, self.matches = (path / "eval" / f"validation.{suffix}" for suffix in ("json", "npz"))

    @property
    def scored(self) -> bool:
        """Whether the model was trained to the end and scored."""
        return self.evaluation.exists() and self.matches.exists()

    @property
    def states(self) -> list[Path]:
        """States to resume from, newest first."""
        return sorted((self.path / "state").glob("step-*.pt"), reverse=True)

    def state(self, step: int) -> Path:
        """Where the state after a step is kept."""
        return self.path / "state" / f"step-{step:08d}.pt"


class MetricsFile:
    """`metrics.csv`: one row a logged step, appended as it happens."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def keep_until(self, step: int, *, evaluated: int | None = None) -> None:
        """Drop rows after a step, as a resumed run will write them again, and write the heading.

        Rows with a validation score are dropped after the step `evaluated` already, where that is given.
        """
        rows = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
                rows = [row for row in csv.DictReader(file) if (row["step"] or "").isdecimal()]
        last = {True: step if evaluated is None else evaluated, False: step}
        rows = [row for row in rows if int(row["step"]) <= last[_is_evaluation(row)]]
        lines = [",".join(self.columns), *(",".join(row.get(name) or "" for name in self.columns) for row in rows)]
        write_text(self.path, "\n".join(lines) + "\n")

    def append(self, row: Mapping[str, float | int]) -> None:
        """Add a row; columns it does not name stay empty."""
        cells = (_cell(row[name]) if name in row else "" for name in self.columns)
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(cells) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _is_evaluation(row: Mapping[str, str | None]) -> bool:
    return any(value for name, value in row.items() if name and name.startswith("val_"))


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
