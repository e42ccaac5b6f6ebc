"""The settings of a model that meet a budget: every candidate is built and measured, every answer counted again."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, product
from math import prod
from typing import ClassVar, NamedTuple

import torch
from rich.console import Group, RenderableType
from rich.text import Text
from torch import Tensor, nn

from featherpress.budgets.counting.costs import format_shapes
from featherpress.budgets.counting.count import count
from featherpress.budgets.views.layout import console_table, format_macs
from featherpress.errors import UsageError
from featherpress.records.record import Part, Record

SHOWN, NEIGHBOURS = 5, 3
#: Each is built, which takes some 25 ms for a detector, and twice that under a limit on MACs.
MOST = 2_000
#: More values of one knob are a typing mistake.
_MOST_VALUES = 10_000


class FitRow(Part):
    """One candidate, counted; slack is what the budget leaves over, negative for a neighbour beyond it."""

    settings: dict[str, int]
    params: int
    macs: int
    params_slack: int | None
    macs_slack: int | None


class Fit(Record):
    """What fits, best use of the budget first, and the nearest that do not; `refused` cannot be built."""

    SCHEMA: ClassVar[str] = "featherpress.fit/1"

    model: str
    input: tuple[int, ...]
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
    values: tuple[int, ...]


def parse_knob(text: str) -> Knob:
    """Read `width=16:128:2` (the end is included, the step may be left out) or `width=16,32,64`.

    Errors: UsageError.
    """
    name, equals, given = text.partition("=")
    try:
        if "," in given or ":" not in given:
            values = [int(value) for value in given.split(",")]
        else:
            first, last, *rest = (int(value) for value in given.split(":"))
            (step,) = rest or [1]
            values = list(islice(range(first, last + 1, step), _MOST_VALUES + 1))
    except (ValueError, OverflowError):
        values = []
    if not equals or not name.strip().isidentifier() or not 0 < len(values) <= _MOST_VALUES:
        raise UsageError(
            f"cannot read knob {text!r}; expected NAME=FIRST:LAST:STEP or NAME=VALUE,VALUE, {_MOST_VALUES:,} values at "
            "most"
        )
    return Knob(name=name.strip(), values=tuple(dict.fromkeys(values)))


class _Candidate(NamedTuple):
    """What a candidate costs; `macs` are 0 where they are not limited."""

    settings: dict[str, int]
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
) -> Fit:
    """Find the settings within the limits that use them best: most parameters first, then most MACs.

    `factory` is called with the knobs as keyword arguments; what it refuses is no candidate. MACs are for one image of
    3 x side x side.
    Errors: UsageError without a limit or a knob, or if nothing can be built.
    """
    limits = [limit for limit in (params, macs) if limit is not None]
    if min(limits, default=0) < 1:
        raise UsageError("fit needs a limit of at least 1: give params, macs or both")
    if not knobs or len({knob.name for knob in knobs}) != len(knobs):
        raise UsageError("fit needs knobs to turn, each named once, such as out_channels=16:128:2")
    candidates = prod(len(knob.values) for knob in knobs)
    if candidates > MOST:
        raise UsageError(f"more than {MOST:,} candidates: take larger steps, or fewer knobs")
    image = torch.zeros(1, 3, side, side)
    found, refusal = _measure(factory, knobs, None if macs is None else image)
    if not found:
        raise UsageError(f"none of the {candidates:,} candidates can be built: {refusal}")

    def use(one: _Candidate) -> Fraction:
        """Return the share of its limits that a candidate takes, the larger of the two; above 1 it breaks one."""
        pairs = ((one.params, params), (one.macs, macs))
        return max(Fraction(amount, limit) for amount, limit in pairs if limit is not None)

    def count_shown(one: _Candidate) -> FitRow:
        cost = count(_build(factory, one.settings), image)
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
        input=(1, 3, side, side),
        limits={"params": params, "macs": macs},
        candidates=candidates,
        refused=candidates - len(found),
        rows=tuple(map(count_shown, inside[:SHOWN])),
        neighbours=tuple(map(count_shown, beyond[:NEIGHBOURS])),
    )


def _measure(
    factory: Callable[..., nn.Module], knobs: Sequence[Knob], image: Tensor | None
) -> tuple[list[_Candidate], str]:
    """Build every candidate and measure it, its MACs on an image; return too why the first was refused, if one was."""
    found, refusal = [], ""
    for values in product(*(knob.values for knob in knobs)):
        settings = {knob.name: value for knob, value in zip(knobs, values, strict=True)}
        try:
            model = _build(factory, settings)
        except Exception as error:
            refusal = refusal or str(error) or type(error).__name__
            continue
        size = sum(weight.numel() for weight in model.parameters())
        found.append(_Candidate(settings, size, 0 if image is None else count(model, image).macs))
    return found, refusal


def _build(factory: Callable[..., nn.Module], settings: dict[str, int]) -> nn.Module:
    """Build a candidate without memory; whatever the factory raises comes through."""
    with torch.device("meta"), warnings.catch_warnings():
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
    shape = format_shapes([result.input])
    parts.append(Text(f"{result.candidates:,} candidates{refused}; MACs at input {shape}; every row was counted"))
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
