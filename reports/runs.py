"""A run directory: which records it holds, and what each role's records are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherpress.errors import FileError
from featherpress.records import (
    Audit,
    Budget,
    Comparison,
    Correlation,
    DetectorEvaluation,
    Environment,
    Evaluation,
    Gallery,
    read_text,
)
from featherpress.reports.metrics import ACCURACY, AP, METRICS, Metric, Metrics, read_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What one training directory says: its logged steps and its evaluation."""

    metrics: Metrics | None
    evaluation: Evaluation | None

    @property
    def empty(self) -> bool:
        """Whether the directory held neither record."""
        return self.metrics is None and self.evaluation is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All records of a run directory; None, or empty, where one is missing.

    `metric` is what all its models are scored by. `teacher_metrics` is there where the run trained its teacher itself.

    `students` and `controls` hold one training a seed, the first seed first. What is `counted_only` was never a run:
    audits that are set side by side.
    """

    path: Path
    metric: Metric = AP
    recipe: str | None = None
    environment: Environment | None = None
    budget: Budget | None = None
    teacher: Evaluation | None = None
    teacher_metrics: Metrics | None = None
    comparison: Comparison | None = None
    gallery: Gallery | None = None
    correlation: Correlation | None = None
    students: tuple[Training, ...] = ()
    controls: tuple[Training, ...] = ()
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
        return self.teacher is not None or self.comparison is not None or bool(self.budget and self.budget.teacher)

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
        return self.teacher.model if self.teacher is not None else "unknown"

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose accuracy is told apart; a training without a teacher has one, called `model`."""
        return ("teacher", "control", "student") if self.distilled else ("model",)

    def evaluations(self, role: str) -> tuple[Evaluation, ...]:
        """Return the evaluations of a role, one a seed."""
        if role == "teacher":
            return () if self.teacher is None else (self.teacher,)
        return tuple(t.evaluation for t in self._trainings(role) if t.evaluation is not None)

    def detectors(self, role: str) -> tuple[DetectorEvaluation, ...]:
        """Return the evaluations of a role that are of detectors, one a seed; none in a classifier's run."""
        return tuple(each for each in self.evaluations(role) if isinstance(each, DetectorEvaluation))

    def metrics(self, role: str) -> tuple[Metrics, ...]:
        """Return the logged steps of a role, one a seed; a teacher has some where the run trained it."""
        if role == "teacher":
            return () if self.teacher_metrics is None else (self.teacher_metrics,)
        return tuple(t.metrics for t in self._trainings(role) if t.metrics is not None)

    def _trainings(self, role: str) -> tuple[Training, ...]:
        return self.controls if role == "control" else self.students


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
    seeds = [path, *_seed_folders(path)]
    recipe = path / "recipe.toml"
    teacher = Evaluation.find_any(path / "eval" / "teacher.json")
    comparison = Comparison.find(path / "eval" / "comparison.json")
    students, controls = _trainings(seeds), _trainings([seed / "control" for seed in seeds])
    evaluated = (teacher, *(training.evaluation for training in (*students, *controls)))
    run = Run(
        path=path,
        metric=_common_metric(path, [each for each in evaluated if each], comparison),
        recipe=read_text(recipe) if recipe.exists() else None,
        environment=Environment.find(path / "environment.json"),
        budget=Budget.find(path / "budget.json"),
        teacher=teacher,
        teacher_metrics=read_metrics(path / "teacher" / "metrics.csv"),
        comparison=comparison,
        gallery=Gallery.find(path / "eval" / "gallery" / "gallery.json"),
        correlation=Correlation.find(path / "eval" / "correlation.json"),
        students=students,
        controls=controls,
    )
    # A recipe and an environment alone say what was meant, not what came of it.
    if not (run.budget or run.teacher or run.comparison or run.students or run.controls):
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


def _seed_folders(path: Path) -> list[Path]:
    """Return the folders `seed-<n>`, by number."""
    numbered = [(re.fullmatch(r"seed-(\d+)", child.name), child) for child in path.iterdir() if child.is_dir()]
    return [child for _, child in sorted((int(match[1]), child) for match, child in numbered if match)]


def _trainings(folders: list[Path]) -> tuple[Training, ...]:
    found = (
        Training(
            metrics=read_metrics(folder / "metrics.csv"),
            evaluation=Evaluation.find_any(folder / "eval" / "validation.json"),
        )
        for folder in folders
    )
    return tuple(training for training in found if not training.empty)
