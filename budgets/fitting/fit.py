"""The settings of a model that meet a budget: every candidate is built and measured, every answer counted again."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

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

SCHEMA = "featherpress.fit/1"
SHOWN, NEIGHBOURS = 5, 3
#: Each is built, which takes some 25 ms for a detector, and twice that under a limit on MACs.
MOST = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRow:
    """One candidate, counted; slack is what the budget leaves over, negative for a neighbour beyond it."""

    settings: Mapping[str, int]
    params: int
    macs: int
    params_slack: int | None
    macs_slack: int | None

    @property
    def fits(self) -> bool:
        """Whether it is within every limit."""
        return all(slack is None or slack >= 0 for slack in (self.params_slack, self.macs_slack))

    def to_dict(self) -> dict[str, Any]:
        """Make a record for JSON."""
        return {
            "settings": dict(self.settings),
            "params": self.params,
            "macs": self.macs,
            "params_slack": self.params_slack,
            "macs_slack": self.macs_slack,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What fits, best use of the budget first, and the nearest that do not; `refused` cannot be built."""

    name: str
    input: tuple[int, ...]
    params: int | None
    macs: int | None
    rows: tuple[FitRow, ...]
    neighbours: tuple[FitRow, ...]
    candidates: int
    refused: int

    @property
    def exit_code(self) -> int:
        """1 if nothing fits."""
        return 0 if self.rows else 1

    def to_dict(self) -> dict[str, Any]:
        """Make a record for JSON."""
        return {
            "schema": SCHEMA,
            "model": self.name,
            "input": list(self.input),
            "limits": {"params": self.params, "macs": self.macs},
            "candidates": self.candidates,
            "refused": self.refused,
            "rows": [row.to_dict() for row in self.rows],
            "neighbours": [row.to_dict() for row in self.neighbours],
        }


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
        name=name,
        input=(1, 3, side, side),
        params=params,
        macs=macs,
        rows=tuple(map(search.count, search.best_inside()[:SHOWN])),
        neighbours=tuple(map(search.count, search.nearest_beyond()[:NEIGHBOURS])),
        candidates=candidates,
        refused=search.refused,
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
    limits = [
        *([f"{result.params:,} parameters"] if result.params is not None else []),
        *([f"{result.macs:,} MACs"] if result.macs is not None else []),
    ]
    asked = " and ".join(limits)
    if not result.rows:
        return f"{result.name}: nothing fits {asked}"
    best = result.rows[0]
    name = ", ".join(f"{knob} {value}" for knob, value in best.settings.items())
    left = [
        *([f"{best.params_slack:,} parameters"] if best.params_slack is not None else []),
        *([f"{best.macs_slack:,} MACs"] if best.macs_slack is not None else []),
    ]
    return f"{result.name} within {asked}: {name} has {best.params:,} parameters, {' and '.join(left)} left"
