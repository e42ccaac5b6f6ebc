"""Models saved with their name and settings, so that the file alone is enough to build them again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from featherpress.errors import CheckpointError, UsageError
from featherpress.files import require_readable, split_weights, write_bytes
from featherpress.models.checkpoints import fill_tied, load_weights, read_weights, require_fit, tied_names
from featherpress.models.creation import Origin, create_model, origin_of
from featherpress.models.detectors import Detector, create_detector, require_detector
from featherpress.models.factories import load_factory
from featherpress.models.inputs import ModelInput, input_of
from featherpress.models.pruned import is_pruned, load_pruned, pruned_state

#: Keys of the metadata of a pruned model's file: what it was pruned from.
TARGET, SETTINGS = "featherpress.target", "featherpress.settings"


def save_model(model: nn.Module, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Save a model's weights, name and settings, so that `load_model` can build it again.

    Errors: `UsageError` for a model that `create_model` did not build.
    """
    if origin_of(model) is None:
        raise UsageError(
            f"this {type(model).__name__} was not built by create_model, so that no file can say how to build it; "
            "register it with featherpress.models.register_model, or keep its weights alone with save_weights"
        )
    save_weights(model, path, metadata=metadata)


def load_model(path: str | Path) -> nn.Module:
    """Build the model that a file holds, with its weights, in training mode as `create_model` does.

    Errors: `CheckpointError` for a file that is missing or broken, does not say which model it is of, or is of one
    that cannot be built here.
    """
    origin = read_origin(path)
    if origin is None:
        raise CheckpointError(f"{path} does not say which model it is of; build it by name and use load_weights")
    try:
        if is_pruned(path):
            return load_pruned(lambda: create_model(origin.name, **origin.settings), path)
        # What a file says of its model may be anything: compare without memory before taking any.
        with torch.device("meta"):
            model = create_model(origin.name, **origin.settings)
            require_fit(model, fill_tied(model, read_weights(path)), path)
        model = create_model(origin.name, **origin.settings)
    except (UsageError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is of a model that cannot be built here: {error}") from error
    load_weights(model, path)
    return model


def load_detector(path: str | Path, *, name: str = "") -> Detector:
    """Build a detector with a file's weights: the model that the file says it is of, or the one named.

    Errors: `CheckpointError` as `load_model` and `load_weights`; `UsageError` for a model that is not a `Detector`, and
    when neither the file nor `name` says which model it is.
    """
    origin = read_origin(path)
    if origin is not None and name in {"", origin.name}:
        return require_detector(load_model(path), origin.name)
    if not name:
        raise UsageError(f"{path} does not say which model it is of; name it too")
    return require_detector(build_with_weights(lambda: create_detector(name), path), name)


def save_weights(model: nn.Module, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model's state as safetensors under plain keys, completely or not at all.

    What `create_model` built is named in the metadata, which `metadata` adds to; so is what images a model takes, where
    that is known, and how it was pruned.
    """
    path = Path(path)
    state, plan = pruned_state(model) or (_untied(model), {})
    origin = origin_of(model)
    named = {"model": origin.name, "settings": json.dumps(dict(origin.settings))} if origin else {}
    takes = input_of(model)
    if takes is not None:
        named["input"] = json.dumps(asdict(takes))
    write_bytes(path, save(_apart(state), metadata={**(metadata or {}), **named, **plan}))


def _untied(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's tensors, those under several names under the first alone."""
    tied = tied_names(model)
    return {key: value for key, value in model.state_dict().items() if key not in tied}


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as a file can hold them: none in the memory of another."""
    made, places = {}, set[int]()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        made[key] = tensor.clone() if place in places else tensor
        places.add(place)
    return made


def build_with_weights(factory: Callable[[], nn.Module], path: str | Path) -> nn.Module:
    """Build a factory's model with a file's weights, in the shape that the file says if it is of a pruned one.

    Errors: `CheckpointError` as `load_weights` and `load_pruned`.
    """
    if is_pruned(path):
        return load_pruned(factory, path)
    model = factory()
    load_weights(model, path)
    return model


def load_named(name: str) -> nn.Module:
    """Build the model of `TARGET`, or of `TARGET@FILE` with that file's weights.

    Errors: those of `load_factory` and `build_with_weights`.
    """
    target, file = split_weights(name)
    if file is None:
        return load_factory(target)
    return build_with_weights(partial(load_factory, target, settings_of_file(file, target)), file)


def settings_of_file(path: str | Path, target: str) -> dict[str, Any]:
    """Return what a file says its model was built from, where that is `target`; else nothing.

    Errors: `CheckpointError` as `read_input`.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    said, metadata = read_input(path), read_metadata(path)
    if said is not None and said.target == target:
        return dict(said.settings)
    if metadata.get(TARGET) != target:
        return {}
    try:
        return dict(json.loads(metadata[SETTINGS]))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} names the settings of {target} in broken JSON: {error}") from error


def read_origin(path: str | Path) -> Origin | None:
    """Return the model that a file names; None if it names none.

    Errors: `CheckpointError` for a file that is missing or broken.
    """
    metadata = read_metadata(path)
    if "model" not in metadata:
        return None
    try:
        settings = json.loads(metadata.get("settings", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path} names the settings of its model in broken JSON: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds a {type(settings).__name__} as its model's settings, expected an object")
    return Origin(name=metadata["model"], settings={key: _to_tuples(value) for key, value in settings.items()})


def read_input(path: str | Path) -> ModelInput | None:
    """Return what images the model of a file takes, and its classes; None if the file does not say.

    Errors: `CheckpointError` for a file that is missing or broken.
    """
    said = read_metadata(path).get("input")
    if said is None:
        return None
    try:
        content = json.loads(said)
        mean, std = (tuple(map(float, content[key])) for key in ("mean", "std"))
        classes = tuple(map(str, content["classes"]))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("mean and std are three numbers each, std above 0")
        return ModelInput(
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            size=int(content["size"]),
            classes=classes,
            target=str(content.get("target", "")),
            settings=dict(content.get("settings", {})),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} says in broken words what images its model takes: {error}") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty for files of other kinds.

    Errors: `CheckpointError` for a file that is missing or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no weights file at {path}")
    if path.suffix.lower() != ".safetensors":
        return {}
    try:
        require_readable(path)
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _to_tuples(value: Any) -> Any:
    """Turn JSON's lists into the tuples that settings were."""
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value
