"""What a report is written from: run directories, and records of audits, models and benchmarks beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featherpress.errors import FileError, UsageError
from featherpress.reports.deployment import Bench, Export, read_bench, read_export
from featherpress.reports.readers import read_audit, read_settings
from featherpress.reports.reading import read_schema
from featherpress.reports.records import Audit, Budget
from featherpress.reports.runs import Run, load_run

__all__ = ["Inputs", "load_inputs"]

KINDS = ("audit", "model", "bench", "export")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that was given: runs, the settings of models by name, benchmarks and exports.

    Audits of models that no run holds make a run of their own, which has nothing but its budget.
    """

    runs: tuple[Run, ...]
    settings: Mapping[str, Mapping[str, str]]
    benches: tuple[Bench, ...]
    exports: tuple[Export, ...]
    records: tuple[Path, ...]

    def named(self, run: Run) -> tuple[Path, ...]:
        """Return what has to be given for a report of this run: its folder, and the records beside it."""
        return (*(() if run.counted_only else (run.path,)), *self.records)


def load_inputs(paths: Sequence[Path]) -> Inputs:
    """Read everything that `paths` name: run directories and JSON records.

    Errors: `UsageError` when there is nothing to report on; `FileError` for what cannot be read.
    """
    folders = [path for path in paths if not path.is_file()]
    records: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in paths:
        if path.is_file():
            records[_kind(path)].append(path)
    runs = [load_run(path) for path in folders]
    audits = [audit for path in records["audit"] if (audit := read_audit(path))]
    runs += _audited(audits, runs)
    if not runs:
        raise UsageError(
            "expected at least one run directory or audit, got none; name a folder that `featherpress distill` wrote, "
            "or the output of `featherpress audit NAME --json`."
        )
    benches = [bench for path in records["bench"] if (bench := read_bench(path))]
    exports = [export for path in records["export"] if (export := read_export(path))]
    settings = {name: values for run in runs for name, values in run.settings.items()}
    settings |= dict(found for path in records["model"] if (found := read_settings(path)))
    files = tuple(path for path in paths if path.is_file())
    return Inputs(runs=tuple(runs), settings=settings, benches=tuple(benches), exports=tuple(exports), records=files)


def _kind(path: Path) -> str:
    """Return which record a file is."""
    schema = read_schema(path)
    kind = schema.removeprefix("featherpress.").removesuffix("/1")
    if kind not in KINDS or schema != f"featherpress.{kind}/1":
        known = ", ".join(f"featherpress.{kind}/1" for kind in KINDS)
        raise FileError(f"{path}: expected a record of one of the schemas {known}, got {schema!r}.")
    return kind


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
