"""Pinned baselines: what a model cost before, so that it can only get cheaper."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from featherpress.budgets.auditing.audit import QUANTITIES, SHAPED, Audit
from featherpress.budgets.counting.costs import WEIGHTS
from featherpress.budgets.counting.inputs import same_inputs
from featherpress.errors import BudgetFileError, FileError
from featherpress.records.audit import Amounts, Component, Pin

PINNED = tuple(Amounts.model_fields)


def dump_baseline(result: Audit) -> str:
    """Write what a model costs now as JSON that `load_baseline` reads."""
    record = Pin(
        model=result.model,
        input=result.cost.inputs,
        signature=result.cost.signature,
        convention=result.cost.convention,
        total=_amounts(result.total),
        components={row.name: _amounts(row) for row in result.components},
    )
    return json.dumps(record.to_dict(), indent=2) + "\n"


def _amounts(row: Component) -> Amounts:
    return Amounts(**{quantity: getattr(row, quantity) for quantity in PINNED})


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
    """Hold an audit to a baseline: growth and new components fail, what was saved or renamed is noted.

    At another input MACs are not compared, and a note says so.
    """
    same_shape = result.cost.method != WEIGHTS and same_inputs(pin.signature, result.cost.signature)
    kept = [quantity for quantity in PINNED if same_shape or quantity not in SHAPED]
    now = {row.name: row for row in result.components}
    renamed = _renamed(pin.components, now, kept)
    failures: list[str] = []
    notes = [f"{name} is {renamed[name]} in {file}, at the same cost" for name in renamed]
    for name, after in (*now.items(), ("total", result.total)):
        before = pin.total if after is result.total else pin.components.get(renamed.get(name, name))
        if before is None:
            amounts = [(getattr(after, quantity), QUANTITIES[quantity]) for quantity in kept]
            if any(amount for amount, _ in amounts):
                shown = ", ".join(f"{amount:,} {unit}" for amount, unit in amounts)
                failures.append(f"{name} has {shown}, and was added since {file}; pin again if this is intended")
        else:
            failures += _growth(name, before, after, kept, file)
            saved = [(getattr(before, quantity) - getattr(after, quantity), quantity) for quantity in kept]
            if shrunk := [f"{amount:,} {QUANTITIES[quantity]}" for amount, quantity in saved if amount > 0]:
                notes.append(f"{name} has shrunk by {', '.join(shrunk)} since {file}; pin again to keep it")
    gone = pin.components.keys() - now.keys() - set(renamed.values())
    notes += [f"{name} was removed since {file}" for name in pin.components if name in gone]
    if not same_shape:
        known = result.cost.method != WEIGHTS and pin.signature
        why = f"{file} was pinned at another input" if known else "a file of weights does not say what runs"
        notes.append(f"MACs not compared: {why}")
    if not failures:
        notes.append(f"nothing grew since {file}")
    held = result.after(failures=failures, notes=notes)
    rows = [_verdict(row, failures) for row in (*held.components, held.total)]
    verdict = "within" if held.verdict == "unchecked" else held.verdict
    return held.model_copy(
        update={"baseline": file, "verdict": verdict, "components": tuple(rows[:-1]), "total": rows[-1]}
    )


def _verdict(row: Component, failures: Sequence[str]) -> Component:
    """Say of a row that no budget limits how it stands against the baseline."""
    grew = any(failure.startswith(f"{row.name} has ") for failure in failures)
    verdict = "over" if grew else "within" if row.verdict == "unchecked" else row.verdict
    return row.model_copy(update={"verdict": verdict})


def _renamed(before: Mapping[str, Amounts], after: Mapping[str, Component], kept: Sequence[str]) -> dict[str, str]:
    """Pair what is new with what is gone where both cost the same: the new name to the old."""
    gone = {name: amounts for name, amounts in before.items() if name not in after}
    found = {}
    for name, row in after.items():
        costs = [getattr(row, quantity) for quantity in kept]
        old = next((old for old in gone if costs == [getattr(gone[old], quantity) for quantity in kept]), None)
        if name not in before and old is not None:
            found[name] = old
            del gone[old]
    return found


def _growth(name: str, before: Amounts, after: Component, kept: list[str], file: str) -> list[str]:
    """State what grew."""
    amounts = [(quantity, getattr(before, quantity), getattr(after, quantity)) for quantity in kept]
    return [
        f"{name} has {now:,} {QUANTITIES[quantity]}, {now - pinned:,} more than the {pinned:,} pinned in {file}; "
        "pin again if this is intended"
        for quantity, pinned, now in amounts
        if now > pinned
    ]
