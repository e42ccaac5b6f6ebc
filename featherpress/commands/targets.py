"""What a name on the command line means: a model of the zoo, anyone's factory, or a file of weights."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from featherpress.budgets import Audit, CrossCheck
    from featherpress.models import Detector

__all__ = [
    "audit_target",
    "cross_check_target",
    "empty_images",
    "find_factory",
    "open_detector",
    "settings_of",
    "weights_or_shipped",
]

#: Whose shipped weights are taken where no model is named.
DEFAULT_DETECTOR = "featherface_v2"

#: What `fit` turns in a model of the zoo that has it.
USUAL_KNOBS = ("out_channels=8:128:2", "bifpn_repeats=1:4")


def audit_target(
    target: str,
    *,
    budget: str,
    side: int | None = None,
    strict_claims: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> "Audit":
    """Count a target at a size, or at its budget's, and check it.

    The shipped budget of a zoo model is found by its name, unless `settings` make it another model.
    """
    from featherpress.budgets import audit as run_audit
    from featherpress.budgets import list_budgets, load_budget
    from featherpress.budgets.audits import input_type
    from featherpress.models.targets import load_target

    model = load_target(target, settings)
    name = budget or (target if target in list_budgets() and not settings else "")
    limits = load_budget(name) if name else None
    side = side or (None if limits else 640)
    inputs = empty_images(1, 3, side, side, kind=input_type(model)) if side else None
    return run_audit(model, limits, name=target, example_inputs=inputs, strict_claims=strict_claims)


def cross_check_target(target: str, result: "Audit") -> "CrossCheck":
    """Count a target with the other counters too, at the size it was audited at."""
    from featherpress.budgets import cross_check
    from featherpress.budgets.audits import input_type
    from featherpress.models.targets import load_target

    model = load_target(target)
    inputs = [empty_images(*shape, kind=input_type(model)) for shape in result.cost.inputs]
    return cross_check(model, *inputs)


def find_factory(target: str) -> tuple[Callable[..., Any], list[str]]:
    """Find the function that builds a target, and the knobs to turn where none are given."""
    if ":" in target:
        from featherpress.models.targets import import_factory

        return import_factory(target), []
    from featherpress.models import create_model, find_model

    entry = find_model(target)
    return partial(create_model, target), [knob for knob in USUAL_KNOBS if knob.partition("=")[0] in entry.settings]


def settings_of(target: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a target is built from: its preset's settings, where it has one, under those that were given."""
    if ":" in target:
        return dict(settings)
    from featherpress.models import find_model

    return {**find_model(target).settings, **settings}


def open_detector(weights: Path, model: str) -> "Detector":
    """Build a detector with a file's weights, ready to look at images on what there is."""
    from featherpress.compress.building import default_device
    from featherpress.models import load_detector

    return load_detector(weights, name=model).to(default_device()).eval()


def weights_or_shipped(weights: Path | None, model: str) -> Path:
    """Return the file of the weights that were named, or of the model's that come with the package."""
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


def empty_images(*shape: int, kind: "dtype | None" = None) -> "Tensor":
    """Make zeros of any size without taking memory for them."""
    import torch

    return torch.zeros(1, dtype=kind).expand(*shape)
