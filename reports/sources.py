"""What a report is written from: run directories, what lies in them, and records that are named beside them."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherpress.errors import FileError, UsageError
from featherpress.records.audit import Audit, Budget, Model
from featherpress.records.deployment import Bench, Export
from featherpress.records.record import Record, read_bytes, read_schema
from featherpress.reports.runs import Run, load_run, settings_in_words

# Those that are looked for in a run's folder, too; its audits are its own.
DEPLOYED: tuple[type[Bench | Export], ...] = (Bench, Export)
KINDS: dict[str | None, type[Record]] = {kind.SCHEMA: kind for kind in (Audit, Model, *DEPLOYED)}
# Bytes: what is longer is a list of labels or the like, and not opened to see what it is.
LONGEST = 4 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
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


def load_sources(paths: Sequence[Path]) -> Sources:
    """Read everything that `paths` name, once each: run directories with the benchmarks and exports in them, and JSON.

    What is found in a run's folder and broken is left out; what is named has to be whole.

    Errors: `UsageError` when there is nothing to report on; `FileError` for what cannot be read.
    """
    folders = _distinct((path for path in paths if not path.is_file()), Path.resolve)
    named = _distinct((path for path in paths if path.is_file()), read_bytes)
    records = [_kind(path).load(path) for path in named]
    models = [each for each in records if isinstance(each, Model)]
    runs = [load_run(path) for path in folders]
    runs += _audited([each for each in records if isinstance(each, Audit)], runs)
    if not runs:
        raise UsageError(
            "expected at least one run directory or audit, got none; name a folder that `featherpress distill` wrote, "
            "or the output of `featherpress audit NAME --json`."
        )
    found, unread = _find_deployed(folders, {read_bytes(path) for path in named})
    deployed = [*records, *found]
    settings = {name: values for run in runs for name, values in run.settings.items()}
    settings |= {model.name: settings_in_words(model.settings) for model in models}
    return Sources(
        runs=tuple(runs),
        settings=settings,
        settings_files=tuple(model.file for model in models),
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


def _kind(path: Path) -> type[Record]:
    """Return which record a file is."""
    schema = read_schema(path)
    if schema not in KINDS:
        known = ", ".join(kind.SCHEMA for kind in KINDS.values())
        raise FileError(f"{path}: expected a record of one of the schemas {known}, got {schema or ''!r}.")
    return KINDS[schema]


def _find_deployed(folders: Sequence[Path], seen: set[bytes]) -> tuple[list[Record], list[str]]:
    """Return the benchmarks and exports that lie in the folders, each content once, and why others were left out."""
    found: list[Record] = []
    unread = []
    for kind, path in _lying_in(folders):
        content = read_bytes(path)
        if content in seen:
            continue
        seen.add(content)
        try:
            found.append(kind.load(path))
        except FileError as error:
            unread.append(str(error))
    return found, unread


def _lying_in(folders: Sequence[Path]) -> Iterator[tuple[type[Record], Path]]:
    """Give each benchmark and export below the folders with its kind, which its schema tells and not its name."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        try:
            kind = _kind(path) if path.is_file() and path.stat().st_size <= LONGEST else None
        except FileError:
            continue
        if kind in DEPLOYED:
            yield kind, path


def _audited(audits: Sequence[Audit], runs: Sequence[Run]) -> list[Run]:
    """Set each further audit of a model that no run holds beside the first of them; a lone one stands by itself."""
    held = {audit.model for run in runs for _, audit in run.audits}
    left = [audit for audit in audits if audit.model not in held]
    if len(left) <= 1:
        return [_count_alone(Budget(student=audit)) for audit in left]
    return [_count_alone(Budget(teacher=left[0], student=audit)) for audit in left[1:]]


def _count_alone(budget: Budget) -> Run:
    path = Path("-".join(audit.model for audit in budget.audits()))
    return Run(path=path, budget=budget, counted_only=True)
