"""Pinned baselines: what a model cost before, so that it can only get cheaper."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featherpress.budgets.auditing.audit import QUANTITIES, SHAPED, Audit
from featherpress.errors import BudgetFileError, FileError
from featherpress.records.audit import Amounts, Pin

PINNED = ("params", "macs", "bytes")
#: What a component costs; None where it is not.
_Costs = Mapping[str, int] | None


def dump_baseline(result: Audit) -> str:
    """Write what a model costs now as JSON that `load_baseline` reads."""
    record = Pin(
        model=result.model,
        input=result.cost.inputs,
        convention=result.cost.convention,
        total=Amounts(**_amounts(result.total)),
        components={row.name: Amounts(**_amounts(row)) for row in result.components},
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
    now = {row.name: _amounts(row) for row in result.components}
    before = {name: amounts.to_dict() for name, amounts in pin.components.items()}
    changes = [(name, before.get(name), now.get(name)) for name in {**now, **before}]
    changes.append(("total", pin.total.to_dict(), _amounts(result.total)))
    failures = [sentence for change in changes for sentence in _growth(*change, kept, file)]
    notes = [sentence for change in changes for sentence in _savings(*change, kept, file)]
    if not same_shape:
        notes.append(f"MACs not compared: {file} was pinned at another input shape")
    return result.after(failures=failures, notes=notes)


def _amounts(cost: Any) -> dict[str, int]:
    return {quantity: getattr(cost, quantity) for quantity in PINNED}


def _growth(name: str, before: _Costs, after: _Costs, kept: list[str], file: str) -> list[str]:
    """State what grew or is new."""
    if after is None:
        return []
    if before is None:
        amounts = ", ".join(f"{after[quantity]:,} {QUANTITIES[quantity]}" for quantity in kept)
        return [f"{name} has {amounts}, and was added since {file}; pin again if this is intended"]
    return [
        f"{name} has {after[quantity]:,} {QUANTITIES[quantity]}, "
        f"{after[quantity] - before[quantity]:,} more than the {before[quantity]:,} "
        f"pinned in {file}; pin again if this is intended"
        for quantity in kept
        if after[quantity] > before[quantity]
    ]


def _savings(name: str, before: _Costs, after: _Costs, kept: list[str], file: str) -> list[str]:
    """State what shrank or went."""
    if before is None:
        return []
    if after is None:
        return [f"{name} was removed since {file}"]
    saved = [
        f"{before[quantity] - after[quantity]:,} {QUANTITIES[quantity]}"
        for quantity in kept
        if after[quantity] < before[quantity]
    ]
    return [f"{name} has shrunk by {', '.join(saved)} since {file}; pin again to keep it"] if saved else []
