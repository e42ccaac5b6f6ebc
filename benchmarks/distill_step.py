"""What a distillation step costs beside a plain one: with the live teacher, and with its outputs read from disk.

    python benchmarks/distill_step.py
    python benchmarks/distill_step.py --recipe paper_to_v2 --batch 16 --size 256 --rounds 7

Plain step, teacher's forward, live step, cached step and the same with `FROZEN` frozen take turns in every round on
the same synthetic crops; ratios are medians over rounds, with the quarters beside. Times are CPU seconds of this
process (seconds on a GPU), which other programs disturb less. The overhead is (live - teacher) / plain: what taps,
adapters and losses add to a student's step, which must stay at 1.15 or less. Outputs cached in fp32 must be the live
ones, to 1e-6.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from featherpress.compress.data import Batch, SyntheticFaces
from featherpress.compress.experiments.build import build_student, find_weights
from featherpress.compress.experiments.teacher_outputs import fingerprint
from featherpress.compress.experiments.teachers import LoadedTeacher, make_distiller
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks import task_of
from featherpress.compress.training.trainer import Trainer
from featherpress.models import load_weights

FROZEN = ("backbone.stage1",)
"""A tenth of V2's backbone by weights, and most of it by work."""


def loaded(recipe: Recipe) -> list[LoadedTeacher]:
    found = []
    for own in recipe.all_teachers:
        model = task_of(recipe).build(own.model, own.settings)
        weights = find_weights(own)
        if weights.is_file():
            load_weights(model, weights)
        model = model.to(default_device()).eval().requires_grad_(False)
        found.append(LoadedTeacher(name="teacher", recipe=own, model=model, weights=weights, hash=fingerprint(model)))
    return found


def trainer(recipe: Recipe, folder: Path, *, kind: str) -> Trainer:
    """Build a trainer of one kind: `plain`, `live`, `fp16` and `fp32` with a cache, or `frozen` and with `fp16`."""
    task = task_of(recipe)
    cache = {"live": False, "frozen": "fp16"}.get(kind, kind)
    teachers = [own.model_copy(update={"cache": cache}) for own in recipe.all_teachers]
    recipe = recipe.model_copy(update={"teacher": None, "teachers": tuple(teachers)})
    student = build_student(recipe, 0, task=task, teachers=[teacher.model for teacher in loaded(recipe)])
    faces = SyntheticFaces(length=2 * recipe.schedule.batch_size, seed=0, size=(recipe.data.sizes[0],) * 2)
    crops = task.crops(faces, 0)
    distiller = None
    if kind != "plain":
        student = student.to(default_device())
        models = {teacher.name: teacher.model for teacher in loaded(recipe)}
        place = folder / "cache" / kind
        distiller = make_distiller(recipe, models, student, task=task, crops=crops, cache=place, seed=0)
    built = Trainer(
        student,
        crops,
        TrainingFolder(folder / kind),
        schedule=recipe.schedule.model_copy(update={"freeze": FROZEN if kind == "frozen" else ()}),
        label=kind,
        task=task,
        distiller=distiller,
    )
    built._set_modes()
    return built


def timed(call: Callable[[], object]) -> float:
    if default_device().type == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    call()
    return time.process_time() - began


def show(name: str, values: list[float], unit: str = "") -> None:
    low, middle, high = statistics.quantiles(values, n=4)
    print(f"{name:<34}{middle:8.3f}{unit}  ({low:.3f} to {high:.3f})")


def report(times: dict[str, list[float]]) -> None:
    for name, values in times.items():
        show(name, values, " s")
    rounds = [dict(zip(times, row, strict=True)) for row in zip(*times.values(), strict=True)]
    show("overhead (live - teacher) / plain", [(r["live step"] - r["teacher"]) / r["plain step"] for r in rounds])
    show("live / plain", [r["live step"] / r["plain step"] for r in rounds])
    show("cached fp16 / plain", [r["fp16 step"] / r["plain step"] for r in rounds])
    show("live / cached fp16", [r["live step"] / r["fp16 step"] for r in rounds])
    show("cached fp16 / frozen as well", [r["fp16 step"] / r["frozen step"] for r in rounds])
    show("live / cached fp16 and frozen", [r["live step"] / r["frozen step"] for r in rounds])


def check_cache(built: Trainer, live: Trainer, batch: Batch, name: str) -> None:
    """Say how far cached outputs are from the live ones, and what a crop takes on disk."""
    (cached,) = built.distiller.caches.values()  # type: ignore[union-attr]
    (teacher,) = live.distiller.kd.teachers.values()  # type: ignore[union-attr]
    images = live.task.images(batch)
    pairs = zip(cached.ask(images, batch.keys).tensors(), teacher.ask(images).tensors(), strict=True)
    worst = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    print(f"{name}: {cached.bytes / cached.rows / 1000:,.0f} KB a crop, at most {worst:.2g} from the live ones")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="v1_to_v2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(
        options.recipe,
        settings=[
            *("data.kind=synthetic", f"data.size={options.size}", "data.train_images=64", "data.validation_images=1"),
            *(f"schedule.batch_size={options.batch}", "distillation.ramp_steps=0", "data.variants=1"),
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        kinds = {kind: trainer(recipe, Path(folder), kind=kind) for kind in ("plain", "live", "fp16", "fp32", "frozen")}
        batch = kinds["plain"].crops.batch([(index, 0) for index in range(options.batch)]).to(default_device())
        (teacher,) = kinds["live"].distiller.kd.teachers.values()  # type: ignore[union-attr]
        images = kinds["live"].task.images(batch)
        calls: dict[str, Callable[[], object]] = {
            "plain step": lambda: kinds["plain"]._step([batch], measure=False),
            "teacher": lambda: teacher.ask(images),
            "live step": lambda: kinds["live"]._step([batch], measure=False),
            "fp16 step": lambda: kinds["fp16"]._step([batch], measure=False),
            "frozen step": lambda: kinds["frozen"]._step([batch], measure=False),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(options.rounds + 1):
            for name, call in calls.items():
                seconds = timed(call)
                if number:  # the first round warms up, and fills the cache
                    times[name].append(seconds)
        print(f"{options.recipe}, batch {options.batch}, {options.size}x{options.size}, {options.rounds} rounds")
        report(times)
        for kind in ("fp32", "fp16"):
            check_cache(kinds[kind], kinds["live"], batch, kind)


if __name__ == "__main__":
    main()
