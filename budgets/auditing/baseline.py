"""Pinned baselines: what a model cost before, so that it can only get cheaper."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featherpress.budgets.auditing.audit import QUANTITIES, SHAPED, Audit
from featherpress.errors import BudgetFileError, FileError
from featherpress.records import Amounts, Pin

PINNED = ("params", "macs", "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One component, then and now; None where it is not."""

    name: str
    before: Mapping[str, int] | None
    after: Mapping[str, int] | None


def dump_baseline(result: Audit) -> str:
    """Write what a model costs now as JSON that `load_baseline` reads."""
    record = Pin(
        model=result.name,
        input=result.cost.inputs,
        convention=result.cost.convention,
        total=Amounts(**_amounts(result.total.cost)),
        components={row.name: Amounts(**_amounts(row.cost)) for row in result.components},
    )
    return json.dumps(record.to_dict(), indent=2) + "\n"


def load_baseline(path: Path) -> Pin:
    """Read a pinned baseline.

    Errors: BudgetFileError for a file that is missing, broken or not a baseline.
    """
    if not path.exists():
        raise BudgetFileError(f"no baseline {path}: write one with `featherpress audit MODEL --pin {path}`")
    try:
        return Pin.load(path)
    except FileError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".").removesuffix("; write the record again")
        raise BudgetFileError(f"{path} is not a baseline that --pin wrote: {reason}; pin the model again") from error


def ratchet(result: Audit, pin: Pin, *, file: str) -> Audit:
    """Hold an audit to a baseline: growth and new components fail, what was saved is noted.

    At another input shape MACs are not compared, and a note says so.
    """
    same_shape = pin.input == tuple(tuple(shape) for shape in result.cost.inputs)
    kept = [quantity for quantity in PINNED if same_shape or quantity not in SHAPED]
    now = {row.name: _amounts(row.cost) for row in result.components}
    before = {name: amounts.to_dict() for name, amounts in pin.components.items()}
    changes = [_Change(name=name, before=before.get(name), after=now.get(name)) for name in {**now, **before}]
    changes.append(_Change(name="total", before=pin.total.to_dict(), after=_amounts(result.total.cost)))
    failures = [sentence for change in changes for sentence in _growth(change, kept, file)]
    notes = [sentence for change in changes for sentence in _savings(change, kept, file)]
    if not same_shape:
        notes.append(f"MACs not compared: {file} was pinned at another input shape")
    return replace(result, failures=(*result.failures, *failures), notes=(*result.notes, *notes))


def _amounts(cost: Any) -> dict[str, int]:
    return {quantity: getattr(cost, quantity) for quantity in PINNED}


def _growth(change: _Change, kept: list[str], file: str) -> list[str]:
    """State what grew or is new."""
    if change.after is None:
        return []
    if change.before is None:
        amounts = ", ".join(f"{change.after[quantity]:,} {QUANTITIES[quantity]}" for quantity in kept)
        return [f"{change.name} has {amounts}, and was added since {file}; pin again if this is intended"]
    return [
        f"{change.name} has {change.after[quantity]:,} {QUANTITIES[quantity]}, "
        f"{change.after[quantity] - change.before[quantity]:,} more than the {change.before[quantity]:,} "
        f"pinned in {file}; pin again if this is intended"
        for quantity in kept
        if change.after[quantity] > change.before[quantity]
    ]


def _savings(change: _Change, kept: list[str], file: str) -> list[str]:
    """State what shrank or went."""
    if change.before is None:
        return []
    if change.after is None:
        return [f"{change.name} was removed since {file}"]
    saved = [
        f"{change.before[quantity] - change.after[quantity]:,} {QUANTITIES[quantity]}"
        for quantity in kept
        if change.after[quantity] < change.before[quantity]
    ]
    return [f"{change.name} has shrunk by {', '.join(saved)} since {file}; pin again to keep it"] if saved else []
