"""The settings of a model that meet a budget: every candidate is costed exactly, every answer counted again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import nn

from featherpress.budgets.counting.costs import Cost
from featherpress.budgets.counting.count import count
from featherpress.budgets.fitting.search_space import IMPOSSIBLE, Estimate, Knob, Settings, Space, size_of
from featherpress.budgets.views.tables import format_macs
from featherpress.errors import CountError, UsageError

SCHEMA = "featherpress.fit/1"
SHOWN, NEIGHBOURS = 5, 3
MOST = 200_000


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
    built: int

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
    if params is None and macs is None:
        raise UsageError("fit needs a limit: give params, macs or both")
    if not knobs or len({knob.name for knob in knobs}) != len(knobs):
        raise UsageError("fit needs knobs to turn, each named once, such as out_channels=16:128:2")
    if prod(len(knob.values) for knob in knobs) > MOST:
        raise UsageError(f"more than {MOST:,} candidates: take larger steps, or fewer knobs")
    search = _Search(Space(factory=factory, knobs=tuple(knobs)), params, macs, torch.zeros(1, 3, side, side))
    inside, outside = search.ranked()
    rows = search.confirm(inside, SHOWN)
    return Fit(
        name=name,
        input=(1, 3, side, side),
        params=params,
        macs=macs,
        rows=tuple(row for row in rows if row.fits),
        neighbours=tuple(search.confirm(outside, NEIGHBOURS)),
        candidates=len(search.space.candidates),
        refused=search.refused,
        built=sum(shapes is not None for shapes in search.space.shapes.values()),
    )


class _Search:
    """One search: what each candidate costs, from functions where they hold, and else by building or tracing it."""

    def __init__(self, space: Space, params: int | None, macs: int | None, image: torch.Tensor) -> None:
        self.space = space
        self.limits = (params, macs)
        self.image = image
        self.costs: dict[Settings, Cost] = {}
        self.estimate = space.estimate()
        sizes = {settings: self._size(settings) for settings in space.candidates}
        self.sizes = {settings: size for settings, size in sizes.items() if size is not None}
        self.refused = len(sizes) - len(self.sizes)
        if not self.sizes:
            raise UsageError(f"none of the {len(sizes):,} candidates can be built: {space.reason}")
        self.macs_known = macs is None or self._learn_macs()

    def _size(self, settings: Settings) -> int | None:
        """Count parameters; None for what is refused."""
        if settings not in self.space.shapes and self.estimate:
            found = self.estimate.params(settings)
            if found is not None:
                return None if found == IMPOSSIBLE else found
        shapes = self.space.measure(settings)
        return size_of(shapes) if shapes else None

    def _learn_macs(self) -> bool:
        """Trace a few that were built, and one more to check."""
        built = [settings for settings, shapes in self.space.shapes.items() if shapes]
        *learnt, check = dict.fromkeys([max(built), min(built), *built[:: max(len(built) // 5, 1)]])
        estimate = self.estimate or Estimate.of(self.space, built)
        traced = [(self.space.shapes[settings] or {}, self.count(settings)) for settings in learnt]
        if not estimate.learn_macs(traced) or estimate.macs(check) not in {None, self.count(check).macs}:
            return False
        self.estimate = estimate
        return True

    def count(self, settings: Settings) -> Cost:
        """Count a candidate directly, once."""
        if settings not in self.costs:
            self.costs[settings] = count(self.space.make(settings), self.image)
        return self.costs[settings]

    def macs(self, settings: Settings) -> int:
        """Count MACs, from the functions if they hold."""
        found = self.estimate.macs(settings) if self.estimate and self.macs_known else None
        return self.count(settings).macs if found is None or found < 0 else found

    def ranked(self) -> tuple[list[Settings], list[Settings]]:
        """Sort the candidates into those within the limits, best use first, and those beyond, nearest first."""
        params, macs = self.limits
        inside: list[tuple[int, int, Settings]] = []
        beyond: list[tuple[float, Settings]] = []
        for settings, size in self.sizes.items():
            work = self.macs(settings) if macs is not None else 0
            over = max(size / params - 1 if params else 0.0, work / macs - 1 if macs else 0.0)
            fits = (params is None or size <= params) and (macs is None or work <= macs)
            if fits:
                inside.append((-size if params is not None else 0, -work, settings))
            else:
                beyond.append((over, settings))
        return [settings for *_, settings in sorted(inside)], [settings for _, settings in sorted(beyond)]

    def confirm(self, ranked: Sequence[Settings], wanted: int) -> list[FitRow]:
        """Count the first ones directly; a candidate that turns out to be refused is passed over."""
        rows: list[FitRow] = []
        for settings in ranked:
            if len(rows) == wanted:
                break
            if self.space.measure(settings) is None:
                self.refused += 1
                continue
            cost = self.count(settings)
            if cost.params != self.sizes[settings]:
                raise CountError(
                    f"{self.space.name(settings)} was expected to have {self.sizes[settings]:,} parameters and has "
                    f"{cost.params:,}: this is our bug"
                )
            rows.append(self._row(settings, cost))
        return rows

    def _row(self, settings: Settings, cost: Cost) -> FitRow:
        params, macs = self.limits
        return FitRow(
            settings=self.space.name(settings),
            params=cost.params,
            macs=cost.macs,
            params_slack=None if params is None else params - cost.params,
            macs_slack=None if macs is None else macs - cost.macs,
        )


def render_fit(result: Fit) -> RenderableType:
    """Make the table of what fits, the neighbours beyond, and a sentence, for a console."""
    parts: list[RenderableType] = [Text(_sentence(result)), Text()]
    for title, rows in (("fits", result.rows), ("nearest beyond", result.neighbours)):
        if rows:
            parts += [_table(title, rows), Text()]
    refused = f", {result.refused:,} known to be impossible" if result.refused else ""
    shape = "x".join(map(str, result.input))
    parts.append(Text(f"{result.candidates:,} candidates{refused}; MACs at input {shape}; every row was counted"))
    return Group(*parts)


def _table(title: str, rows: Sequence[FitRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")
    for column in ("params", "left", "MACs", "left"):
        table.add_column(column, justify="right", no_wrap=True)
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
    """Say what is best and what it leaves, or that nothing fits."""
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
