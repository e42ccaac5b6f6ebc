"""The settings of a model that meet a budget: every candidate is built and measured, every answer counted again."""

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from math import prod
from typing import ClassVar

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from featherpress.budgets.counting.count import count
from featherpress.budgets.fitting.knobs import Knob
from featherpress.budgets.views.layout import console_table
from featherpress.budgets.views.numbers import format_macs
from featherpress.errors import UsageError
from featherpress.records.record import Part, Record

SHOWN, NEIGHBOURS = 5, 3
#: Each is built, which takes some 25 ms for a detector, and twice that under a limit on MACs.
MOST = 2_000


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
    if prod(len(knob.values) for knob in knobs) > MOST:
        raise UsageError(f"more than {MOST:,} candidates: take larger steps, or fewer knobs")
    search = _Search(factory, params, macs, torch.zeros(1, 3, side, side))
    names = [knob.name for knob in knobs]
    for values in product(*(knob.values for knob in knobs)):
        search.measure(dict(zip(names, values, strict=True)))
    candidates = len(search.measured) + search.refused
    if not search.measured:
        raise UsageError(f"none of the {candidates:,} candidates can be built: {search.reason}")
    return Fit(
        model=name,
        input=(1, 3, side, side),
        limits={"params": params, "macs": macs},
        candidates=candidates,
        refused=search.refused,
        rows=tuple(map(search.count, search.best_inside()[:SHOWN])),
        neighbours=tuple(map(search.count, search.nearest_beyond()[:NEIGHBOURS])),
    )


Settings = dict[str, int]


class _Search:
    """The parameters of every candidate and, under a limit on them, its MACs (else 0)."""

    def __init__(self, factory: Callable[..., nn.Module], params: int | None, macs: int | None, image: Tensor) -> None:
        self.factory = factory
        self.params = params
        self.macs = macs
        self.image = image
        self.measured: list[tuple[int, int, Settings]] = []
        self.refused = 0
        #: What the factory said of the first candidate that it refused.
        self.reason = ""

    def _build(self, settings: Settings) -> nn.Module:
        """Build a candidate without memory; whatever the factory raises comes through."""
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # initialisers warn about tensors without data
            return self.factory(**settings)

    def measure(self, settings: Settings) -> None:
        """Build a candidate and measure it; one that the factory refuses only counts as refused."""
        try:
            model = self._build(settings)
        except Exception as error:
            self.refused += 1
            self.reason = self.reason or str(error) or type(error).__name__
            return
        params = sum(weight.numel() for weight in model.parameters())
        work = count(model, self.image).macs if self.macs is not None else 0
        self.measured.append((params, work, settings))

    def _use(self, params: int, macs: int) -> Fraction:
        """Return the share of its limits that a candidate takes, the larger of the two; above 1 it breaks one."""
        pairs = [(params, self.params), (macs, self.macs)]
        return max(Fraction(amount, limit) for amount, limit in pairs if limit is not None)

    def best_inside(self) -> list[Settings]:
        """Sort the candidates within the limits: most parameters first where these are limited, then most MACs."""
        limited = self.params is not None
        inside = [row for row in self.measured if self._use(*row[:2]) <= 1]
        inside.sort(key=lambda row: (-row[0] if limited else 0, -row[1], *row[2].values()))
        return [settings for *_, settings in inside]

    def nearest_beyond(self) -> list[Settings]:
        """Sort the candidates beyond a limit, the nearest first."""
        beyond = [row for row in self.measured if self._use(*row[:2]) > 1]
        beyond.sort(key=lambda row: (self._use(*row[:2]), *row[2].values()))
        return [settings for *_, settings in beyond]

    def count(self, settings: Settings) -> FitRow:
        """Count a candidate that is shown."""
        cost = count(self._build(settings), self.image)
        return FitRow(
            settings=settings,
            params=cost.params,
            macs=cost.macs,
            params_slack=None if self.params is None else self.params - cost.params,
            macs_slack=None if self.macs is None else self.macs - cost.macs,
        )


def render_fit(result: Fit) -> RenderableType:
    """Make the table of what fits, the neighbours beyond, and a sentence, for a console."""
    parts: list[RenderableType] = [Text(_sentence(result)), Text()]
    for title, rows in (("fits", result.rows), ("nearest beyond", result.neighbours)):
        if rows:
            parts += [_table(title, rows), Text()]
    refused = f", {result.refused:,} that cannot be built" if result.refused else ""
    shape = "x".join(map(str, result.input))
    parts.append(Text(f"{result.candidates:,} candidates{refused}; MACs at input {shape}; every row was counted"))
    return Group(*parts)


def _table(title: str, rows: Sequence[FitRow]) -> Table:
    table = console_table((title, "params", "left", "MACs", "left"))
    for row in rows:
        name = ", ".join(f"{knob} {value}" for knob, value in row.settings.items())
        table.add_row(
            name, f"{row.params:,}", _slack(row.params_slack), format_macs(row.macs), _slack(row.macs_slack, macs=True)
        )
    return table


def _slack(slack: int | None, *, macs: bool = False) -> str:
    if slack is None:
        return "-"
    return format_macs(slack) if macs else f"{slack:,}"


def _sentence(result: Fit) -> str:
    """State what is best and what it leaves, or that nothing fits."""
    asked = _amounts(**result.limits)
    if not result.rows:
        return f"{result.model}: nothing fits {asked}"
    best = result.rows[0]
    name = ", ".join(f"{knob} {value}" for knob, value in best.settings.items())
    left = _amounts(best.params_slack, best.macs_slack)
    return f"{result.model} within {asked}: {name} has {best.params:,} parameters, {left} left"


def _amounts(params: int | None, macs: int | None) -> str:
    """Write what is known of the two."""
    known = ((params, "parameters"), (macs, "MACs"))
    return " and ".join(f"{amount:,} {unit}" for amount, unit in known if amount is not None)
