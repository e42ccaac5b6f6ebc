"""What a run belongs to: its recipe, teachers, data, code and machine, so that no two arms differ without a word."""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from featherpress import __version__
from featherpress.compress.data.subsets import cache_key
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.runtime.ranks import world_size
from featherpress.errors import TrainingError
from featherpress.files import hash_file
from featherpress.models.factories import import_factory
from featherpress.records.run import PROVENANCE, Provenance
from featherpress.records.sweep import SWEEP, Sweep

if TYPE_CHECKING:
    from featherpress.compress.experiments.experiment import Experiment

logger = logging.getLogger("featherpress")

_WITHOUT_EFFECT = {"workers", "save_every", "log_every", "cache", "cache_bytes"}
"""The recipe's keys of schedules and data that change no weight and no score."""

_NAMED_AT_ONCE = 5
_LONGEST = 60


def recipe_to_resume(name: str, folder: Path, settings: Sequence[str]) -> Recipe:
    """Return the recipe to go on with, under the run's own settings and those that are given over them.

    It is the one that is named; or the run's own `recipe.toml`, where none is named, or where that was edited.

    Errors: `RecipeError` for either that cannot be read.
    """
    began, own = Provenance.find(folder / PROVENANCE), folder / "recipe.toml"
    if not name or began is None or _differences(began.recipe, _flat_recipe(load_recipe(own))):
        return load_recipe(own, settings=settings)
    return load_recipe(name, settings=lay_over(began.settings, settings))


def sweep_to_resume(name: str, folder: Path, settings: Sequence[str], *, allow_changed: bool) -> Recipe:
    """Return the recipe of a sweep to go on with: the one that is named, under all settings that were ever given.

    Errors: `TrainingError` where it is not what the sweep began with, unless that is allowed.
    """
    own, began = folder / "recipe.toml", Sweep.find(folder / SWEEP)
    recipe = load_recipe(name, settings=lay_over(began.settings if began else (), settings))
    if own.is_file():
        was, now = (_flat_recipe(each) for each in (load_recipe(own, settings=settings), recipe))
        _require_same(folder, _differences(was, now), allow_changed=allow_changed)
    return recipe


def begin(experiment: "Experiment", method: str) -> Provenance:
    """Note what a run belongs to, or check that it still is what it began as.

    Errors: `TrainingError` that names what has changed, unless that is allowed; then the record names it.
    """
    path, out, allow_changed = experiment.out / PROVENANCE, experiment.out, experiment.allow_changed
    began = Provenance.find(path)
    now = _describe(experiment, method, settings=lay_over(began.settings if began else (), experiment.settings))
    if began is None:
        trained = any(out.rglob("state/step-*.pt"))
        if trained and not allow_changed:
            raise TrainingError(
                f"{out} holds a model in training and does not say what it belongs to: there is no {PROVENANCE}; "
                "start again with --overwrite, or go on with --allow-changed"
            )
        if trained:
            now = now.model_copy(update={"changed": {"run": f"{PROVENANCE} was missing"}})
        now.save(path)
        return now
    changed = {
        **_differences(began.recipe, now.recipe),
        **_differences(began.parts, now.parts),
        **_differences(began.machine, now.machine),
    }
    now = now.model_copy(update={"teachers": began.teachers})
    return _go_on(out, began, now, changed, allow_changed=allow_changed)


def check_teachers(out: Path, hashes: Mapping[str, str], *, allow_changed: bool) -> Provenance:
    """Note the teachers of a run, or check that they are those that it began with.

    Errors: `TrainingError` that names the teacher whose weights are others, unless that is allowed.
    """
    began = Provenance.load(out / PROVENANCE)
    now = began.model_copy(update={"teachers": {name: f"#{value[:16]}" for name, value in hashes.items()}})
    if not began.teachers:
        now.save(out / PROVENANCE)
        return now
    return _go_on(out, began, now, _differences(began.teachers, now.teachers), allow_changed=allow_changed)


def _go_on(
    out: Path, began: Provenance, now: Provenance, changed: Mapping[str, str], *, allow_changed: bool
) -> Provenance:
    if not changed:
        return began
    _require_same(out, changed, allow_changed=allow_changed)
    going_on = now.model_copy(update={"run": began.run, "changed": {**began.changed, **changed}})
    _forget_answers(out)
    going_on.save(out / PROVENANCE)
    return going_on


def _require_same(out: Path, changed: Mapping[str, str], *, allow_changed: bool) -> None:
    """Name what has changed, as an error unless it is allowed."""
    if not changed:
        return
    named = "; ".join([*changed.values()][:_NAMED_AT_ONCE])
    more = f"; and {len(changed) - _NAMED_AT_ONCE} more" if len(changed) > _NAMED_AT_ONCE else ""
    if not allow_changed:
        raise TrainingError(
            f"{out} is not the run that it began as: {named}{more}; put that back, start again with --overwrite, or go "
            "on with --allow-changed, which the record will say"
        )
    logger.warning("going on although %s%s", named, more)


def _forget_answers(out: Path) -> None:
    """Remove what teachers said, and images as they were decoded: neither may be of what it was."""
    for folder in (*out.rglob("cache"), *out.rglob("cache-*"), out / "decoded", out / "labels"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (*out.glob("eval/teacher*.*"), *out.glob("labels*.json")):
        file.unlink()


def _describe(experiment: "Experiment", method: str, *, settings: Sequence[str]) -> Provenance:
    recipe = experiment.recipe
    parts = {"command": method, "featherpress": __version__, **_code(recipe), **_first_weights(recipe)}
    splits = {"training images": experiment.training, "validation images": experiment.validation}
    if recipe.data.holdout:
        splits["images held out"] = experiment.holdout
    if method != "train":
        photographs = experiment.task.unlabelled_images()
        splits |= {f"images without labels, {number}": each for number, each in enumerate(photographs, start=1)}
    parts |= {name: _stamp(dataset) for name, dataset in splits.items()}
    machine = {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "processes": str(world_size()),
        "device": default_device().type,
    }
    flat = _flat_recipe(recipe)
    run = hashlib.blake2b(json.dumps([flat, parts, machine]).encode(), digest_size=8).hexdigest()
    return Provenance(run=run, settings=tuple(settings), recipe=flat, parts=parts, machine=machine)


def _flat_recipe(recipe: Recipe) -> dict[str, str]:
    """Return a recipe's values as JSON by their dotted keys, without those that change no weight and no score."""
    return dict(_flat(recipe.model_dump(mode="json"), ()))


def _flat(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if above and above[-1] in {"schedule", "data"} and key in _WITHOUT_EFFECT:
            continue
        if isinstance(value, dict) and value:
            yield from _flat(value, (*above, key))
        else:
            yield ".".join((*above, key)), json.dumps(value)


def _code(recipe: Recipe) -> dict[str, str]:
    """Return the hashes of the files that define a recipe's own models and task."""
    named = [recipe.data.kind, recipe.student.model, *(teacher.model for teacher in recipe.all_teachers)]
    modules = {name.rpartition(":")[0]: import_factory(name) for name in named if ":" in name}
    files = {name: getattr(sys.modules[name], "__file__", None) for name in modules}
    return {f"the code of {name}": _hash(Path(file)) for name, file in files.items() if file}


def _first_weights(recipe: Recipe) -> dict[str, str]:
    """Return the hashes of the files that a student starts from."""
    own = recipe.student
    run = expand_path(own.run)
    files = {
        "student.weights": expand_path(own.weights) if own.weights != "shipped" else Path(),
        "student.backbone": expand_path(own.backbone),
        "student.public_backbone": expand_path(own.public_backbone),
        "student.run": run / "weights" / "last.safetensors",
        "student.run, control": run / "control" / "weights" / "last.safetensors",
    }
    return {f"the file of {key}": _hash(path) for key, path in files.items() if path.is_file()}


def _stamp(dataset: Any) -> str:
    """Hash the names of a data set's images and, where they are files, their content with their labels."""
    digest = hashlib.blake2b(digest_size=8)
    for index in range(len(dataset)):
        digest.update(f"{dataset.name(index)}\0{cache_key(dataset, index)}\0".encode(errors="surrogatepass"))
    return f"#{digest.hexdigest()}"


def _hash(path: Path) -> str:
    return f"#{hash_file(path)[:16]}"


def lay_over(settings: Sequence[str], over: Sequence[str]) -> list[str]:
    """Return settings of before with those that are given now, which come last."""
    return [*(each for each in settings if each not in over), *over]


def _differences(was: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return a sentence for every key of which the value is another, missing or new."""
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    return {key: _difference(key, was.get(key), now.get(key)) for key in keys}


def _difference(key: str, was: str | None, now: str | None) -> str:
    if (was or now or "").startswith("#"):
        return f"{key}: changed" if was and now else f"{key}: {'gone' if was else 'new'}"
    old, new = (f"{value or 'not there'}" for value in (was, now))
    shown = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..." for text in (old, new)]
    return f"{key} was {shown[0]} and is {shown[1]}"
