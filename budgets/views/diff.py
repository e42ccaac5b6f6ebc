"""Two models side by side: what the second saves, component by component."""

from collections.abc import Callable, Hashable
from typing import ClassVar, Self

from rich.console import Group, RenderableType
from rich.text import Text

from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import Cost, ModuleCost, total_of
from featherpress.budgets.views.layout import console_table, format_macs, markdown_table, percent
from featherpress.records.record import Part, Record

COLUMNS = ("component", "params", "->", "saved", "%", "MACs", "->", "saved", "%")


class Change(Part):
    """One quantity before and after; savings are positive, `share` is of what was there before."""

    before: int
    after: int
    saved: int
    share: float | None


class DiffRow(Part):
    """One component in both models, zero where one does not have it.

    `change` is what became of it, by its parameters and then its MACs: added, removed, grown, shrunk or same.
    """

    name: str
    change: str
    params: Change
    macs: Change

    @classmethod
    def of(cls, name: str, before: ModuleCost, after: ModuleCost) -> Self:
        """Compare what a component costs in both models; what has no path is not there."""
        params, macs = _change(before.params, after.params), _change(before.macs, after.macs)
        if not before.path or not after.path:
            change = "removed" if before.path else "added"
        else:
            saved = (params.saved, macs.saved)
            change = "same" if saved == (0, 0) else "shrunk" if saved > (0, 0) else "grown"
        return cls(name=name, change=change, params=params, macs=macs)


def _change(before: int, after: int) -> Change:
    saved = before - after
    return Change(before=before, after=after, saved=saved, share=saved / before if before else None)


class Diff(Record):
    """Two counts aligned by component; the components sum to the total."""

    SCHEMA: ClassVar[str] = "featherpress.diff/1"

    models: tuple[str, str]
    inputs: tuple[tuple[str, ...], tuple[str, ...]]
    components: tuple[DiffRow, ...]
    total: DiffRow


def diff(cost_a: Cost, cost_b: Cost, *, names: tuple[str, str] | None = None) -> Diff:
    """Align two counts by component, in the first model's order and then the second's.

    A component that only the first has and one that only the second has are one that was renamed if what they cost,
    or what they are made of, is the same and nothing else comes as near.
    """
    parts = split(cost_a), split(cost_b)
    before, after = ({name: total_of(rows, path=name) for name, rows in part.items()} for part in parts)
    renamed = _renamed(*parts)
    absent = ModuleCost(path="")
    pairs = [
        (f"{name} -> {renamed[name]}" if name in renamed else name, cost, after.get(renamed.get(name, name), absent))
        for name, cost in before.items()
    ]
    new = after.keys() - before.keys() - set(renamed.values())
    pairs += [(name, absent, cost) for name, cost in after.items() if name in new]
    totals = (total_of(list(rows.values()), path="total") for rows in (before, after))
    return Diff(
        models=names or (cost_a.model, cost_b.model),
        inputs=(cost_a.signature, cost_b.signature),
        components=tuple(DiffRow.of(*pair) for pair in pairs),
        total=DiffRow.of("total", *totals),
    )


def _renamed(before: dict[str, list[ModuleCost]], after: dict[str, list[ModuleCost]]) -> dict[str, str]:
    """Match what is in one model alone with what is in the other alone, the most certain signs first."""
    found: dict[str, str] = {}
    for sign in (_cost_of, _kinds_of):
        left = {name: sign(rows) for name, rows in before.items() if name not in after and name not in found}
        right = {name: sign(rows) for name, rows in after.items() if name not in before and name not in found.values()}
        for name, key in left.items():
            fitting = [other for other, theirs in right.items() if theirs == key]
            if key and len(fitting) == list(left.values()).count(key) == 1:
                found[name] = fitting[0]
    return found


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
        *rows, total = ([row.name, *_cells(getattr(row, quantity))] for row in (*result.components, result.total))
        parts += [console_table((title, *result.models, "saved", "%"), rows, total=total, wrap=True), Text()]
    return Group(*parts, Text(_caption(result)))


def render_diff_markdown(result: Diff) -> str:
    """Make GitHub-flavoured Markdown."""
    rows = [
        [row.name, *_cells(row.params), *_cells(row.macs, format_macs)] for row in (*result.components, result.total)
    ]
    return "\n".join([f"## {_title(result)}", "", *markdown_table(COLUMNS, rows), "", _caption(result)]) + "\n"


def _title(result: Diff) -> str:
    return f"{result.models[0]} -> {result.models[1]}"


def _caption(result: Diff) -> str:
    shapes = [", ".join(signature) or "none" for signature in result.inputs]
    where = shapes[0] if shapes[0] == shapes[1] else f"{shapes[0]} and {shapes[1]}: MACs are not comparable"
    return f"core MACs at input {where}; a minus sign means more than before"


def _cells(change: Change, write: Callable[[int], str] = "{:,}".format) -> list[str]:
    amounts = map(write, (change.before, change.after, change.saved))
    return [*amounts, percent(change.saved, change.before, nothing="-")]
