"""The preflight: a few steps before a run that catch the mistakes which silently ruin distillations."""

import csv
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from featherpress.compress.experiments.build import build_student, build_teacher, build_whole
from featherpress.compress.experiments.pruned import PRUNED, keep_pruned
from featherpress.compress.experiments.recipe_distiller import RecipeDistiller
from featherpress.compress.experiments.teachers import LoadedTeacher, freeze_teacher, make_distiller
from featherpress.compress.recipes import Recipe
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.runtime.distributed import gather_processes
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.runtime.logs import log_from
from featherpress.compress.runtime.ranks import is_leader, world_size
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.base import Task
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import FeatherpressError, TrainingError, UsageError
from featherpress.models.checkpoints import tied_names

logger = logging.getLogger("featherpress")

_STEPS = 3
_BATCH = 4
_SIDE = 128
_IMAGES = 16
_LOST = 0.1  # of a recorded score: less is another way to make images, not another machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: its name, whether it passed, and the result in one sentence."""

    check: str
    passed: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.sentence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    """One short training: its logged rows, the hash of its final weights, and the names of the saved weights."""

    rows: Sequence[dict[str, str]]
    hash: str
    keys: frozenset[str]


def preflight(recipe: Recipe) -> list[Finding]:
    """Distil for a few steps on little data, in a temporary folder, and run all checks.

    All processes train, the first one checks. A step that fails ends the preflight.

    Errors: as `experiments.check` for a recipe that cannot be built.
    """
    if not recipe.all_teachers:
        raise UsageError(f"the recipe {recipe.name} has no teacher, so the preflight has nothing to check")
    small = _shrink(recipe)
    task = task_of(small)
    loaded = [
        freeze_teacher(small, number, build_teacher(small, number, task=task))
        for number in range(len(small.all_teachers))
    ]
    findings = [finding for teacher in loaded for finding in _evaluate(task, teacher)]
    with TemporaryDirectory(prefix="featherpress-") as folder, log_from(logging.WARNING):
        if recipe.student.prune:
            small = _settle(recipe, small, [teacher.model for teacher in loaded], Path(folder))
        try:
            findings += _fly(small, task, loaded, Path(folder))
        except (TrainingError, UsageError, RuntimeError) as error:
            findings.append(
                Finding(check="steps", passed=False, sentence=f"a step failed: {' '.join(str(error).split())}")
            )
    findings += [_unchanged(teacher) for teacher in loaded]
    return findings if is_leader() else []


def _settle(recipe: Recipe, small: Recipe, teachers: Sequence[nn.Module], folder: Path) -> Recipe:
    """Cut the student once, at the size at which the recipe counts it."""
    keep_pruned(recipe, build_whole(recipe, task=task_of(recipe), teachers=teachers), folder)
    changes = {"prune": None, "pruned": str(folder / PRUNED), "weights": "", "backbone": ""}
    return small.model_copy(update={"student": small.student.model_copy(update=changes)})


def check_data(recipe: Recipe) -> None:
    """Look at all of a recipe's images and labels; raises DataError for the first that cannot be used."""
    task = task_of(recipe)
    task.check(task.open("train"))
    task.check(task.open("val"))


def require_sound(recipe: Recipe) -> None:
    """Run the preflight and raise for the first check that failed.

    Errors: `TrainingError` with that check's sentence.
    """
    findings = preflight(recipe)
    failed = next((finding for finding in findings if not finding.passed), None)
    if failed is not None:
        raise TrainingError(f"preflight: {failed.sentence}; --no-preflight starts the run anyway")
    logger.info("preflight: %d checks passed", len(findings))


def _shrink(recipe: Recipe) -> Recipe:
    """Return the recipe shrunk to a few steps, with every term switched on."""
    batch = _BATCH * world_size()
    schedule = recipe.schedule.model_copy(
        update={
            "epochs": 1,
            "batch_size": batch,
            "accumulate": 1,
            "log_every": 1,
            "evaluate_every": 0,
            "patience": 0,
            "workers": 0,
            "save_every": 1e9,
        }
    )
    data = recipe.data.shrunk(images=_STEPS * batch, validation_images=_IMAGES, side=_SIDE)
    always = {"start": 0.0, "ramp_steps": None, "stop": None}
    losses = {name: term.model_copy(update=always) for name, term in recipe.distillation.losses.items()}
    distillation = recipe.distillation.model_copy(
        update={"ramp_steps": 0, "stop": 0.0, "losses": losses, "teaching": "averaged"}
    )
    changes = {"schedule": schedule, "data": data, "distillation": distillation}
    return recipe.model_copy(update=changes)


def _evaluate(task: Task, teacher: LoadedTeacher) -> Iterator[Finding]:
    """Score a teacher that is loaded on a few images: against chance, and against its own record on the same."""
    check = f"{teacher.name} evaluates"
    if not teacher.recipe.weights:
        yield Finding(check=check, passed=True, sentence=f"the {teacher.name} is trained first and scored after that")
        return
    found = task.evaluate(teacher.model, task.open("val"), label=check, images=_IMAGES)
    metric, least = task.metric.name, task.min_teacher_score
    sentence = f"the {teacher.name}'s {metric} on {_IMAGES} validation images or fewer is {found.score:.3f}"
    yield _finding(check, found.score >= least, sentence, f"{sentence}, below {least:.2f}: check its weights and data")
    recorded = _recorded_score(task, teacher, found.predictions.names)
    if recorded is not None:
        yield _finding(
            f"{teacher.name} scores as recorded",
            found.score >= recorded - _LOST * abs(recorded),
            f"{sentence}, its record has {recorded:.3f} on the same",
            f"{sentence}, but its record has {recorded:.3f} on the same: do its images come in the size and the "
            "normalisation that it was trained with?",
        )


def _recorded_score(task: Task, teacher: LoadedTeacher, names: Sequence[str]) -> float | None:
    """Return what the run that trained a teacher says of it on some images; None where it says nothing of all these."""
    record = teacher.weights.parent.parent / "eval" / "validation.json"
    try:
        if json.loads(record.read_text(encoding="utf-8")).get("weights") != teacher.weights.name:
            return None
        predictions = task.load(record.with_suffix(".npz"))
    except (OSError, ValueError, FeatherpressError):
        return None
    among = np.isin(predictions.names, names)
    if among.sum() != len(names):
        return None
    score = float(task.scores([predictions]).metrics[0](among[None].astype(float))[0])
    return score if math.isfinite(score) else None


def _fly(recipe: Recipe, task: Task, loaded: Sequence[LoadedTeacher], folder: Path) -> list[Finding]:
    student = _student(recipe, task, loaded)
    keys = frozenset(student.state_dict().keys() - tied_names(student).keys())
    distiller = _distiller(recipe, task, loaded, student, folder)
    trainer = _trainer(recipe, task, student, folder / "taught", distiller)
    before = {name: weight.detach().clone() for name, weight in distiller.kd.adapters.named_parameters()}
    taught = _run(trainer)
    plain = _run(_trainer(recipe, task, _student(recipe, task, loaded), folder / "plain", None))

    def silent(name: str, placebo: str = "") -> _Flight:
        again = _student(recipe, task, loaded)
        distiller = _distiller(recipe, task, loaded, again, folder, scale=0.0, placebo=placebo)
        return _run(_trainer(recipe, task, again, folder / name, distiller))

    off = silent("off")
    # Only the first process has hashes; all must fly again, or none.
    differs = gather_processes(torch.tensor(float(off.hash != plain.hash), device=default_device())).any()
    twin = silent("twin", "shuffled") if differs else off
    if not is_leader():
        return []
    return [
        Finding(check="taps fire", passed=True, sentence="every tap fired at every step"),
        _held(trainer, distiller),
        _moved(distiller, before),
        *(_positive(taught, name) for name in distiller.columns),
        _same_task(task, taught, plain),
        _same_weights(off, plain, twin),
        _student_alone(taught, keys),
    ]


def _student(recipe: Recipe, task: Task, loaded: Sequence[LoadedTeacher]) -> nn.Module:
    return build_student(recipe, recipe.seeds[0], task=task, teachers=[teacher.model for teacher in loaded])


def _distiller(
    recipe: Recipe,
    task: Task,
    loaded: Sequence[LoadedTeacher],
    student: nn.Module,
    folder: Path,
    *,
    scale: float = 1.0,
    placebo: str = "",
) -> RecipeDistiller:
    return make_distiller(
        recipe,
        {teacher.name: teacher.model for teacher in loaded},
        student.to(default_device()),
        task=task,
        crops=task.crops(task.open("train"), recipe.seeds[0]),
        cache=folder / "cache",
        seed=recipe.seeds[0],
        scale=scale,
        placebo=placebo,
    )


def _trainer(
    recipe: Recipe, task: Task, student: nn.Module, folder: Path, distiller: RecipeDistiller | None
) -> Trainer:
    return Trainer(
        student,
        task.crops(task.open("train"), recipe.seeds[0]),
        TrainingFolder(folder),
        schedule=recipe.schedule,
        label=f"preflight, {folder.name}",
        task=task,
        distiller=distiller,
    )


def _run(trainer: Trainer) -> _Flight:
    trained = trainer.run()
    if not is_leader():
        return _Flight(rows=(), hash="", keys=frozenset())
    with (trainer.folder.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with safe_open(trainer.folder.last_weights, framework="pt") as weights:
        keys = frozenset(weights.keys())
    return _Flight(rows=rows, hash=fingerprint(trained) + fingerprint(trainer.plain), keys=keys)


def _held(trainer: Trainer, distiller: RecipeDistiller) -> Finding:
    held = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
    lost = [name for name, weight in distiller.kd.adapters.named_parameters() if id(weight) not in held]
    return _finding(
        "adapters are held", not lost, "every adapter is in the optimizer", f"the adapter {lost[:1]} is in no optimizer"
    )


def _moved(distiller: RecipeDistiller, before: dict[str, Tensor]) -> Finding:
    after = dict(distiller.kd.adapters.named_parameters())
    still = [name for name, weight in before.items() if torch.equal(weight, after[name])]
    return _finding(
        "adapters change",
        not still,
        "every adapter changed",
        f"the adapter {still[:1]} did not change: no gradient reaches it",
    )


def _positive(flight: _Flight, name: str) -> Finding:
    values = [float(row[name]) for row in flight.rows if row.get(name)]
    good = bool(values) and max(values) > 0
    shown = f"at most {max(values):g}" if values else "never computed"
    return _finding(name, good, f"{name} is {shown}", f"{name} is {shown} in {_STEPS} steps: it has no effect")


def _same_task(task: Task, taught: _Flight, plain: _Flight) -> Finding:
    pairs = [(taught.rows[0][name], plain.rows[0][name], name) for name in task.terms]
    other = [f"{name} is {ours} instead of {theirs}" for ours, theirs, name in pairs if ours != theirs]
    return _finding(
        "task loss stays",
        not other,
        "the supervised terms of the first step equal those of plain training",
        f"distillation changes the supervised loss: {other[:1]} at the first step",
    )


def _same_weights(off: _Flight, plain: _Flight, twin: _Flight) -> Finding:
    """Compare training with distillation weighted 0 with plain training.

    A loss that weighs nothing still lays out gradients anew, after which some kernels round otherwise. Where weights
    differ, the loss must be the task's alone, close to plain training's after a step, and what the teacher says must
    make no difference: `twin` is `off` with a teacher that speaks of other images.
    """
    # GPUs need not repeat themselves: there only the loss is compared, as logged.
    if default_device().type != "cpu":
        same, alike = off.rows[0]["task"] == plain.rows[0]["task"], False
    else:
        same = off.hash == plain.hash
        second = [float(flight.rows[:2][-1]["task"]) for flight in (off, plain)]  # after that roundings grow
        alike = (
            off.hash == twin.hash
            and all(row["loss"] == row["task"] for row in off.rows)
            and math.isclose(*second, rel_tol=1e-3)
        )
    return _finding(
        "off is plain",
        same or alike,
        "with distillation weighted 0, training equals plain training bit for bit"
        if same
        else "with distillation weighted 0, the teacher makes no difference, and weights are plain training's but for "
        "the order in which gradients are summed",
        "with distillation weighted 0, training ends with other weights than plain training",
    )


def _student_alone(flight: _Flight, keys: frozenset[str]) -> Finding:
    strange = sorted(flight.keys ^ keys)
    return _finding(
        "student is saved alone",
        not strange,
        "the saved weights are the student's, under its own names",
        f"the saved weights are not only the student's: {strange[:1]} is in one of the two",
    )


def _unchanged(teacher: LoadedTeacher) -> Finding:
    training = [name or "itself" for name, module in teacher.model.named_modules() if module.training]
    changed = fingerprint(teacher.model) != teacher.hash
    wrong = f"the {teacher.name} is in training mode at {training[:1]}" if training else f"the {teacher.name} changed"
    return _finding(
        f"{teacher.name} stays",
        not changed and not training,
        f"the {teacher.name} is in eval mode, and its weights and buffers are unchanged",
        f"{wrong}: its weights or buffers are not the same as before" if changed else wrong,
    )


def _finding(check: str, passed: bool, good: str, bad: str) -> Finding:
    return Finding(check=check, passed=passed, sentence=good if passed else bad.replace("['", "").replace("']", ""))
