"""What a report is written from: run directories, what lies in them, and records that are named beside them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from featherpress.errors import FileError, UsageError
from featherpress.files import resolve
from featherpress.records.audit import Audit, Budget, Model
from featherpress.records.deployment import Bench, Export
from featherpress.records.evaluation import EVALUATIONS, SCORED, SubsetScores
from featherpress.records.record import Record, read_bytes, read_kind
from featherpress.records.sweep import SWEEP, Sweep
from featherpress.reports.given import Given, ReadScores, is_given, read_given, subsets_given
from featherpress.reports.runs import COMPARISON, IN_A_LOOP, Run, file_names, load_run, scored_runs, target
from featherpress.verdicts.tables import Side, read_tables

Key = TypeVar("Key")

DEPLOYED: tuple[type[Record], ...] = (Bench, Export)
KINDS: tuple[type[Record], ...] = (Audit, Model, *DEPLOYED, *EVALUATIONS, SubsetScores)
_AUDIT = "as `featherpress audit MODEL --json` prints it"
_FOLDER = "expected the folder of a run, got a record that lies in one; give the folder"
INSTEAD = {
    "featherpress.weights/1": f"a file of weights does not say what runs; give an audit of its model, {_AUDIT} with "
    "`--weights FILE`",
    "featherpress.diff/1": f"expected models, got a comparison of two; give an audit of each, {_AUDIT}",
    "featherpress.fit/1": f"expected a model, got what `fit` found; give an audit of it, {_AUDIT} with its `--set`",
    "featherpress.pruning/1": f"expected models, got what was cut; give the run's folder, or an audit of each, "
    f"{_AUDIT}, with `--weights FILE` of what was left",
    "featherpress.pin/1": f"expected an audit, got a baseline that `--pin` wrote; give the audit, {_AUDIT}",
    **{f"featherpress.{name}/1": _FOLDER for name in ("budget", "environment", "provenance", "sweep")},
}
"""What to give in the place of records that are no report's."""
# Bytes: what is longer is a list of labels or the like, and not opened to see what it is.
LONGEST = 4 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All that was given: runs, the settings of models by name, benchmarks and exports.

    Audits of models that no run holds make a run of their own, which has nothing but its budget, and evaluations one
    that has nothing but them. `sweeps` are over budgets; `named` are the records that were named; `given` are numbers
    measured elsewhere, whose scores per example `read_scores` reads; `unread` says what was left out, `asked` how the
    report was asked for.
    """

    runs: Sequence[Run]
    sweeps: Sequence[Sweep]
    settings: Mapping[str, Mapping[str, str]]
    benches: Sequence[Bench]
    exports: Sequence[Export]
    named: Sequence[Record]
    unread: Sequence[str]
    given: Sequence[Given]
    read_scores: ReadScores
    asked: Sequence[str] = ()

    def settings_of(self, audit: Audit) -> Mapping[str, str]:
        """Return what a counted model was built from: as its audit says, or else what is known of its name."""
        if audit.settings:
            return {key: _word(value) for key, value in audit.settings.items()}
        return self.settings.get(audit.model, {})

    def times_of(self, model: str, params: int | None) -> dict[tuple[str, int, int], float]:
        """Return how long a model of so many parameters takes, by setting; under its name or, else, its factory's.

        Units: milliseconds, the median.
        """
        found: dict[tuple[str, int, int], float] = {}
        timings = [timing for bench in self.benches for timing in bench.results]
        fitting = [timing for timing in timings if None in (timing.params, params) or timing.params == params]
        for named in (lambda name: name, target):
            for timing in fitting:
                if named(timing.model) == named(model):
                    found.setdefault(timing.setting, timing.latency_ms.median)
        return found


def read_csv_scores(files: Sequence[Path], order: Sequence[str] | None) -> Side:
    """Read scores per example from CSV files, one a seed.

    Errors: `DataError` for files that cannot be read or compared; `FileError` for one that is not there.
    """
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise FileError(f"{missing}: expected a file of scores per example, got nothing there.")
    return read_tables(files, order=order)


def load_sources(paths: Sequence[Path], read_scores: ReadScores = read_csv_scores) -> Sources:
    """Read everything that `paths` name, once each: run directories with the benchmarks and exports in them, and files.

    A file is a record as JSON, or numbers measured elsewhere. What is found in a run's folder and broken is left out;
    what is named has to be whole. A comparison stands for its run, the folder of an evaluation for its record.

    Errors: `UsageError` when there is nothing to report on; `FileError` for what cannot be read.
    """
    paths = [_run_of(path) for path in paths]
    folders = [*_distinct((path for path in paths if not path.is_file()), Path.resolve).values()]
    files = _distinct((path for path in paths if path.is_file()), read_bytes)
    given = [read_given(path) for path in files.values() if is_given(path)]
    held = {each.file for each in given}
    named = [read_kind(path, KINDS, instead=INSTEAD).load(path) for path in files.values() if path not in held]
    subsets = [each for each in named if isinstance(each, SubsetScores)]
    given += [subsets_given(subsets, file_names([each.file for each in subsets]))] if subsets else []
    sweeps = [Sweep.load(path / SWEEP) for path in folders if (path / SWEEP).is_file()]
    swept = {sweep.file.parent for sweep in sweeps}
    runs = [load_run(path) for path in folders if path not in swept]
    alike = Counter(run.name for run in runs)
    runs = [replace(run, label=str(run.path)) if alike[run.name] > 1 else run for run in runs]
    runs += scored_runs([each for each in named if isinstance(each, EVALUATIONS)])
    runs += _audited([each for each in named if isinstance(each, Audit)], runs)
    found, unread = _find_deployed(folders, set(files))
    if not (runs or given or sweeps or any(isinstance(each, DEPLOYED) for each in named)):
        raise UsageError(
            "expected at least one run directory or a record to report on, got none; name a folder that `featherpress "
            "distill` or `featherpress evaluate --out` wrote, what `audit`, `bench` or `export` saved as JSON, or a "
            "CSV of numbers with a column `model`. What `models show NAME --json` prints goes beside one of these."
        )
    settings = {audit.model: audit.settings for run in runs for _, audit in run.audits if audit.settings}
    settings |= {each.name: each.settings for each in named if isinstance(each, Model)}
    return Sources(
        runs=runs,
        sweeps=sweeps,
        settings={name: {key: _word(value) for key, value in each.items()} for name, each in settings.items()},
        benches=[each for each in (*named, *found) if isinstance(each, Bench)],
        exports=[each for each in (*named, *found) if isinstance(each, Export)],
        named=named,
        unread=unread,
        given=given,
        read_scores=read_scores,
    )


def _run_of(path: Path) -> Path:
    if (path / SCORED).is_file():
        return path / SCORED
    if path.name != IN_A_LOOP or not path.is_file():
        return path
    return path.parent.parent if resolve(path).match(COMPARISON) else path.parent


def _word(value: object) -> str:
    """Return a setting as a reader writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_word, value)) if isinstance(value, list | tuple) else str(value)


def _distinct(paths: Iterable[Path], key: Callable[[Path], Key]) -> dict[Key, Path]:
    """Return the first path of every key."""
    found: dict[Key, Path] = {}
    for path in paths:
        found.setdefault(key(path), path)
    return found


def _find_deployed(folders: Sequence[Path], seen: set[bytes]) -> tuple[list[Record], list[str]]:
    """Return the benchmarks and exports that lie in the folders, each content once, and why others were left out."""
    found: list[Record] = []
    unread = []
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        try:
            kind = read_kind(path, KINDS) if path.is_file() and path.stat().st_size <= LONGEST else None
        except FileError:
            continue
        # Its audits are the run's own.
        if kind not in DEPLOYED or (content := read_bytes(path)) in seen:
            continue
        seen.add(content)
        try:
            found.append(kind.load(path))
        except FileError as error:
            unread.append(str(error))
    return found, unread


def _audited(audits: Sequence[Audit], runs: Sequence[Run]) -> list[Run]:
    """Set each further audit of a model that no run holds beside the first of them; a lone one stands by itself.

    Several of one name are told apart by their files.
    """
    held = {(audit.model, audit.total.params) for run in runs for _, audit in run.audits}
    left = [audit for audit in audits if (audit.model, audit.total.params) not in held]
    alike = Counter(audit.model for audit in left)
    files = file_names([audit.file for audit in left])
    left = [
        audit.model_copy(update={"model": f"{audit.model}@{file}"}) if alike[audit.model] > 1 else audit
        for audit, file in zip(left, files, strict=True)
    ]
    pairs: list[tuple[Audit | None, Audit]] = [(left[0], audit) for audit in left[1:]]
    return [
        Run(
            path=Path("-".join(audit.model for audit in (first, second) if audit)),
            budget=Budget(teacher=first, student=second),
            counted_only=True,
        )
        for first, second in pairs or [(None, audit) for audit in left]
    ]
