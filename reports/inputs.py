"""What a report is written from: run directories, what lies in them, and records that are named beside them."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featherpress.errors import FileError, UsageError
from featherpress.reports.deployment import Bench, Export, read_bench, read_export
from featherpress.reports.readers import read_audit, read_settings
from featherpress.reports.reading import read_bytes, read_schema
from featherpress.reports.records import Audit, Budget
from featherpress.reports.runs import Run, load_run

KINDS = ("audit", "model", "bench", "export")
# Those that are looked for in a run's folder, too; its audits are its own.
DEPLOYED: Mapping[str, Callable[[Path], Bench | Export | None]] = {"bench": read_bench, "export": read_export}
# Bytes: what is longer is a list of labels or the like, and not opened to see what it is.
LONGEST = 4 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that was given: runs, the settings of models by name, benchmarks and exports.

    Audits of models that no run holds make a run of their own, which has nothing but its budget. `named` are the
    records that were named, `settings_files` those of them that hold settings; `unread` says what was left out.
    """

    runs: tuple[Run, ...]
    settings: Mapping[str, Mapping[str, str]]
    settings_files: tuple[Path, ...]
    benches: tuple[Bench, ...]
    exports: tuple[Export, ...]
    named: tuple[Path, ...]
    unread: tuple[str, ...]

    def needed(self, run: Run) -> tuple[Path, ...]:
        """Return what has to be named for a report of this run: its folder or its audits, and the records beside it."""
        audits = {audit.file for each in self.runs if each.counted_only for _, audit in each.audits}
        own = [audit.file for _, audit in run.audits] if run.counted_only else [run.path]
        return (*own, *(path for path in self.named if path not in audits))


def load_inputs(paths: Sequence[Path]) -> Inputs:
    """Read everything that `paths` name, once each: run directories with the benchmarks and exports in them, and JSON.

    What is found in a run's folder and broken is left out; what is named has to be whole.

    Errors: `UsageError` when there is nothing to report on; `FileError` for what cannot be read.
    """
    folders = _distinct((path for path in paths if not path.is_file()), Path.resolve)
    named = _distinct((path for path in paths if path.is_file()), read_bytes)
    records: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in named:
        records[_kind(path)].append(path)
    runs = [load_run(path) for path in folders]
    runs += _audited([audit for path in records["audit"] if (audit := read_audit(path))], runs)
    if not runs:
        raise UsageError(
            "expected at least one run directory or audit, got none; name a folder that `featherpress distill` wrote, "
            "or the output of `featherpress audit NAME --json`."
        )
    deployed = [record for kind, read in DEPLOYED.items() for path in records[kind] if (record := read(path))]
    found, unread = _find_deployed(folders, {read_bytes(path) for path in named})
    deployed += found
    settings = {name: values for run in runs for name, values in run.settings.items()}
    settings |= dict(known for path in records["model"] if (known := read_settings(path)))
    return Inputs(
        runs=tuple(runs),
        settings=settings,
        settings_files=tuple(records["model"]),
        benches=tuple(each for each in deployed if isinstance(each, Bench)),
        exports=tuple(each for each in deployed if isinstance(each, Export)),
        named=tuple(named),
        unread=tuple(unread),
    )


def _distinct(paths: Iterable[Path], key: Callable[[Path], Hashable]) -> list[Path]:
    """Return the first path of every key."""
    found: dict[Hashable, Path] = {}
    for path in paths:
        found.setdefault(key(path), path)
    return list(found.values())


def _kind(path: Path) -> str:
    """Return which record a file is."""
    schema = read_schema(path)
    kind = schema.removeprefix("featherpress.").removesuffix("/1")
    if kind not in KINDS or schema != f"featherpress.{kind}/1":
        known = ", ".join(f"featherpress.{kind}/1" for kind in KINDS)
        raise FileError(f"{path}: expected a record of one of the schemas {known}, got {schema!r}.")
    return kind


def _find_deployed(folders: Sequence[Path], seen: set[bytes]) -> tuple[list[Bench | Export], list[str]]:
    """Return the benchmarks and exports that lie in the folders, each content once, and why others were left out."""
    found, unread = [], []
    for kind, path in _lying_in(folders):
        content = read_bytes(path)
        if content in seen:
            continue
        seen.add(content)
        try:
            record = DEPLOYED[kind](path)
        except FileError as error:
            unread.append(str(error))
        else:
            found += [record] if record else []
    return found, unread


def _lying_in(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Give each benchmark and export below the folders with its kind, which its schema tells and not its name."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        try:
            kind = _kind(path) if path.is_file() and path.stat().st_size <= LONGEST else ""
        except FileError:
            continue
        if kind in DEPLOYED:
            yield kind, path


def _audited(audits: Sequence[Audit], runs: Sequence[Run]) -> list[Run]:
    """Set each further audit of a model that no run holds beside the first of them; a lone one stands by itself."""
    held = {audit.model for run in runs if run.budget for audit in (run.budget.teacher, run.budget.student) if audit}
    left = [audit for audit in audits if audit.model not in held]
    if len(left) <= 1:
        return [_count_alone(Budget(teacher=None, student=audit, adapters=None)) for audit in left]
    return [_count_alone(Budget(teacher=left[0], student=audit, adapters=None)) for audit in left[1:]]


def _count_alone(budget: Budget) -> Run:
    names = [audit.model for audit in (budget.teacher, budget.student) if audit]
    return replace(Run.empty(Path("-".join(names))), budget=budget, counted_only=True)
