"""The size of a run, estimated without training: images, steps, and the cache of teacher outputs on disk."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from featherpress.compress.data.crops.sampling import batches_per_epoch
from featherpress.compress.distillation.taps import tap_shapes
from featherpress.compress.experiments.build import model_builder, taps_of
from featherpress.compress.recipes import Recipe, ScheduleRecipe
from featherpress.compress.recipes.required_files import list_needs
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.base import Task

_BYTES = {"fp16": 2, "fp32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The size of a run.

    Units: `training`, `holdout` and `validation` labelled images, `holdout` those held out; `photographs` without
    labels; `steps` of the optimizer for one model of one seed, an early stop aside; `teacher_steps` of each teacher
    that is trained first, by its place among the teachers; `cached_crops` those that every cached teacher sees once;
    `cache_bytes` what all their outputs take on disk while one student trains; `memory_bytes` what a process keeps in
    memory at most, and `crop_bytes` what it would take to keep every crop that comes again.
    """

    training: int
    holdout: int
    validation: int
    photographs: int = 0
    steps: int
    teacher_steps: Mapping[int, int] = field(default_factory=dict)
    cached_crops: int = 0
    cache_bytes: int = 0
    memory_bytes: int = 0
    crop_bytes: int = 0


def estimate(recipe: Recipe, *, without_teachers: bool = False) -> Estimate | None:
    """Estimate the size of a recipe's run; None if its images are missing.

    Errors: as opening the data and building the teachers.
    """
    if any(
        need.missing for need in list_needs(recipe, without_teachers=without_teachers) if need.key.startswith("data.")
    ):
        return None
    task = task_of(recipe)
    images = task.open("train")
    training, taught = len(images), len(task.teacher_images(images))
    all_teachers = () if without_teachers else recipe.all_teachers
    photographs = sum(map(len, task.unlabelled_images())) if all_teachers else 0
    own = {number: each.schedule for number, each in enumerate(all_teachers) if not each.weights}
    crops = (training + photographs) * recipe.data.variants
    cached_crops = crops * len(recipe.data.sizes) if any(each.cache for each in all_teachers) else 0
    sides = recipe.data.sizes
    return Estimate(
        training=training,
        holdout=len(task.open("holdout")) if recipe.data.holdout else 0,
        validation=len(task.open("val")),
        photographs=photographs,
        steps=planned_steps(training, recipe.schedule, recipe),
        teacher_steps={number: planned_steps(taught, schedule, recipe) for number, schedule in own.items() if schedule},
        cached_crops=cached_crops,
        cache_bytes=crops * sum(_bytes_per_crop(recipe, task, side) for side in sides) if cached_crops else 0,
        memory_bytes=recipe.data.cache_bytes,
        crop_bytes=crops * sum(3 * side**2 for side in sides),
    )


def planned_steps(images: int, schedule: ScheduleRecipe, recipe: Recipe) -> int:
    """Return how many steps a schedule comes to on so many images, an early stop aside."""
    return schedule.epochs * (batches_per_epoch(images, schedule.batch_size, recipe.data.sizes) // schedule.accumulate)


def seconds_per_step(recipe: Recipe, student: nn.Module | None = None) -> float | None:
    """Time one step of a recipe's student on this machine, its first teacher's forward with it, mean over both arms.

    `student` is one that is pruned already. Nothing comes of a model that computes its own loss: it does not run in
    training without targets.
    """
    task, device = task_of(recipe), default_device()
    images = task.example().to(device).expand(recipe.schedule.batch_size, -1, -1, -1)
    student = (student or model_builder(recipe.student, task)()).to(device)
    teacher = model_builder(recipe.all_teachers[0], task)().to(device).eval()
    try:
        forward = min(_seconds(lambda: torch.autograd.backward(_sum_outputs(task, student, images))) for _ in range(2))
        with torch.no_grad():
            taught = min(_seconds(lambda: _sum_outputs(task, teacher, images)) for _ in range(2))
    except (RuntimeError, ValueError, TypeError, AssertionError):
        return None
    arms = 2 if recipe.control else 1
    return (forward + taught / arms) * recipe.schedule.accumulate


def _sum_outputs(task: Task, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the sum of all that a model says of images, a scalar."""
    outputs = task.name_outputs(model(images))
    return torch.stack([output.float().sum() for output in outputs.values()]).sum()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _bytes_per_crop(recipe: Recipe, task: Task, side: int) -> int:
    """Return the bytes that the cached teachers' outputs and tapped features take for one crop."""
    total = 0
    for number, teacher in enumerate(recipe.all_teachers):
        if not teacher.cache:
            continue
        model = model_builder(teacher, task)().eval()
        images = torch.zeros(1, 3, teacher.size or side, teacher.size or side)
        with torch.no_grad():
            numbers = sum(output.numel() for output in task.name_outputs(model(images)).values())
        for path in dict.fromkeys(taps_of(recipe.distillation, number).values()):
            numbers += sum(map(math.prod, tap_shapes(model, path, images)))
        total += numbers * _BYTES[str(teacher.cache)]
    return total
