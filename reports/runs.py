"""A run directory: which records it holds, and what each role's records are."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pandas as pd

from featherpress.errors import FileError
from featherpress.files import resolve, split_weights
from featherpress.records.audit import Audit, Budget
from featherpress.records.comparison import Comparison
from featherpress.records.evaluation import (
    SCORED,
    AnyEvaluation,
    DetectorEvaluation,
    Metric,
    TaskEvaluation,
    find_evaluation,
    known_metric,
)
from featherpress.records.pruning import Pruning
from featherpress.records.record import read_text
from featherpress.records.run import Correlation, Environment, Gallery, Pictures
from featherpress.reports.metrics import read_metrics

Found = TypeVar("Found")

# Where the evaluation and the logged steps of a training lie in its folder, and the other records in a run's.
EVALUATION, STEPS = "eval/validation.json", "metrics.csv"
BUDGET, ENVIRONMENT, PRUNING = "budget.json", "environment.json", "pruning.json"
COMPARISON, CORRELATION = "eval/comparison.json", "eval/correlation.json"
# Where `compare_arms` leaves its record.
IN_A_LOOP = "comparison.json"
GALLERY, PICTURES = "eval/gallery/gallery.json", "eval/gallery/pictures.json"
UNSCORED = Metric(key="score", name="score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All records of a run directory; None, or empty, where one is missing.

    `metric` is what all its models are scored by, `UNSCORED` where none was. `roles` are those that are told apart; a
    training without a teacher has one, called `model`. `evaluated` and `logged` hold the evaluations and the logged
    steps of each role that has some, one a seed, the first seed first. What is `counted_only` was never a run: audits
    that are set side by side; what was compared `in_a_loop` of the user's own has its comparison alone; what is
    `scored_only` are evaluations by their folders' or files' names, whose first is at `path`. A `label` tells runs
    apart whose directories are called alike.
    """

    path: Path
    metric: Metric = UNSCORED
    roles: tuple[str, ...] = ("model",)
    recipe: str | None = None
    environment: Environment | None = None
    budget: Budget | None = None
    comparison: Comparison | None = None
    gallery: Gallery | None = None
    pictures: Pictures | None = None
    correlation: Correlation | None = None
    pruning: Pruning | None = None
    evaluated: Mapping[str, Sequence[AnyEvaluation]] = field(default_factory=dict)
    logged: Mapping[str, Sequence[pd.DataFrame]] = field(default_factory=dict)
    counted_only: bool = False
    in_a_loop: bool = False
    scored_only: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        """The directory's own name, or its label."""
        return self.label or resolve(self.path).name

    @property
    def compared_in(self) -> str:
        """Where its comparison lies."""
        return IN_A_LOOP if self.in_a_loop else COMPARISON

    @property
    def distilled(self) -> bool:
        """Whether a teacher took part."""
        return "teacher" in self.roles

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
    def student_model(self) -> str:
        """The name of the model that was trained."""
        counted = [self.budget.student.model] if self.budget else []
        return [*counted, *(each.model for each in self.evaluated.get(self.roles[-1], ())), "unknown"][0]

    @property
    def teacher_model(self) -> str:
        """The name of the model that taught it."""
        counted = [self.budget.teacher.model] if self.budget and self.budget.teacher else []
        return [*counted, *(each.model for each in self.evaluated.get("teacher", ())), "unknown"][0]

    @property
    def same_data(self) -> bool:
        """Whether all of its evaluations are on as many images of one name and split."""
        return len({each.data for found in self.evaluated.values() for each in found}) < 2

    @property
    def detectors(self) -> dict[str, list[DetectorEvaluation]]:
        """The evaluations of face detectors by role; none in a run of another task."""
        kept = {role: [e for e in found if isinstance(e, DetectorEvaluation)] for role, found in self.evaluated.items()}
        return {role: found for role, found in kept.items() if found}

    @property
    def of_tasks(self) -> dict[str, list[TaskEvaluation]]:
        """The evaluations of models on any task but faces, by role."""
        kept = {role: [e for e in found if isinstance(e, TaskEvaluation)] for role, found in self.evaluated.items()}
        return {role: found for role, found in kept.items() if found}

    @property
    def finds_faces(self) -> bool:
        """Whether its models are detectors of faces, by what was recorded of them."""
        data = self.comparison.data if self.comparison and self.comparison.data else {}
        return bool(self.detectors or self.gallery or "faces" in data)


def scored_runs(evaluations: Sequence[AnyEvaluation]) -> list[Run]:
    """Set evaluations that no run holds side by side, those of each metric in a run of their own."""
    named = file_names([each.file for each in evaluations])
    by_metric: dict[Metric, dict[str, list[AnyEvaluation]]] = {}
    for name, each in zip(named, evaluations, strict=True):
        by_metric.setdefault(each.metric, {})[name] = [each]
    return [
        Run(
            path=next(iter(found.values()))[0].file.parent,
            metric=metric,
            roles=tuple(found),
            evaluated=found,
            scored_only=True,
        )
        for metric, found in by_metric.items()
    ]


def target(model: str) -> str:
    """Return what builds a model that is named `TARGET@FILE`, or without a file."""
    return split_weights(model)[0]


def file_names(files: Sequence[Path]) -> list[str]:
    """Return what to call each record: its folder or file, or its path where that is not its own."""
    places = [file.parent if file.name == SCORED else file for file in files]
    short = [resolve(each).name.removesuffix(".json") for each in places]
    names = [each if short.count(each) == 1 else str(place) for each, place in zip(short, places, strict=True)]
    return [re.sub(r"[`*]", "_", name) for name in names]


def place(role: str, record: str) -> str:
    """Return where a role's record lies in the folder of a run or a seed; `record` is its place in a training's."""
    if role == "teacher":
        return "eval/teacher.json" if record == EVALUATION else f"teacher/{record}"
    return f"control/{record}" if role == "control" else record


def several(found: Iterable[Sequence[object]]) -> bool:
    """Whether any of some roles' records are of several seeds."""
    return any(len(each) > 1 for each in found)


def load_run(path: Path) -> Run:
    """Read every record of a run directory.

    Errors: `FileError` when there is no such directory, when it holds no record, when one is broken, or when its models
    are not scored by one metric.
    """
    if not path.is_dir():
        raise FileError(f"{path}: expected a run directory, got {'a file' if path.exists() else 'nothing there'}.")
    recipe = path / "recipe.toml"
    budget = Budget.find(path / BUDGET)
    in_a_loop = (path / IN_A_LOOP).exists() and not (path / COMPARISON).exists()
    comparison = Comparison.find(path / (IN_A_LOOP if in_a_loop else COMPARISON))
    taught = (path / place("teacher", EVALUATION)).exists() or comparison or (budget and budget.teacher)
    roles = ("teacher", "control", "student") if taught else ("model",)
    seeds = _seeds(path)
    evaluated: dict[str, list[AnyEvaluation]] = _read_all(seeds, roles, EVALUATION, find_evaluation)
    logged = _read_all(seeds, roles, STEPS, read_metrics)
    run = Run(
        path=path,
        metric=_common_metric(path, evaluated, comparison, logged),
        roles=roles,
        recipe=read_text(recipe) if recipe.exists() else None,
        environment=Environment.find(path / ENVIRONMENT),
        budget=budget,
        comparison=comparison,
        gallery=Gallery.find(path / GALLERY),
        pictures=Pictures.find(path / PICTURES),
        correlation=Correlation.find(path / CORRELATION),
        pruning=Pruning.find(path / PRUNING),
        evaluated=evaluated,
        logged=logged,
        in_a_loop=in_a_loop,
    )
    # A recipe and an environment alone say what was meant, not what came of it.
    if not (run.budget or comparison or run.evaluated or run.logged):
        raise FileError(
            f"{path}: expected a run directory with records such as metrics.csv, budget.json or eval/validation.json, "
            "got none; name a directory that `featherpress train`, `featherpress distill` or `compare_arms` wrote."
        )
    return run


def _seeds(path: Path) -> list[Path]:
    """List the folders of all seeds: the run's own, and those called `seed-<n>` by number."""
    numbered = [(re.fullmatch(r"seed-(\d+)", child.name), child) for child in path.iterdir() if child.is_dir()]
    return [path, *(child for _, child in sorted((int(match[1]), child) for match, child in numbered if match))]


def _read_all(
    seeds: Sequence[Path], roles: Sequence[str], record: str, read: Callable[[Path], Found | None]
) -> dict[str, list[Found]]:
    """Read a record of every role that has it, one a seed."""
    found: dict[str, list[Found]] = {}
    for role in roles:
        for seed in seeds[:1] if role == "teacher" else seeds:
            each = read(seed / place(role, record))
            if each is not None:
                found.setdefault(role, []).append(each)
    return found


def _common_metric(
    path: Path,
    evaluated: Mapping[str, Sequence[AnyEvaluation]],
    comparison: Comparison | None,
    logged: Mapping[str, Sequence[pd.DataFrame]],
) -> Metric:
    """Return what everything was scored by; the column of the logged steps counts where nothing else says it."""
    found = {each.metric for seeds in evaluated.values() for each in seeds}
    if comparison is not None:
        found.add(comparison.scored_by)
    if not found:
        found = {known_metric(steps.attrs["metric"]) for seeds in logged.values() for steps in seeds}
    if len(found) > 1:
        names = " and ".join(sorted(metric.name for metric in found))
        raise FileError(f"{path}: expected models scored by one metric, got {names}: evaluate them alike.")
    return next(iter(found), UNSCORED)
