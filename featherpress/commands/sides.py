"""The sides of a comparison: models, files, records of audits, and revisions of a repository."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import featherpress
from featherpress.commands.model_files import audit_file, is_file
from featherpress.commands.subjects import audit_model
from featherpress.errors import CountError, UsageError
from featherpress.records.audit import Audit, Pin, Weights
from featherpress.records.record import read_kind

if TYPE_CHECKING:
    from featherpress.budgets.counting.costs import Cost
    from featherpress.budgets.counting.formulas import Formula

_RECORDS: tuple[type[Audit | Pin | Weights], ...] = (Audit, Pin, Weights)
_MAIN = "from featherpress.cli import main; main()"


def open_side(
    name: str,
    *,
    inputs: Sequence[str],
    settings: Mapping[str, Any],
    formulas: "Mapping[str, Formula]",
    weights: Path | None = None,
) -> "Cost | Audit | Pin | Weights":
    """Count a model, in the shape that `weights` of a pruned one have, or a file, or read a record of an audit.

    Errors: UsageError for weights of what is no model.
    """
    if weights is not None and (is_file(name) or name.endswith(".json")):
        raise UsageError(f"--weights is for a model: {name} is a file")
    if name.endswith(".json") and not is_file(name):
        return _load(Path(name))
    if is_file(name):
        return audit_file(name, inputs=inputs, formulas=formulas).cost
    return audit_model(name, inputs=inputs, settings=settings, formulas=formulas, budget=None, weights=weights).cost


def refuse_unused(sides: Sequence[str], settings: object, inputs: object) -> None:
    """Refuse what no side takes: `settings` are for models, and `inputs` or formulas for models and files, not records.

    Errors: UsageError.
    """
    records = [name.endswith(".json") and not is_file(name) for name in sides]
    if settings and all(record or is_file(name) for record, name in zip(records, sides, strict=True)):
        raise UsageError(f"--set is for a model: {' and '.join(sides)} are none")
    if inputs and all(records):
        raise UsageError(f"--input and --formula are for what is counted: {' and '.join(sides)} are records")


def _load(file: Path) -> Audit | Pin | Weights:
    found = read_kind(file, _RECORDS).load(file)
    assert isinstance(found, (Audit, Pin, Weights))
    return found


def split_range(before: str, after: str) -> tuple[str, str]:
    """Read `A..B`, `A...B` (from where B left A) and two names as git does; a side left out is HEAD.

    Errors: UsageError for one name alone.
    """
    first, dots, second = before.partition("...") if "..." in before else before.partition("..")
    if dots and not after:
        first, second = first or "HEAD", second or "HEAD"
        return (_git("merge-base", first, second) if dots == "..." else first), second
    if dots or not after:
        raise UsageError(f"--target is compared between two revisions, as main...HEAD or main HEAD; got {before!r}")
    return before, after


def audit_revision(revision: str, target: str, words: Sequence[str]) -> Audit | Pin | Weights:
    """Audit a target as it was at a revision, in a worktree and a process of its own.

    Errors: UsageError and CountError, which name the revision.
    """
    if ":" not in target and not is_file(target):
        raise UsageError(f"--target is package.module:factory or a file of the repository, got {target!r}")
    with _worktree(revision) as folder:
        command = [sys.executable, "-P", "-c", _MAIN, "audit", target, *words, "--json"]
        home = Path(featherpress.__file__).resolve().parents[1]
        path = [str(folder / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep), str(home)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "GITHUB_STEP_SUMMARY": ""}
        ended = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)  # noqa: S603
        if ended.returncode not in {0, 1} or not ended.stdout:
            reason = (ended.stderr.strip() or "it ended without a word").splitlines()[-1].removeprefix("featherpress: ")
            kind = CountError if ended.returncode == CountError.exit_code else UsageError
            raise kind(f"at {revision}: {reason}")
        record = Path(folder).parent / "audit.json"
        record.write_text(ended.stdout, encoding="utf-8")
        return _load(record)


@contextmanager
def _worktree(revision: str) -> Iterator[Path]:
    """Check a revision out beside the repository, and yield what stands for the working folder in it."""
    inside = _git("rev-parse", "--show-prefix")
    try:
        commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except UsageError as error:
        raise UsageError(f"at {revision}: {error}") from error
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "tree"
        _git("-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--quiet", "--detach", str(place), commit)
        try:
            yield place / inside
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*words: str) -> str:
    try:
        ended = subprocess.run(["git", *words], check=False, capture_output=True, text=True)  # noqa: S603, S607
    except FileNotFoundError as error:
        raise UsageError("comparing revisions needs git, which is not installed") from error
    if ended.returncode:
        reason = (ended.stderr.strip() or f"git {words[0]} found nothing").splitlines()[-1]
        advice = "" if "not a git repository" in reason else "; a shallow clone may lack the revision: fetch it first"
        raise UsageError(reason.removeprefix("fatal: ") + advice)
    return ended.stdout.strip()
