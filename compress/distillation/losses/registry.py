"""The registry of distillation losses by name: the package's own, and those that other packages bring."""

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, TypeVar, get_type_hints

from torch import Tensor, nn

from featherpress.compress.distillation.adapters import AdapterKind
from featherpress.errors import UsageError
from featherpress.extras import load_entry_points

Loss = Callable[..., Tensor]
Shape = Sequence[int]
Kind = Literal["features", "logits"]
Layout = Literal["", "classes", "priors"]
Function = TypeVar("Function", bound=Loss)

ENTRY_POINTS = "featherpress.losses"
"""The group of entry points by which other packages bring losses: each names a module that registers them."""

_OWN = ("features", "rkd", "outputs", "dist")
_BOUNDS: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    "gt": (operator.gt, "above"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "below"),
    "le": (operator.le, "at most"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEntry:
    """What is known of a loss.

    `kind`: between features, or between logits and other outputs. `adapter`: what brings the student's features to the
    teacher's width. `maps`: it compares positions, so that features must be maps. `layout`: how the logits that it
    reads lie, `classes` as (N, C, ...) or `priors` as (N, P, 2), any if empty. `softmax`: the classes' axis, where it
    takes the softmax itself. `outputs`: the only outputs it compares, of several; any if empty. `over_batch`: its value
    over a batch is not the mean of its values over parts. `options` are the keywords that have a default, with it;
    `context` those that have none, or None: tensors that are handed to the loss by name, of which `required` must be
    there. A function with `**keywords` is handed `all_context`.
    """

    name: str
    function: Loss
    kind: Kind
    adapter: AdapterKind = "linear"
    maps: bool = False
    layout: Layout = ""
    softmax: int | None = None
    outputs: tuple[str, ...] = ()
    over_batch: bool = False
    check: Callable[[Shape, Shape], None] | None = None
    options: Mapping[str, inspect.Parameter]
    context: frozenset[str]
    required: frozenset[str]
    all_context: bool = False

    def takes(self, name: str) -> bool:
        """Whether a tensor of the context is handed to it."""
        return name in self.context or (self.all_context and name not in self.options)

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options, those not given at their defaults.

        Errors: `UsageError` for an option that the loss does not have, and for a value that it does not allow.
        """
        for name, value in given.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise UsageError(f"{self.name} has no option {name!r}; it has {known}")
            _check_value(f"{self.name}: {name}", value, self.options[name].annotation)
        return {name: given.get(name, option.default) for name, option in self.options.items()}


_REGISTER: dict[str, LossEntry] = {}


def register_loss(
    name: str,
    *,
    kind: Kind = "logits",
    adapter: AdapterKind = "linear",
    maps: bool = False,
    layout: Layout = "",
    softmax: int | None = None,
    outputs: Sequence[str] = (),
    over_batch: bool = False,
    check: Callable[[Shape, Shape], None] | None = None,
) -> Callable[[Function], Function]:
    """Register a function `(student, teacher, **keywords) -> scalar` under a name, for terms and recipes.

    Keywords with a default are options of the term; those without one, or with None, are context: what `step.loss` was
    given under that name; `**keywords` takes all of it. `mask` is context too: (N, ...) bool over positions. A function
    that takes none is not used with one. Both tensors come in float32, the teacher's without gradient. `check` is
    called with both shapes when a Distiller is built, and raises for those that do not fit.

    Errors: `UsageError` for a name that is taken by another function.
    """

    def add(function: Function) -> Function:
        if name in _REGISTER and _home(_REGISTER[name].function) != _home(function):
            owner = _home(_REGISTER[name].function)
            raise UsageError(f"a distillation loss named {name!r} is registered already, by {owner}")
        _REGISTER[name] = describe_loss(
            function,
            name=name,
            kind=kind,
            adapter=adapter,
            maps=maps,
            layout=layout,
            softmax=softmax,
            outputs=tuple(outputs),
            over_batch=over_batch,
            check=check,
        )
        return function

    return add


def describe_loss(function: Loss, *, name: str, kind: Kind, **about: Any) -> LossEntry:
    """Return the entry of a function that need not be registered: its options and context are its keywords."""
    called = function.forward if isinstance(function, nn.Module) else function
    keywords = list(inspect.signature(called).parameters.values())[2:]
    named = [each for each in keywords if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    options = {each.name: _typed(each, called) for each in named if each.default not in (each.empty, None)}
    return LossEntry(
        name=name,
        function=function,
        kind=kind,
        options=options,
        context=frozenset(each.name for each in named if each.name not in options),
        required=frozenset(each.name for each in named if each.default is each.empty),
        all_context=any(each.kind is each.VAR_KEYWORD for each in keywords),
        **about,
    )


def _typed(option: inspect.Parameter, function: Loss) -> inspect.Parameter:
    """Return an option with its type; one that has none, or whose name is not known at run time, has its default's."""
    hint = option.annotation
    if isinstance(hint, str):
        holder = type("holder", (), {"__annotations__": {"it": hint}})
        try:
            hint = get_type_hints(holder, getattr(function, "__globals__", {}), include_extras=True)["it"]
        except NameError:
            hint = option.empty
    return option.replace(annotation=type(option.default) if hint is option.empty else hint)


def list_losses() -> list[str]:
    """Return the names of all losses, sorted."""
    _load()
    return sorted(_REGISTER)


def find_loss(name: str) -> LossEntry:
    """Return a loss by name; entry points of other packages are loaded first.

    Errors: `UsageError` that suggests the nearest name.
    """
    _load()
    if name in _REGISTER:
        return _REGISTER[name]
    near = difflib.get_close_matches(name, _REGISTER, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list_losses())}"
    raise UsageError(f"no distillation loss is named {name!r}; {hint}")


@cache
def _load() -> None:
    for module in _OWN:
        import_module(f"featherpress.compress.distillation.losses.{module}")
    load_entry_points(ENTRY_POINTS, "losses")


def _home(function: Loss) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _check_value(place: str, value: object, annotation: Any) -> None:
    """Refuse a value outside the bounds that an option is annotated with."""
    for bound in getattr(annotation, "__metadata__", ()):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UsageError(f"{place} is a number, got {value!r}")
        if math.isinf(value):
            raise UsageError(f"{place} is finite, got {value}")
        for sign, (holds, words) in _BOUNDS.items():
            limit = getattr(bound, sign, None)
            if limit is not None and not holds(value, limit):
                raise UsageError(f"{place} is {words} {limit:g}, got {value:g}")
