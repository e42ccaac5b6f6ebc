"""Two models side by side: what the second saves, component by component."""

from collections.abc import Callable, Hashable, Mapping
from typing import ClassVar, NamedTuple, Self

from rich.console import Group, RenderableType
from rich.text import Text

from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import WEIGHTS, Cost, ModuleCost, total_of
from featherpress.budgets.views.layout import console_table, format_macs, markdown_table, percent
from featherpress.escaping import escape_markdown
from featherpress.records.audit import Audit, Pin, Weights, WeightsRow
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

    `change` is what became of it, by its parameters and then its MACs: added, removed, grown, shrunk or same. `macs`
    are None where one side is of weights alone.
    """

    name: str
    change: str
    params: Change
    macs: Change | None

    @classmethod
    def of(cls, name: str, before: "_Amounts | None", after: "_Amounts | None") -> Self:
        """Compare what a component costs in both models; None is not there."""
        was, now = before or _Amounts(0, 0), after or _Amounts(0, 0)
        params = _change(was.params, now.params)
        macs = None if was.macs is None or now.macs is None else _change(was.macs, now.macs)
        if before is None or after is None:
            change = "removed" if before else "added"
        else:
            saved = (params.saved, macs.saved if macs else 0)
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


#: What can be compared: a count, or the record of one.
Side = Cost | Audit | Pin | Weights


class _Amounts(NamedTuple):
    """What a component costs, and signs to tell it by under another name, the most certain first."""

    params: int
    macs: int | None
    signs: tuple[Hashable, ...] = ()


def diff(before: Side, after: Side, *, names: tuple[str, str] | None = None) -> Diff:
    """Align two counts, or records of counts, by component, in the first one's order and then the second's.

    A component that only the first has and one that only the second has are one that was renamed if what they cost,
    or what they are made of, is the same and nothing else comes as near.
    """
    detailed = isinstance(before, Cost) and isinstance(after, Cost)
    was, now = (_amounts(side, detailed=detailed) for side in (before, after))
    renamed = _renamed(was, now)
    pairs = [
        (f"{name} -> {renamed[name]}" if name in renamed else name, cost, now.get(renamed.get(name, name)))
        for name, cost in was.items()
    ]
    new = now.keys() - was.keys() - set(renamed.values())
    rows = [DiffRow.of(*pair) for pair in pairs] + [DiffRow.of(name, None, now[name]) for name in now if name in new]
    unknown = any(_unknown(side) for side in (before, after))
    if unknown:
        rows = [row.model_copy(update={"macs": None}) for row in rows]
    return Diff(
        models=names or (before.model, after.model),
        inputs=(_signature(before), _signature(after)),
        components=tuple(rows),
        total=DiffRow.of(
            "total", *(_Amounts(_params(side), None if unknown else _macs(side)) for side in (before, after))
        ),
    )


def _unknown(side: Side) -> bool:
    """Tell whether a side is of weights alone."""
    return isinstance(side, Weights) or (isinstance(side, Cost) and side.method == WEIGHTS)


def _signature(side: Side) -> tuple[str, ...]:
    return () if isinstance(side, Weights) else side.signature


def _params(side: Side) -> int:
    return side.params if isinstance(side, Cost) else side.total.params


def _macs(side: Side) -> int:
    assert not isinstance(side, Weights)
    return side.macs if isinstance(side, Cost) else side.total.macs


def _amounts(side: Side, *, detailed: bool) -> dict[str, _Amounts]:
    """List what each component costs; signs are of its modules where both sides have them, else its cost alone."""
    if isinstance(side, Cost):
        parts = {name: (total_of(rows, path=name), rows) for name, rows in split(side).items()}
        return {
            name: _Amounts(cost.params, cost.macs, _signs(rows) if detailed else _sign(cost.params, cost.macs))
            for name, (cost, rows) in parts.items()
        }
    rows = side.components.items() if isinstance(side, Pin) else [(row.name, row) for row in side.components]
    macs = {name: None if isinstance(row, WeightsRow) else row.macs for name, row in rows}
    return {name: _Amounts(row.params, macs[name], _sign(row.params, macs[name])) for name, row in rows}


def _sign(params: int, macs: int | None) -> tuple[Hashable, ...]:
    return ((params, macs or 0) if params or macs else None,)


def _signs(rows: list[ModuleCost]) -> tuple[Hashable, ...]:
    """Tell a component by its modules' costs, and by their classes in order; one that costs nothing cannot be told."""
    if not any(row.params or row.macs for row in rows):
        return None, None
    return tuple((row.kind, row.params, row.macs) for row in rows), tuple(row.kind for row in rows)


def _renamed(before: Mapping[str, _Amounts], after: Mapping[str, _Amounts]) -> dict[str, str]:
    """Match what is in one model alone with what is in the other alone, the most certain signs first."""
    found: dict[str, str] = {}
    for place in range(max((len(each.signs) for each in before.values()), default=0)):
        left = {name: each.signs[place] for name, each in before.items() if name not in after and name not in found}
        right = {
            name: each.signs[place] for name, each in after.items() if name not in before and name not in found.values()
        }
        for name, key in left.items():
            fitting = [other for other, theirs in right.items() if theirs == key]
            if key and len(fitting) == list(left.values()).count(key) == 1:
                found[name] = fitting[0]
    return found


def render_diff(result: Diff) -> RenderableType:
    """Make a table of parameters and one of MACs, in exact numbers, for a console."""
    parts: list[RenderableType] = [Text(_title(result), style="italic")]
    quantities = [("parameters", "params"), ("MACs", "macs")][: 1 if result.total.macs is None else 2]
    for title, quantity in quantities:
        *rows, total = ([row.name, *_cells(getattr(row, quantity))] for row in (*result.components, result.total))
        parts += [console_table((title, *result.models, "saved", "%"), rows, total=total, wrap=True), Text()]
    return Group(*parts, Text(_caption(result)))


def render_diff_markdown(result: Diff) -> str:
    """Make GitHub-flavoured Markdown."""
    rows = [
        [row.name, *_cells(row.params), *(_cells(row.macs, format_macs) if row.macs else ())]
        for row in (*result.components, result.total)
    ]
    columns = COLUMNS if result.total.macs else COLUMNS[:5]
    lines = [
        f"## {escape_markdown(_title(result))}",
        "",
        *markdown_table(columns, rows),
        "",
        escape_markdown(_caption(result)),
    ]
    return "\n".join(lines) + "\n"


def _title(result: Diff) -> str:
    return f"{result.models[0]} -> {result.models[1]}"


def _caption(result: Diff) -> str:
    if result.total.macs is None:
        return "MACs are not known: a file of weights does not say what runs; a minus sign means more than before"
    shapes = [", ".join(signature) or "none" for signature in result.inputs]
    where = shapes[0] if shapes[0] == shapes[1] else f"{shapes[0]} and {shapes[1]}: MACs are not comparable"
    return f"core MACs at input {where}; a minus sign means more than before"


def _cells(change: Change, write: Callable[[int], str] = "{:,}".format) -> list[str]:
    amounts = map(write, (change.before, change.after, change.saved))
    return [*amounts, percent(change.saved, change.before, nothing="-")]
