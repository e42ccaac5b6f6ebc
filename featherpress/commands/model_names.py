"""Targets of the command line: a model of the zoo, anyone's factory, or a file of weights."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.errors import CountError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from featherpress.budgets import Audit, CrossCheck
    from featherpress.compress.recipes import Recipe
    from featherpress.models import Detector

#: Whose shipped weights are taken where no model is named.
DEFAULT_DETECTOR = "featherface_v2"

_LARGEST, _MOST_AXES = 65536, 8
_TYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "bool")

#: What `fit` turns in a model of the zoo that has it.
USUAL_KNOBS = ("out_channels=8:128:2", "bifpn_repeats=1:4")


def audit_model(
    name: str,
    *,
    budget: str,
    shape: str = "",
    strict_claims: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> "Audit":
    """Count a model on inputs of a shape, as `make_inputs` reads it, or at its budget's, and check it.

    The shipped budget of a zoo model is found by its name, unless `settings` make it another model.
    """
    from featherpress.budgets import audit as run_audit
    from featherpress.budgets import list_budgets, load_budget
    from featherpress.budgets.auditing.audit import input_type
    from featherpress.models.factories import load_factory

    model = load_factory(name, settings)
    file = budget or (name if name in list_budgets() and not settings else "")
    limits = load_budget(file) if file else None
    shape = shape or ("" if limits else "640")
    inputs = make_inputs(shape, kind=input_type(model)) if shape else None
    return run_audit(model, limits, name=name, example_inputs=inputs, strict_claims=strict_claims)


def count_model(
    name: str, *, shape: str, budget: str = "", settings: Mapping[str, Any] | None = None
) -> "tuple[int, Audit | None]":
    """Return how many parameters a model has, and its audit if it can be counted."""
    from featherpress.models.factories import load_factory

    try:
        result = audit_model(name, budget=budget, shape=shape, settings=settings)
    except CountError:
        return sum(weight.numel() for weight in load_factory(name, settings).parameters()), None
    return result.cost.params, result


def cross_check_model(name: str, result: "Audit", *, shape: str = "") -> "CrossCheck":
    """Count a model with the other counters too, on the inputs that it was audited on."""
    from featherpress.budgets import cross_check
    from featherpress.budgets.auditing.audit import input_type
    from featherpress.models.factories import load_factory

    model = load_factory(name)
    kind = input_type(model)
    inputs = make_inputs(shape, kind=kind) if shape else [empty_images(*each, kind=kind) for each in result.cost.inputs]
    return cross_check(model, *inputs)


def shape_seen(recipe: "Recipe") -> str:
    """Return the shape that a recipe's models are counted at; empty for their own default."""
    return recipe.data.counted_at


def find_factory(name: str) -> tuple[Callable[..., Any], list[str]]:
    """Find the function that builds a model, and the knobs to turn where none are given."""
    if ":" in name:
        from featherpress.models.factories import import_factory

        return import_factory(name), []
    from featherpress.models import create_model, find_model

    entry = find_model(name)
    return partial(create_model, name), [knob for knob in USUAL_KNOBS if knob.partition("=")[0] in entry.settings]


def settings_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model is built from: its preset's settings, where it has one, under those that were given."""
    if ":" in name:
        return dict(settings)
    from featherpress.models import find_model

    return {**find_model(name).settings, **settings}


def open_detector(weights: Path, model: str) -> "Detector":
    """Build a detector with a file's weights, in eval mode on the default device."""
    from featherpress.compress.runtime.devices import default_device
    from featherpress.models import load_detector

    return load_detector(weights, name=model).to(default_device()).eval()


def weights_or_shipped(weights: Path | None, model: str) -> Path:
    """Return the weights file that was given, or the one that comes with the package."""
    from featherpress.models import find_model, shipped_weights

    if weights is not None:
        return weights
    entry = find_model(model or DEFAULT_DETECTOR)
    if entry.shipped is None:
        raise UsageError(
            "without --weights the shipped ones are taken, but no trained weights are shipped for "
            f"{entry.name}; name a file of yours with --weights"
        )
    return shipped_weights(entry.name)


def make_inputs(text: str, *, kind: "dtype") -> "list[Tensor]":
    """Make the zeros that `--input` describes: `640` for one square image, or a whole shape an input.

    `1x3x480x640` is one input, `1x77:int64,1x77:bool` are two, of types of their own; else they are of `kind`.

    Errors: `UsageError` for anything else.
    """
    import torch

    images = []
    for part in text.split(","):
        shape, _, name = part.strip().partition(":")
        sizes = shape.split("x")
        own = getattr(torch, name) if name in _TYPES else kind
        fits = all(size.isascii() and size.isdecimal() and 1 <= int(size) <= _LARGEST for size in sizes)
        if not fits or len(sizes) > _MOST_AXES or (name and name not in _TYPES):
            raise UsageError(
                "--input is the side of a square image, as 640, or a shape for each input, as 1x3x480x640 or "
                f"1x77:int64,1x77:bool, of sizes from 1 to {_LARGEST}; got {text!r}"
            )
        axes = [int(size) for size in sizes]
        images.append(empty_images(*(axes if len(axes) > 1 else [1, 3, *axes, *axes]), kind=own))
    return images


def empty_images(*shape: int, kind: "dtype | None" = None) -> "Tensor":
    """Make zeros of any size without taking memory for them."""
    import torch

    return torch.zeros(1, dtype=kind).expand(*shape)
