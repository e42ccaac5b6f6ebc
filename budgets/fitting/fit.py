"""The settings of a model that meet a budget: every candidate is built and measured, every answer counted again."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice, product
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch
from rich.console import Group, RenderableType
from rich.text import Text
from torch import Tensor, nn

from featherpress.budgets.counting.costs import Cost
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.formulas import Formula
from featherpress.budgets.counting.inputs import Inputs, describe_inputs
from featherpress.budgets.views.layout import console_table, format_macs
from featherpress.errors import UsageError
from featherpress.records.record import Part, Record

SHOWN, NEIGHBOURS = 5, 3
#: Each is built, which takes some 25 ms for a detector, and twice that under a limit on MACs.
MOST = 2_000
#: More values of one knob are a typing mistake.
_MOST_VALUES = 10_000
#: A number as people write one; a longer one, or a larger power, takes minutes to read.
_NUMBER = re.compile(r"[+-]?(\d[\d_]{0,17})?(\.\d{1,18})?(e[+-]?\d\d?)?", re.ASCII | re.IGNORECASE)


Settings = dict[str, int | float]


class FitRow(Part):
    """One candidate, counted; slack is what the budget leaves over, negative for a neighbour beyond it."""

    settings: Settings
    params: int
    macs: int
    params_slack: int | None
    macs_slack: int | None


class Fit(Record):
    """What fits, best use of the budget first, and the nearest that do not; `refused` cannot be built."""

    SCHEMA: ClassVar[str] = "featherpress.fit/1"

    model: str
    signature: tuple[str, ...]
    limits: dict[str, int | None]
    candidates: int
    refused: int
    rows: tuple[FitRow, ...]
    neighbours: tuple[FitRow, ...]

    @property
    def exit_code(self) -> int:
        """1 if nothing fits."""
        return 0 if self.rows else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A keyword argument of the factory, and the values to try."""

    name: str
    values: tuple[int | float, ...]


def parse_knob(text: str) -> Knob:
    """Read `width=16:128:2` (the end is included, the step 1 unless given), `width=16,32,64` or `ratio=0.5:2:0.25`.

    Errors: UsageError.
    """
    name, equals, given = text.partition("=")
    try:
        if "," in given or ":" not in given:
            values = [_number(_fraction(value)) for value in given.split(",")]
        else:
            first, last, *rest = map(_fraction, given.split(":"))
            (step,) = rest or [Fraction(1)]
            many = range(min(int((last - first) / step) + 1, _MOST_VALUES + 1)) if step > 0 and last >= first else ()
            values = [_number(first + step * turn) for turn in many]
    except (ValueError, ZeroDivisionError):
        values = []
    if not equals or not name.strip().isidentifier() or not 0 < len(values) <= _MOST_VALUES:
        raise UsageError(
            f"cannot read knob {text[:40]!r}; expected NAME=FIRST:LAST:STEP or NAME=VALUE,VALUE, {_MOST_VALUES:,} "
            "values at most"
        )
    return Knob(name=name.strip(), values=tuple(dict.fromkeys(values)))


def _fraction(text: str) -> Fraction:
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError
    return Fraction(text)


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


class _Candidate(NamedTuple):
    """What a candidate costs; `macs` are 0 where they are not limited."""

    settings: Settings
    params: int
    macs: int


def fit(
    factory: Callable[..., nn.Module],
    knobs: Sequence[Knob],
    *,
    name: str,
    params: int | None = None,
    macs: int | None = None,
    side: int = 640,
    example_inputs: Sequence[Any] | Tensor | None = None,
    kwargs: Mapping[str, Any] | None = None,
    formulas: Mapping[str, Formula] | None = None,
) -> Fit:
    """Find the settings within the limits that use them best: most parameters first, then most MACs.

    `factory` is called with the knobs as keyword arguments; what it refuses is no candidate. MACs are for
    `example_inputs` and `kwargs`, else for one image of 3 x side x side; `formulas` are those of `count`.
    Errors: UsageError without a limit or a knob, or if nothing can be built.
    """
    candidates = _require_answerable(params, macs, knobs)
    if example_inputs is None:
        example_inputs = () if kwargs else torch.zeros(1, 3, side, side)
    fed = Inputs((example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs), kwargs or {})

    count_one = partial(_count_one, factory, fed, formulas)
    found, refusal = _measure(factory, knobs, None if macs is None else count_one)
    if not found:
        raise UsageError(f"none of the {candidates:,} candidates can be built: {refusal}")

    def use(one: _Candidate) -> Fraction:
        """Return the share of its limits that a candidate takes, the larger of the two; above 1 it breaks one."""
        pairs = ((one.params, params), (one.macs, macs))
        return max(Fraction(amount, limit) for amount, limit in pairs if limit is not None)

    def count_shown(one: _Candidate) -> FitRow:
        cost = count_one(one.settings, _build(factory, one.settings))
        return FitRow(
            settings=one.settings,
            params=cost.params,
            macs=cost.macs,
            params_slack=None if params is None else params - cost.params,
            macs_slack=None if macs is None else macs - cost.macs,
        )

    inside, beyond = [one for one in found if use(one) <= 1], [one for one in found if use(one) > 1]
    inside.sort(key=lambda one: (0 if params is None else -one.params, -one.macs, *one.settings.values()))
    beyond.sort(key=lambda one: (use(one), *one.settings.values()))
    return Fit(
        model=name,
        signature=describe_inputs(fed),
        limits={"params": params, "macs": macs},
        candidates=candidates,
        refused=candidates - len(found),
        rows=tuple(map(count_shown, inside[:SHOWN])),
        neighbours=tuple(map(count_shown, beyond[:NEIGHBOURS])),
    )


def _require_answerable(params: int | None, macs: int | None, knobs: Sequence[Knob]) -> int:
    """Return how many candidates there are, where there is something to look for and not too much."""
    if min((limit for limit in (params, macs) if limit is not None), default=0) < 1:
        raise UsageError("fit needs a limit of at least 1: give params, macs or both")
    if not knobs or len({knob.name for knob in knobs}) != len(knobs):
        raise UsageError(
            "fit needs knobs to turn, each named once, such as out_channels=16:128:2; what has none is cut by "
            "`featherpress prune`"
        )
    candidates = prod(len(knob.values) for knob in knobs)
    if candidates > MOST:
        raise UsageError(f"more than {MOST:,} candidates: take larger steps, or fewer knobs")
    return candidates


def _count_one(
    factory: Callable[..., nn.Module],
    fed: Inputs,
    formulas: Mapping[str, Formula] | None,
    settings: Settings,
    model: nn.Module,
) -> Cost:
    try:
        return count(model, *fed.args, kwargs=fed.kwargs, formulas=formulas)
    except UsageError:
        # It may read values of its weights, which on meta have none.
        if not any(weight.is_meta for weight in model.parameters()):
            raise
        real = _build_or_none(factory, settings)
        if real is None:
            raise
    return count(real, *fed.args, kwargs=fed.kwargs, formulas=formulas)


def _measure(
    factory: Callable[..., nn.Module],
    knobs: Sequence[Knob],
    count_one: Callable[[Settings, nn.Module], Cost] | None,
) -> tuple[list[_Candidate], str]:
    """Build every candidate and measure it, its MACs by `count_one`; return too why the first refused one was."""
    found, refusal = [], ""
    for settings in _all_settings(knobs):
        try:
            model = _build(factory, settings)
        except Exception as error:
            refusal = refusal or str(error).partition("\n")[0] or type(error).__name__
            continue
        size = sum(weight.numel() for weight in model.parameters())
        found.append(_Candidate(settings, size, 0 if count_one is None else count_one(settings, model).macs))
    return found, refusal


def first_candidate(factory: Callable[..., nn.Module], knobs: Sequence[Knob]) -> nn.Module | None:
    """Build the first candidate that can be built, with memory; None if none can."""
    built = (_build_or_none(factory, settings) for settings in _all_settings(knobs))
    return next((model for model in built if model is not None), None)


def _build_or_none(factory: Callable[..., nn.Module], settings: Settings) -> nn.Module | None:
    """Build a candidate with memory, unless the factory refuses it or memory does not hold it."""
    with suppress(Exception):
        return _build(factory, settings, "cpu")
    return None


def _all_settings(knobs: Sequence[Knob]) -> Iterator[Settings]:
    for values in islice(product(*(knob.values for knob in knobs)), MOST):
        yield {knob.name: value for knob, value in zip(knobs, values, strict=True)}


def _build(factory: Callable[..., nn.Module], settings: Settings, device: str = "meta") -> nn.Module:
    """Build a candidate, without memory unless on a device that has some; whatever the factory raises comes through."""
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # initialisers warn about tensors without data
        return factory(**settings)


def render_fit(result: Fit) -> RenderableType:
    """Make the table of what fits, the neighbours beyond, and a sentence, for a console."""
    parts: list[RenderableType] = [Text(_sentence(result)), Text()]
    for title, rows in (("fits", result.rows), ("nearest beyond", result.neighbours)):
        if rows:
            cells = [
                (
                    _named(row),
                    f"{row.params:,}",
                    "-" if row.params_slack is None else f"{row.params_slack:,}",
                    format_macs(row.macs),
                    "-" if row.macs_slack is None else format_macs(row.macs_slack),
                )
                for row in rows
            ]
            parts += [console_table((title, "params", "left", "MACs", "left"), cells), Text()]
    refused = f", {result.refused:,} that cannot be built" if result.refused else ""
    fed = ", ".join(result.signature)
    parts.append(Text(f"{result.candidates:,} candidates{refused}; MACs at input {fed}; every row was counted"))
    return Group(*parts)


def _named(row: FitRow) -> str:
    return ", ".join(f"{knob} {value}" for knob, value in row.settings.items())


def _sentence(result: Fit) -> str:
    """State what is best and what it leaves, or that nothing fits."""
    asked = _amounts(**result.limits)
    if not result.rows:
        return f"{result.model}: nothing fits {asked}"
    best = result.rows[0]
    left = _amounts(best.params_slack, best.macs_slack)
    return f"{result.model} within {asked}: {_named(best)} has {best.params:,} parameters, {left} left"


def _amounts(params: int | None, macs: int | None) -> str:
    """Write what is known of the two."""
    known = ((params, "parameters"), (macs, "MACs"))
    return " and ".join(f"{amount:,} {unit}" for amount, unit in known if amount is not None)
