"""What became of each published figure: equal, explained by what was measured in the same run, or open."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from featherpress.budgets.recount.claims import ClaimRow, Unit, find_unit
from featherpress.budgets.recount.measuring import Measured, State
from featherpress.records.record import Part, Record

Verdict = Literal["equal", "convention", "state", "model", "wrong", "open", "failed"]
#: What each verdict means, in the order of a summary.
MEANINGS: Mapping[Verdict, str] = {
    "equal": "equal at the digits published",
    "convention": "another convention",
    "state": "another state of the model",
    "model": "another model",
    "wrong": "published figure wrong",
    "open": "open",
    "failed": "not counted",
}
_ORDER = list(MEANINGS)
_NORMS = "norms, adaptive pooling and resampling are counted"
#: What every counter counts, and so no figure leaves out for all modules at once.
_PRODUCTS = frozenset({"convolution", "addmm", "mm", "bmm", "baddbmm", "linear", "matmul"})
#: How a count says that a switch of the model leads to another amount of work.
_OTHER_WAY = re.compile(r"the other way costs ([\d,]+) MACs$")
_FOLDED = "after its blocks are re-parameterised"


class RecountRow(Part):
    """One row of a published table beside our count.

    `deviation` is the largest of a figure from our plain count, as a fraction of it, 0 where all are equal.
    """

    line: int
    name: str
    input: str
    params: int | None
    macs: int | None
    claimed: dict[str, str]
    deviation: float | None
    verdict: Verdict
    reason: str


class Recount(Record):
    """A published table, counted again; rows by deviation, the largest first. `units` are those of its columns."""

    SCHEMA: ClassVar[str] = "featherpress.recount/1"

    table: str
    factory: str
    units: dict[str, str]
    summary: dict[str, int]
    rows: tuple[RecountRow, ...]


def judge(table: str, factory: str, rows: Sequence[ClaimRow], found: Mapping[int, Measured]) -> Recount:
    """Compare a table with what was measured, by the rows' lines."""
    units = find_units(rows, found)
    judged = [judge_row(row, found[row.line], units, others=(rows, found)) for row in rows]
    judged.sort(key=lambda row: -1.0 if row.deviation is None else -abs(row.deviation))
    tally = {verdict: sum(row.verdict == verdict for row in judged) for verdict in MEANINGS}
    return Recount(
        table=table,
        factory=factory,
        units={quantity: unit.name(quantity) for quantity, unit in units.items()},
        summary={verdict: count for verdict, count in tally.items() if count},
        rows=tuple(judged),
    )


def find_units(rows: Sequence[ClaimRow], found: Mapping[int, Measured]) -> dict[str, Unit]:
    """Find the units of the columns that the table has."""
    units = {}
    for quantity in ("params", "macs"):
        counted = [(row.claims.get(quantity), found[row.line].state) for row in rows if row.line in found]
        if any(quantity in row.claims for row in rows):
            pairs = [(claim, getattr(state, quantity)) for claim, state in counted if claim and state]
            units[quantity] = find_unit(quantity, pairs)
    return units


def judge_row(
    row: ClaimRow,
    measured: Measured,
    units: Mapping[str, Unit],
    *,
    others: tuple[Sequence[ClaimRow], Mapping[int, Measured]] = ((), {}),
) -> RecountRow:
    """Find the first explanation under which every figure of a row is what was counted."""
    state = measured.state
    if state is None:
        verdict: Verdict = "failed"
        reason, deviation = measured.error, None
    else:
        off = {name: float(row.claims[name].value) / (unit.scale * (getattr(state, name) or 1)) - 1
               for name, unit in units.items() if name in row.claims}  # fmt: skip
        verdict, reason = _explain(row, measured, state, units, others)
        deviation = 0.0 if verdict == "equal" else max(off.values(), key=abs, default=0.0)
    return RecountRow(
        line=row.line,
        name=row.name,
        input=measured.input or row.input,
        params=state.params if state else None,
        macs=state.macs if state else None,
        claimed={quantity: claim.text for quantity, claim in row.claims.items()},
        deviation=deviation,
        verdict=verdict,
        reason=reason,
    )


def _explain(
    row: ClaimRow,
    measured: Measured,
    state: State,
    units: Mapping[str, Unit],
    others: tuple[Sequence[ClaimRow], Mapping[int, Measured]],
) -> tuple[Verdict, str]:
    """Return the worst of what the row's figures need: each is explained by itself, or by another model all at once."""
    needs: list[tuple[Verdict, tuple[str, ...]]] = []
    for quantity, unit in units.items():
        if quantity not in row.claims:
            continue
        for verdict, reasons, amount in _candidates(quantity, measured, state):
            if row.claims[quantity].holds(amount, unit):
                needs.append((verdict, reasons))
                break
        else:
            own = "params" in row.claims and row.claims["params"].holds(state.params, units["params"])
            found = "" if own else _other_model(row, state, units, others)
            needs.append(("model", (found,)) if found else ("open", (f"{quantity} differ",)))
    verdict = max((verdict for verdict, _ in needs), key=_ORDER.index, default="equal")
    return verdict, "; ".join(dict.fromkeys(reason for _, reasons in needs for reason in reasons))


def _candidates(quantity: str, measured: Measured, state: State) -> Iterator[tuple[Verdict, tuple[str, ...], int]]:
    """Yield what was measured of a quantity, the plain count first: verdict, reasons and amount."""
    folded = measured.folded
    yield "equal", (), getattr(state, quantity)
    if quantity == "params":
        if folded:
            yield "state", (_FOLDED,), folded.params
        return
    yield "convention", (_NORMS,), state.with_norms
    if folded:
        yield "state", (_FOLDED,), folded.macs
        yield "state", (_FOLDED, _NORMS), folded.with_norms
    for note in measured.notes:
        if other := _OTHER_WAY.search(note):
            amount = int(other[1].replace(",", ""))
            yield "state", (note,), amount
            yield "state", (note, _NORMS), amount + state.with_norms - state.macs
    if measured.fvcore is not None:
        if not measured.unsupported:
            yield "convention", ("as fvcore gives it by its defaults, fused attention included",), measured.fvcore
        else:
            missing = ", ".join(measured.unsupported)
            yield "wrong", (f"as fvcore gives it, which has no handle for {missing}",), measured.fvcore
    for operator, amount in measured.work.items():
        if 0 < amount < state.macs and operator.partition("::")[2] not in _PRODUCTS:
            reason = f"leaves out {amount:,} MACs of {operator}"
            yield "wrong", (reason,), state.macs - amount
            yield "wrong", (reason, _NORMS), state.with_norms - amount


def _other_model(
    row: ClaimRow, state: State, units: Mapping[str, Unit], others: tuple[Sequence[ClaimRow], Mapping[int, Measured]]
) -> str:
    """State which other row's model has these figures, or which other row's figures this model has; "" for neither."""
    rows, found = others
    if len(row.claims) < 2:
        return ""

    def agree(claimed: ClaimRow, counted: State | None) -> bool:
        return counted is not None and all(
            any(claimed.claims[quantity].holds(amount, unit) for amount in _amounts(quantity, counted))
            for quantity, unit in units.items()
            if quantity in claimed.claims
        )

    owners = {other.name for other in rows if other.name != row.name and agree(row, found[other.line].state)}
    if len(owners) == 1:
        return f"the figures are those of {owners.pop()}"
    same = {other.name for other in rows if other.name != row.name and len(other.claims) > 1 and agree(other, state)}
    return f"the factory builds what the table calls {min(same)}" if same else ""


def _amounts(quantity: str, state: State) -> tuple[int, ...]:
    return (state.params,) if quantity == "params" else (state.macs, state.with_norms)
