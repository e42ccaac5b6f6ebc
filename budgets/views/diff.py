"""Two models side by side: what the second saves, component by component."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import Cost, ModuleCost, total_of
from featherpress.budgets.views.layout import console_table, markdown_table, percent
from featherpress.budgets.views.numbers import format_macs

SCHEMA = "featherpress.diff/1"
COLUMNS = ("component", "params", "->", "saved", "%", "MACs", "->", "saved", "%")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffRow:
    """One component in both models, zero where one does not have it; savings are positive."""

    name: str
    before: ModuleCost
    after: ModuleCost

    @property
    def params_saved(self) -> int:
        """Parameters before minus after."""
        return self.before.params - self.after.params

    @property
    def macs_saved(self) -> int:
        """MACs before minus after."""
        return self.before.macs - self.after.macs

    @property
    def change(self) -> Literal["added", "removed", "grown", "shrunk", "same"]:
        """What became of the component, by its parameters and then its MACs."""
        if not self.before.path or not self.after.path:
            return "removed" if self.before.path else "added"
        saved = (self.params_saved, self.macs_saved)
        return "same" if saved == (0, 0) else "shrunk" if saved > (0, 0) else "grown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Two counts aligned by component; the rows sum to the total."""

    names: tuple[str, str]
    inputs: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]
    rows: tuple[DiffRow, ...]
    total: DiffRow

    def to_dict(self) -> dict[str, Any]:
        """Make a record for JSON: exact integers, `saved` in whole numbers and as a fraction of the first model."""
        rows = (*self.rows, self.total)
        *components, total = [{"name": row.name, "change": row.change} | _numbers(row) for row in rows]
        return {
            "schema": SCHEMA,
            "models": list(self.names),
            "inputs": [[list(shape) for shape in shapes] for shapes in self.inputs],
            "components": components,
            "total": total,
        }


def diff(cost_a: Cost, cost_b: Cost, *, names: tuple[str, str] | None = None) -> Diff:
    """Align two counts by component, in the first model's order and then the second's.

    A component that only the first has and one that only the second has are one that was renamed if what they cost,
    or what they are made of, is the same and nothing else comes as near.
    """
    parts = split(cost_a), split(cost_b)
    before, after = ({name: total_of(rows, path=name) for name, rows in part.items()} for part in parts)
    renamed = _renamed(*parts)
    absent = ModuleCost(path="")
    rows = [
        DiffRow(
            name=f"{name} -> {renamed[name]}" if name in renamed else name,
            before=cost,
            after=after.get(renamed.get(name, name), absent),
        )
        for name, cost in before.items()
    ]
    new = after.keys() - before.keys() - set(renamed.values())
    rows += [DiffRow(name=name, before=absent, after=cost) for name, cost in after.items() if name in new]
    return Diff(
        names=names or (cost_a.model, cost_b.model),
        inputs=(cost_a.inputs, cost_b.inputs),
        rows=tuple(rows),
        total=DiffRow(
            name="total",
            before=total_of([row.before for row in rows], path="total"),
            after=total_of([row.after for row in rows], path="total"),
        ),
    )


def _renamed(before: dict[str, list[ModuleCost]], after: dict[str, list[ModuleCost]]) -> dict[str, str]:
    """Match what is in one model alone with what is in the other alone, the most certain signs first."""
    found: dict[str, str] = {}
    for sign in (_cost_of, _kinds_of):
        left = _by_sign(before, sign, {*after, *found})
        right = _by_sign(after, sign, {*before, *found.values()})
        for key, names in left.items():
            if len(names) == 1 and len(right.get(key, ())) == 1:
                found[names[0]] = right[key][0]
    return found


def _by_sign(
    parts: dict[str, list[ModuleCost]], sign: Callable[[list[ModuleCost]], Hashable], without: set[str]
) -> dict[Hashable, list[str]]:
    """Group components by a sign; those without one match nothing."""
    groups: dict[Hashable, list[str]] = {}
    for name, rows in parts.items():
        key = sign(rows)
        if name not in without and key:
            groups.setdefault(key, []).append(name)
    return groups


def _cost_of(rows: list[ModuleCost]) -> Hashable:
    """Tell a component by its modules' parameters and MACs; one that costs nothing cannot be told."""
    costs = tuple((row.kind, row.params, row.macs) for row in rows)
    return costs if any(params or macs for _, params, macs in costs) else None


def _kinds_of(rows: list[ModuleCost]) -> Hashable:
    """Tell a component by the classes of its modules, in order, if it holds parameters or works."""
    return tuple(row.kind for row in rows) if any(row.params or row.macs for row in rows) else None


def render_diff(result: Diff) -> RenderableType:
    """Make a table of parameters and one of MACs, in exact numbers, for a console."""
    parts: list[RenderableType] = [Text(_title(result), style="italic")]
    for title, quantity in (("parameters", "params"), ("MACs", "macs")):
        parts += [_table(result, title, quantity), Text()]
    return Group(*parts, Text(_caption(result)))


def _table(result: Diff, title: str, quantity: str) -> Table:
    table = console_table((title, *result.names, "saved", "%"), wrap=True)
    for row in (*result.rows, None, result.total):
        if row is None:
            table.add_row()
            continue
        before, after = getattr(row.before, quantity), getattr(row.after, quantity)
        cells = (f"{before:,}", f"{after:,}", f"{before - after:,}", percent(before - after, before, nothing="-"))
        table.add_row(row.name, *cells, style="bold" if row is result.total else None)
    return table


def render_diff_markdown(result: Diff) -> str:
    """Make GitHub-flavoured Markdown."""
    table = markdown_table(COLUMNS, [_cells(row) for row in (*result.rows, result.total)])
    return "\n".join([f"## {_title(result)}", "", *table, "", _caption(result)]) + "\n"


def _title(result: Diff) -> str:
    return f"{result.names[0]} -> {result.names[1]}"


def _caption(result: Diff) -> str:
    shapes = [", ".join("x".join(map(str, shape)) for shape in shapes) or "none" for shapes in result.inputs]
    where = shapes[0] if shapes[0] == shapes[1] else f"{shapes[0]} and {shapes[1]}: MACs are not comparable"
    return f"core MACs at input {where}; a minus sign means more than before"


def _cells(row: DiffRow) -> Sequence[str]:
    before, after = row.before, row.after
    return (
        row.name,
        f"{before.params:,}",
        f"{after.params:,}",
        f"{row.params_saved:,}",
        percent(row.params_saved, before.params, nothing="-"),
        format_macs(before.macs),
        format_macs(after.macs),
        format_macs(row.macs_saved),
        percent(row.macs_saved, before.macs, nothing="-"),
    )


def _numbers(row: DiffRow) -> dict[str, dict[str, int | float | None]]:
    saved = {"params": row.params_saved, "macs": row.macs_saved}
    return {
        quantity: {
            "before": getattr(row.before, quantity),
            "after": getattr(row.after, quantity),
            "saved": amount,
            "share": amount / getattr(row.before, quantity) if getattr(row.before, quantity) else None,
        }
        for quantity, amount in saved.items()
    }
