"""A run directory: which records it holds, and what each role's records are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featherpress.errors import FileError
from featherpress.records.audit import Audit, Budget
from featherpress.records.comparison import Comparison
from featherpress.records.evaluation import DetectorEvaluation, Evaluation
from featherpress.records.record import read_text
from featherpress.records.run import Correlation, Environment, Gallery
from featherpress.reports.metrics import ACCURACY, AP, METRICS, Metric, Metrics, read_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All records of a run directory; None, or empty, where one is missing.

    `metric` is what all its models are scored by. `evaluated` and `logged` hold the evaluations and the logged steps of
    teacher, control and student, one a seed, the first seed first. What is `counted_only` was never a run: audits that
    are set side by side.
    """

    path: Path
    metric: Metric = AP
    recipe: str | None = None
    environment: Environment | None = None
    budget: Budget | None = None
    comparison: Comparison | None = None
    gallery: Gallery | None = None
    correlation: Correlation | None = None
    evaluated: Mapping[str, tuple[Evaluation, ...]] = field(default_factory=dict)
    logged: Mapping[str, tuple[Metrics, ...]] = field(default_factory=dict)
    counted_only: bool = False

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.resolve().name

    @property
    def distilled(self) -> bool:
        """Whether a teacher took part."""
        if self.counted_only:
            return False
        return (
            bool(self.evaluations("teacher"))
            or self.comparison is not None
            or bool(self.budget and self.budget.teacher)
        )

    @property
    def audits(self) -> tuple[tuple[str, Audit], ...]:
        """The counted models with what each is to the other: teacher and student, first and second, or a lone model."""
        if self.budget is None:
            return ()
        if self.budget.teacher is None:
            return (("model", self.budget.student),)
        first, second = ("first", "second") if self.counted_only else ("teacher", "student")
        return ((first, self.budget.teacher), (second, self.budget.student))

    @property
    def settings(self) -> dict[str, Mapping[str, str]]:
        """What the counted models were built from, by name, where that was recorded; a word or a number each."""
        return {audit.model: settings_in_words(audit.settings) for _, audit in self.audits if audit.settings}

    @property
    def student_model(self) -> str:
        """The name of the model that was trained."""
        if self.budget is not None:
            return self.budget.student.model
        return next((e.model for e in self.evaluations("student")), "unknown")

    @property
    def teacher_model(self) -> str:
        """The name of the model that taught it."""
        if self.budget is not None and self.budget.teacher is not None:
            return self.budget.teacher.model
        return next((e.model for e in self.evaluations("teacher")), "unknown")

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose accuracy is told apart; a training without a teacher has one, called `model`."""
        return ("teacher", "control", "student") if self.distilled else ("model",)

    def evaluations(self, role: str) -> tuple[Evaluation, ...]:
        """Return the evaluations of a role, one a seed."""
        return self.evaluated.get(_trained_as(role), ())

    def detectors(self, role: str) -> tuple[DetectorEvaluation, ...]:
        """Return the evaluations of a role that are of detectors, one a seed; none in a classifier's run."""
        return tuple(each for each in self.evaluations(role) if isinstance(each, DetectorEvaluation))

    def metrics(self, role: str) -> tuple[Metrics, ...]:
        """Return the logged steps of a role, one a seed; a teacher has some where the run trained it."""
        return self.logged.get(_trained_as(role), ())


def _trained_as(role: str) -> str:
    """Return where a role's records are kept: a lone model lies where a student does."""
    return role if role in {"teacher", "control"} else "student"


def settings_in_words(settings: Mapping[str, object]) -> dict[str, str]:
    """Return what a model was built from, as a reader writes it."""
    return {key: _word(value) for key, value in settings.items()}


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_word, value)) if isinstance(value, list | tuple) else str(value)


def load_run(path: Path) -> Run:
    """Read every record of a run directory.

    Errors: `FileError` when there is no such directory, when it holds no record, when one is broken, or when its models
    are not scored by one metric.
    """
    if not path.is_dir():
        raise FileError(f"{path}: expected a run directory, got {'a file' if path.exists() else 'nothing there'}.")
    recipe, places = path / "recipe.toml", _places(path)
    evaluated = {role: tuple(filter(None, map(Evaluation.find_any, files))) for role, (files, _) in places.items()}
    logged = {role: tuple(filter(None, map(read_metrics, files))) for role, (_, files) in places.items()}
    comparison = Comparison.find(path / "eval" / "comparison.json")
    run = Run(
        path=path,
        metric=_common_metric(path, [each for found in evaluated.values() for each in found], comparison),
        recipe=read_text(recipe) if recipe.exists() else None,
        environment=Environment.find(path / "environment.json"),
        budget=Budget.find(path / "budget.json"),
        comparison=comparison,
        gallery=Gallery.find(path / "eval" / "gallery" / "gallery.json"),
        correlation=Correlation.find(path / "eval" / "correlation.json"),
        evaluated=evaluated,
        logged=logged,
    )
    # A recipe and an environment alone say what was meant, not what came of it.
    if not (run.budget or comparison or any(evaluated.values()) or any(logged.values())):
        raise FileError(
            f"{path}: expected a run directory with records such as metrics.csv, budget.json or eval/validation.json, "
            "got none; name a directory that `featherpress train` or `featherpress distill` wrote."
        )
    return run


def _common_metric(path: Path, evaluated: Sequence[Evaluation], comparison: Comparison | None) -> Metric:
    """Return what everything was scored by, AP where nothing was."""
    found = {AP if isinstance(each, DetectorEvaluation) else ACCURACY for each in evaluated}
    if comparison is not None:
        found.add(METRICS[comparison.metric])
    if len(found) > 1:
        names = " and ".join(sorted(metric.name for metric in found))
        raise FileError(f"{path}: expected models scored by one metric, got {names}: evaluate them alike.")
    return next(iter(found), AP)


def _places(path: Path) -> dict[str, tuple[list[Path], list[Path]]]:
    """Return where evaluations and logged steps may lie by role; further seeds are in `seed-<n>`, by number."""
    numbered = [(re.fullmatch(r"seed-(\d+)", child.name), child) for child in path.iterdir() if child.is_dir()]
    seeds = [path, *(child for _, child in sorted((int(match[1]), child) for match, child in numbered if match))]
    folders = {"control": [seed / "control" for seed in seeds], "student": seeds}
    return {
        "teacher": ([path / "eval" / "teacher.json"], [path / "teacher" / "metrics.csv"]),
        **{
            role: ([each / "eval" / "validation.json" for each in found], [each / "metrics.csv" for each in found])
            for role, found in folders.items()
        },
    }
