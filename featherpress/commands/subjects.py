"""What `audit`, `diff` and `fit` are asked about: a model built by its name, and what it is fed."""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featherpress.commands.model_names import model_and_weights, settings_of
from featherpress.commands.printing import stdout_to_stderr
from featherpress.errors import CountError, UsageError
from featherpress.files import split_weights

if TYPE_CHECKING:
    from torch import nn

    from featherpress.budgets import Audit, Budget
    from featherpress.budgets.counting.formulas import Formula
    from featherpress.budgets.counting.inputs import Inputs
    from featherpress.budgets.fitting.fit import Knob
    from featherpress.records.audit import Pin

#: What `fit` turns in a model of the zoo that has it.
USUAL_KNOBS = ("out_channels=8:128:2", "bifpn_repeats=1:4")
_SIZE = re.compile(r"width|depth|layers|blocks|repeats|channels|hidden|dim|ratio|mult|filters|planes|heads|base")
_FIXED = re.compile(r"class|^in_|image|input|drop|kernel|vocab")
_ZOO_SIDE, _OTHER_SIDE = "640", "224"


class Subject(NamedTuple):
    """A model, what it is fed, in words where that is from, and what the model is built from."""

    name: str
    model: "nn.Module"
    inputs: "Inputs"
    source: str
    settings: Mapping[str, Any]


def open_subject(
    name: str,
    *,
    inputs: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    budget: "Budget | None" = None,
    pin: "Pin | None" = None,
    weights: Path | None = None,
) -> Subject:
    """Build a model, and what it is fed: `inputs`, else its budget's or its pin's, else one image of its usual size.

    With `weights`, or as `NAME@FILE`, it has those of a file, and the shape of a pruned one. Weights that are drawn are
    the same every time, for a forward may branch by them. Nothing is downloaded: the backbones of torchvision's
    detectors come without weights.

    Errors: UsageError where both name weights.
    """
    import torch

    from featherpress.models.factories import import_offline, load_factory
    from featherpress.models.saving import build_with_weights, settings_of_file

    target, weights = model_and_weights(name, weights)

    # What other packages say of their progress is not our output, which may be JSON.
    with stdout_to_stderr():
        torch.manual_seed(0)
        factory, offline = import_offline(target)
        chosen = {**(settings_of_file(weights, target) if weights else {}), **(settings or {})}
        make = partial(load_factory, target, {**offline, **chosen})
        model = build_with_weights(make, weights) if weights else make()
        return Subject(name, model, *_choose_inputs(model, factory, inputs, budget, pin), settings_of(target, chosen))


def _choose_inputs(
    model: "nn.Module",
    factory: Callable[..., Any] | None,
    texts: Sequence[str],
    budget: "Budget | None",
    pin: "Pin | None",
) -> "tuple[Inputs, str]":
    from featherpress.budgets.counting.inputs import input_type, make_inputs
    from featherpress.models.inputs import usual_shape

    kind = input_type(model)
    given = [text for text in texts if text]
    if given:
        return make_inputs(given, kind=kind), "as given"
    if budget is not None:
        return budget.make_inputs(kind), f"from {Path(budget.file).name}"
    if pin is not None and pin.signature:
        return make_inputs(pin.signature, kind=kind), f"from {pin.file.name}"
    if factory is None:
        return make_inputs([_ZOO_SIDE], kind=kind), "the zoo's size"
    found = usual_shape(model, factory)
    if found is not None:
        return make_inputs(["x".join(map(str, found[0]))], kind=kind), found[1]
    return make_inputs([_OTHER_SIDE], kind=kind), "no --input was given, and the model says no size"


def audit_subject(
    subject: Subject,
    budget: "Budget | None" = None,
    *,
    formulas: "Mapping[str, Formula] | None" = None,
    strict_claims: bool = False,
) -> "Audit":
    """Count a subject and check it.

    Errors: those of `audit`; where a model fails on its inputs, the sentence says what to give instead.
    """
    from featherpress.budgets import audit as run_audit

    name, model, (args, kwargs), source, settings = subject
    with advised(subject), stdout_to_stderr():
        result = run_audit(
            model,
            budget,
            name=name,
            example_inputs=args,
            kwargs=kwargs,
            formulas=formulas,
            strict_claims=strict_claims,
        )
    built = {"settings": {key: _as_json(value) for key, value in settings.items()}} if settings else {}
    return result.model_copy(update={"input_source": source, **built})


def _as_json(value: Any) -> Any:
    """Return a value that a record can hold: what JSON has not, as Python writes it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value


@contextmanager
def advised(subject: Subject) -> Iterator[None]:
    """Where a subject fails on its inputs inside, let the sentence say what to give instead."""
    try:
        yield
    except UsageError as error:
        if " fails on inputs " not in str(error):
            raise
        raise UsageError(f"{error}; {_advise_inputs(subject)}") from error


def _advise_inputs(subject: Subject) -> str:
    """State what a model was fed, why, and what to give instead."""
    from featherpress.budgets.counting.inputs import describe_inputs
    from featherpress.models.inputs import suggest_inputs

    fed = ", ".join(describe_inputs(subject.inputs)) or "nothing"
    by_default = not subject.source.startswith(("as given", "from "))
    suggested = suggest_inputs(subject.model)
    given = " ".join(f"--input {text}" for text in suggested)
    if [text.partition("=")[2] for text in suggested] == [fed] and "224x224" in fed:  # which failed just now
        given = f"another size, as {given.replace('224x224', '64x64')}"
    fed = f"one image of {fed} was fed by default" if by_default else f"{fed} was fed"
    return (
        f"{fed} ({subject.source}): try {given}, or name a function of yours that returns a module which makes its "
        "own input"
    )


def audit_model(
    name: str,
    *,
    budget: str | None = "",
    inputs: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    formulas: "Mapping[str, Formula] | None" = None,
    weights: Path | None = None,
) -> "Audit":
    """Count a model and check it, as `audit NAME` does; a zoo model's shipped budget is found unless that is None."""
    limits = None if budget is None else find_budget(name, budget, settings, weights)
    subject = open_subject(name, inputs=inputs, settings=settings, budget=limits, weights=weights)
    return audit_subject(subject, limits, formulas=formulas)


def find_budget(
    name: str, budget: str, settings: Mapping[str, Any] | None = None, weights: Path | None = None
) -> "Budget | None":
    """Read a budget, or the shipped one of a zoo model, unless `settings` or pruned `weights` make it another model."""
    from featherpress.budgets import list_budgets, load_budget
    from featherpress.models.pruned import is_pruned

    target, named = split_weights(name)
    weights = weights or named
    own = target in list_budgets() and not settings and not (weights and is_pruned(weights))
    file = budget or (target if own else "")
    return load_budget(file) if file else None


def count_model(
    name: str,
    *,
    inputs: Sequence[str],
    budget: str = "",
    settings: Mapping[str, Any] | None = None,
    weights: Path | None = None,
) -> "tuple[int, Audit | None]":
    """Return how many parameters a model has, and its audit if it can be counted."""
    try:
        result = audit_model(name, budget=budget, inputs=inputs, settings=settings, weights=weights)
    except CountError:
        model = open_subject(name, inputs=inputs, settings=settings, weights=weights).model
        return sum(weight.numel() for weight in model.parameters()), None
    return result.cost.params, result


def find_factory(name: str, settings: Mapping[str, Any]) -> tuple[Callable[..., Any], list[str]]:
    """Find the function that builds a model with settings, and the knobs to turn where none are given."""
    if ":" in name:
        from featherpress.models.factories import import_factory

        return partial(import_factory(name), **settings), []
    from featherpress.models import create_model

    return partial(create_model, name, **settings), usual_knobs(name)


def usual_knobs(name: str) -> list[str]:
    """List the knobs that are turned where none are given: a model of the zoo may have some."""
    if ":" in name:
        return []
    from featherpress.models import find_model

    return [knob for knob in USUAL_KNOBS if knob.partition("=")[0] in find_model(name).settings]


def list_knobs(name: str) -> list[str]:
    """List what could be turned in a model: arguments of its factory that are numbers and sound like sizes."""
    if ":" not in name:
        return [knob.partition("=")[0] for knob in usual_knobs(name)]
    from featherpress.models.factories import import_factory

    try:
        found = inspect.signature(import_factory(name)).parameters.values()
    except (TypeError, ValueError):
        return []
    numbers = [each.name for each in found if isinstance(each.default, int | float) and each.default is not True]
    return [name for name in numbers if _SIZE.search(name) and not _FIXED.search(name)]


def choose_fit_inputs(
    name: str,
    factory: Callable[..., Any],
    knobs: "Sequence[Knob]",
    *,
    inputs: Sequence[str],
    formulas: "Mapping[str, Formula]",
) -> "Inputs":
    """Choose what the candidates of a fit are fed, by the first that can be built, which is counted on it."""
    from featherpress.budgets.counting.inputs import Inputs
    from featherpress.budgets.fitting.fit import first_candidate

    with stdout_to_stderr():
        model = first_candidate(factory, knobs)
    if model is None:
        return Inputs()
    own = getattr(factory, "func", factory) if ":" in name else None
    subject = Subject(name, model, *_choose_inputs(model, own, inputs, None, None), {})
    audit_subject(subject, formulas=formulas)
    return subject.inputs


def read_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """Read `key=value` arguments of a factory: Python's literals, true and false, and any other text as it stands.

    Errors: UsageError.
    """
    from featherpress.models.factories import read_argument

    settings: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UsageError(f"--set is an argument of the factory and its value, as num_classes=10; got {text!r}")
        settings[key.strip()] = read_argument(value)
    return settings
