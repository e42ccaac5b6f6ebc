"""What one model of a table costs, and what else explains a published figure: all counted in one go."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import torch
from pydantic import Field
from torch import nn

from featherpress.budgets.counting.costs import Cost
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.inputs import input_type, make_inputs
from featherpress.budgets.crosscheck.counters import ask_default_fvcore
from featherpress.errors import CountError, FeatherpressError, UsageError
from featherpress.models.factories import import_offline, load_factory
from featherpress.models.inputs import usual_shape
from featherpress.records.record import Part

#: fvcore's defaults beyond core work: operations per element of its input, of an adaptive pool's, of a resized output.
_NORMS = {"batch_norm": 2, "layer_norm": 5, "group_norm": 5}
_RESIZES = {"upsample_nearest2d": 1, "upsample_bilinear2d": 4, "grid_sampler_2d": 4}
#: By these a block says that it can be folded into a simpler one.
_FOLDS = ("reparameterize", "fuse", "switch_to_deploy")


class State(Part):
    """Counts of a model in one state: `with_norms` is by fvcore's defaults, from the element-wise work."""

    params: int
    macs: int
    with_norms: int


class Measured(Part):
    """What was counted of one row; `error` in place of numbers where that failed.

    `folded` is the model after its own blocks were re-parameterised, where it has such. `work` are MACs by operator.
    `fvcore` is what fvcore gave by its defaults, and `unsupported` the core operators that it said it skipped; both
    only where it was asked.
    """

    name: str
    input: str = ""
    state: State | None = None
    folded: State | None = None
    work: dict[str, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fvcore: int | None = None
    unsupported: tuple[str, ...] = ()
    asked: bool = False
    error: str = ""
    seconds: float = 0.0


def measure(name: str, factory: str, settings: Mapping[str, Any], side: str, *, ask_fvcore: bool = False) -> Measured:
    """Build a model and count it; never raises, since one row of a table must not cost the others.

    A model is built without memory where that works. `side` is the side of a square image or a shape; unless given,
    the size that the model says of itself, else 224.
    """
    began = time.monotonic()
    try:
        with redirect_stdout(sys.stderr):
            found = _measure(name, factory, settings, side, ask_fvcore=ask_fvcore)
    except FeatherpressError as error:
        found = Measured(name=name, error=" ".join(str(error).split()))
    return found.model_copy(update={"seconds": round(time.monotonic() - began, 3)})


def _measure(name: str, factory: str, settings: Mapping[str, Any], side: str, *, ask_fvcore: bool) -> Measured:
    settings = {**import_offline(factory)[1], **settings}
    try:
        with torch.device("meta"):
            model = load_factory(factory, settings).eval()
        cost, shape = _count(model, side)
    except (UsageError, CountError):  # it may read values while it is built, or when it runs
        model = load_factory(factory, settings).eval()
        cost, shape = _count(model, side)
    work = Counter[str]()
    for (_, operator), amount in cost.work.items():
        work[operator] += amount
    result = Measured(
        name=name,
        input=shape,
        state=_state(cost),
        folded=_folded(factory, settings, shape) if any(map(_can_fold, model.modules())) else None,
        work=dict(work),
        notes=cost.notes,
    )
    if not ask_fvcore:
        return result
    given, skipped = ask_default_fvcore(load_factory(factory, settings).eval(), make_inputs([shape]).args)
    return result.model_copy(update={"fvcore": given, "unsupported": skipped, "asked": True})


def _count(model: nn.Module, side: str) -> tuple[Cost, str]:
    found = None if side else usual_shape(model)
    shape = "x".join(map(str, found[0])) if found else side or "224"
    inputs = make_inputs([shape], kind=input_type(model))
    return count(model, *inputs.args), shape


def _state(cost: Cost) -> State:
    extra, kinds = 0, {row.path: row.kind for row in cost.modules}
    for (path, operator), amount in cost.elementwise_work.items():
        name = operator.partition("::")[2]
        each = next((per for norm, per in _NORMS.items() if norm in name), _RESIZES.get(name, 0))
        if kinds.get(path, "").startswith("AdaptiveAvgPool2d"):
            each = 1
        extra += each * amount
    return State(params=cost.params, macs=cost.macs, with_norms=cost.macs + extra)


def _can_fold(module: nn.Module) -> bool:
    return any(callable(getattr(module, name, None)) for name in _FOLDS)


def _folded(factory: str, settings: Mapping[str, Any], shape: str) -> State | None:
    """Count the model after its blocks folded themselves; None where they cannot."""
    try:
        model = load_factory(factory, settings).eval()
        _fold(model)
        return _state(_count(model, shape)[0])
    except Exception:  # other people's methods, of which the name is all that is known
        return None


def _fold(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        method = next((getattr(child, each) for each in _FOLDS if callable(getattr(child, each, None))), None)
        made = method() if method else None
        if isinstance(made, nn.Module):
            setattr(parent, name, made)
        _fold(child)  # which may have returned itself
