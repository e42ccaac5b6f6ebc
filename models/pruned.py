"""Pruned models: their plan, the attributes that differ from what the factory builds; and built back from files."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from featherpress.errors import CheckpointError

#: The metadata's key, and the form of what it holds.
KEY, FORM = "featherpress.pruned", 1

Attributes = Mapping[str, Mapping[str, Any]]


def named_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """List parameters and buffers under all their names, each with its module and its name there."""
    for path, module in model.named_modules(remove_duplicate=False):
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    yield f"{path}.{name}" if path else name, module, name, tensor


def remember_plan(model: nn.Module, attributes: Attributes) -> None:
    """Note on a model how it was pruned, beside how it was before; copies keep it, and `save_weights` writes it."""
    before: Attributes = model.__dict__.get("_plan", {})
    paths = {**before, **attributes}
    model.__dict__["_plan"] = {path: {**before.get(path, {}), **attributes.get(path, {})} for path in paths}


def pruned_state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return a pruned model's tensors, each once, and as metadata what else makes the model; None for any other."""
    attributes: Attributes | None = model.__dict__.get("_plan")
    if attributes is None:
        return None
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, _, _, tensor in named_tensors(model):
        if id(tensor) in first:
            aliases[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor
    plan = {"form": FORM, "class": type(model).__name__, "attributes": attributes, "aliases": aliases}
    return tensors, {KEY: json.dumps(plan, sort_keys=True)}


def is_pruned(path: str | Path) -> bool:
    """Tell a file of a pruned model by its metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def plain_state(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a pruned model's file as the state dict of a model."""
    whole = {**state, **{name: state[source] for name, source in read_plan(path)["aliases"].items()}}
    loose = {
        f"{place}.{name}".lstrip(".")
        for place, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    return {name: tensor for name, tensor in whole.items() if name not in loose}


def read_plan(path: str | Path) -> dict[str, Any]:
    """Return what a file of a pruned model says of it: class, attributes and aliases.

    Errors: CheckpointError for a file that is missing, broken, or not of a pruned model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    if said is None:
        raise CheckpointError(f"{path} is not a pruned model: it was not written by `featherpress prune`")
    try:
        plan = json.loads(said)
        if plan["form"] != FORM:
            raise CheckpointError(f"{path} is of form {plan['form']}, expected {FORM}: update featherpress")
        attributes = {
            path: {name: _as_attribute(value) for name, value in held.items()}
            for path, held in plan["attributes"].items()
        }
        return {"class": str(plan["class"]), "attributes": attributes, "aliases": dict(plan["aliases"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} says in broken words how it was pruned: {error}") from error


def _as_attribute(value: Any) -> Any:
    """Take numbers, and lists of them as tuples; nothing else is an attribute of a pruned model."""
    if isinstance(value, list):
        return tuple(_as_attribute(each) for each in value)
    if isinstance(value, bool | int):
        return value
    raise ValueError(f"{value!r} is not a number")


def load_pruned(factory: Callable[[], nn.Module], path: str | Path) -> nn.Module:
    """Build a pruned model back: `factory` makes the original, without memory, and the file says the rest.

    Errors: CheckpointError if the file is no pruned model, or not one of this factory's.
    """
    plan = read_plan(path)
    model = _build(factory)
    if type(model).__name__ != plan["class"]:
        raise CheckpointError(f"{path} is a pruned {plan['class']}, and the factory makes a {type(model).__name__}")
    _set_attributes(model, plan["attributes"], path)
    _fill(model, load_file(path), plan["aliases"], path)
    remember_plan(model, plan["attributes"])
    return model


def _build(factory: Callable[[], nn.Module]) -> nn.Module:
    """Build on meta; where the model keeps tensors that no file holds, on the CPU."""
    try:
        with torch.device("meta"):
            model = factory()
    except Exception:  # it may compute with values
        return factory()
    return factory() if any(_loose(model)) else model


def _loose(model: nn.Module) -> Iterator[str]:
    """Name tensors that modules keep outside their parameters and buffers."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in {"_parameters", "_buffers", "_modules"} and _holds_tensor(value):
                yield f"{path}.{name}".lstrip(".")


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(_holds_tensor(each) for each in value)
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter)


def _set_attributes(model: nn.Module, attributes: Attributes, path: str | Path) -> None:
    for place, changes in attributes.items():
        try:
            module = model.get_submodule(place)
        except AttributeError as error:
            raise CheckpointError(f"{path} names module {place}, which the factory's model does not have") from error
        for name, value in changes.items():
            if name not in vars(module):
                raise CheckpointError(f"{path} sets {place}.{name}, which the factory's model does not have")
            setattr(module, name, value)


def _fill(model: nn.Module, held: Mapping[str, Tensor], aliases: Mapping[str, str], path: str | Path) -> None:
    """Put the file's tensors in the place of the factory's, one object for all owners."""
    made: dict[str, Tensor] = {}
    wanted = list(named_tensors(model))
    names = {name for name, *_ in wanted}
    missing, foreign = names - held.keys() - aliases.keys(), (held.keys() | aliases.keys()) - names
    if missing or foreign:
        one = min(missing or foreign)
        raise CheckpointError(
            f"{path} does not fit the factory's model: {one} is {'not in the file' if missing else 'not in the model'}"
        )
    for name, module, own, tensor in wanted:
        source = aliases.get(name, name)
        value = made.get(source)
        if value is None:
            value = held[source]
            if isinstance(tensor, nn.Parameter):
                if any(ours > whole for ours, whole in zip(value.shape, tensor.shape, strict=False)):
                    raise CheckpointError(
                        f"{path} was cut from a larger model than the factory makes: {name} of {tuple(value.shape)}, "
                        f"of {tuple(tensor.shape)} there; give the factory the arguments it had"
                    )
                value = nn.Parameter(value, requires_grad=tensor.requires_grad)
            made[source] = value
        (module._parameters if isinstance(tensor, nn.Parameter) else module._buffers)[own] = value  # type: ignore[assignment]
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()  # its own list of its weights
