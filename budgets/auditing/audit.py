"""An audit: what a model costs against what it may cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from featherpress import records
from featherpress.budgets.auditing.budget_file import Budget, Claim, Limit, Limits
from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import ROOT, Cost, ModuleCost, total_of
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.memory import IDEAL_TEXT
from featherpress.errors import BudgetFileError, CountError, UsageError
from featherpress.verdicts import GateResult

#: The quantities that can be limited, and what sentences call them.
QUANTITIES = {
    "params": "parameters",
    "macs": "MACs",
    "bytes": "bytes",
    "activations": "bytes of activations",
    "peak": "bytes of activations at the peak",
}
#: Those that hold for one input shape alone.
SHAPED = frozenset({"macs", "activations", "peak"})
Verdict = Literal["within", "over", "under", "warn", "unchecked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One quantity against its limit; `beyond` is by how much it breaks the limit or passes the warning."""

    quantity: str
    actual: int
    limit: Limit
    verdict: Verdict
    beyond: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One component, or the total: its cost and how it stands against its limits."""

    name: str
    cost: ModuleCost
    checks: tuple[Check, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks, "unchecked" without any."""
        return self.worst.verdict if self.worst else "unchecked"

    @property
    def worst(self) -> Check | None:
        """The check that decides the verdict."""
        order = ("over", "under", "warn", "within")
        return min(self.checks, key=lambda check: order.index(check.verdict), default=None)

    @property
    def target(self) -> int | None:
        """The parameters asked for: the target, or else the bound that is set."""
        check = next((check for check in self.checks if check.quantity == "params"), None)
        return check.limit.reference if check else None

    @property
    def difference(self) -> int | None:
        """Parameters counted minus parameters asked for."""
        return None if self.target is None else self.cost.params - self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCheck:
    """What a document says, beside what was counted."""

    claim: Claim
    quantity: str
    claimed: int
    ours: int

    @property
    def name(self) -> str:
        """The component or components claimed about."""
        return " + ".join(self.claim.components)

    @property
    def difference(self) -> int:
        """Counted minus claimed."""
        return self.ours - self.claimed

    @property
    def verdict(self) -> Literal["equal", "differs"]:
        """Whether the document is right to the last digit that it prints."""
        return "differs" if 2 * abs(self.difference) > self.claim.rounded_to - 1 else "equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The result of an audit: rows that sum to the total, claims beside them, failures in sentences."""

    name: str
    cost: Cost
    total: AuditRow
    components: tuple[AuditRow, ...]
    claims: tuple[ClaimCheck, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    accuracy: GateResult | None = None

    @property
    def verdict(self) -> Literal["within", "over", "unchecked"]:
        """Tell "over" if anything failed, a component below its minimum and a strict claim included."""
        if self.failures:
            return "over"
        return "within" if any(row.checks for row in (self.total, *self.components)) else "unchecked"

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """1 if anything failed, 3 if the accuracy could not be decided."""
        if self.failures:
            return 1
        return 3 if self.accuracy is not None and self.accuracy.outcome == "undecided" else 0

    def with_accuracy(self, found: GateResult) -> "Audit":
        """Return the audit with how the model's accuracy stands against its baseline, a failure where it is worse."""
        sentence = f"accuracy: {found.sentence}"
        if found.outcome == "worse":
            return replace(self, accuracy=found, failures=(*self.failures, sentence))
        return replace(self, accuracy=found, notes=(*self.notes, sentence))

    def to_dict(self) -> dict[str, Any]:
        """Return a record for JSON: exact integers, `share` a fraction of all parameters."""
        cost = self.cost
        return records.Audit(
            model=self.name,
            input=cost.inputs[0] if len(cost.inputs) == 1 else cost.inputs,
            convention=cost.convention,
            method=cost.method,
            verdict=self.verdict,
            total=self._row(self.total),
            components=tuple(map(self._row, self.components)),
            claims=tuple(map(_claim_record, self.claims)),
            failures=self.failures,
            notes=self.notes,
            memory_convention=f"ideal bytes: {IDEAL_TEXT}",
            memory={
                "weights": asdict(cost.weight_footprint),
                "activations": asdict(cost.activation_footprint),
                "peak": asdict(cost.peak_footprint),
            },
            shared=tuple({"names": list(row.owners), "params": row.params} for row in cost.shared),
            unused=cost.unused_names,
        ).to_dict()

    def _row(self, row: AuditRow) -> records.Component:
        cost = row.cost
        return records.Component(
            name=row.name,
            params=cost.params,
            share=cost.params / self.cost.params if self.cost.params else 0.0,
            macs=cost.macs,
            flops=cost.flops,
            bytes=cost.bytes,
            elementwise=cost.elementwise,
            activations=cost.activations,
            trainable=cost.trainable,
            frozen=cost.frozen,
            unused=cost.unused,
            verdict=row.verdict,
            target=row.target,
            difference=row.difference,
            checks=tuple(map(_check_record, row.checks)),
        )


def _check_record(check: Check) -> records.Check:
    limit = check.limit
    return records.Check(
        quantity=check.quantity,
        actual=check.actual,
        verdict=check.verdict,
        beyond=check.beyond,
        low=limit.low,
        high=limit.high,
        target=limit.target,
        warn=limit.warn,
    )


def _claim_record(claim: ClaimCheck) -> records.Claim:
    return records.Claim(
        component=claim.name,
        quantity=claim.quantity,
        claimed=claim.claimed,
        ours=claim.ours,
        difference=claim.difference,
        verdict=claim.verdict,
        source=claim.claim.source,
        note=claim.claim.note,
    )


def audit(
    model: nn.Module,
    budget: Budget | None = None,
    *,
    name: str,
    example_inputs: Sequence[Any] | Tensor | None = None,
    strict_claims: bool = False,
) -> Audit:
    """Count a model and check it against a budget.

    Without `example_inputs` the model is counted on zeros of the budget's input shape. At another shape the limits on
    MACs do not apply, and a note says so. With `strict_claims` a claim that differs is a failure.

    Errors: UsageError without any input shape; CountError; BudgetFileError if the file does not fit the model.
    """
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if example_inputs is None:
        if budget is None:
            raise UsageError(f"auditing {name} without a budget needs example_inputs for the input shape")
        example_inputs = (torch.zeros(budget.input, dtype=input_type(model)),)
    cost = count(model, *example_inputs)
    return audit_cost(cost, budget, name=name, strict_claims=strict_claims)


def input_type(model: nn.Module) -> torch.dtype:
    """Tell the type that a model in half or double precision wants its images in: that of its first weights."""
    kinds = (tensor.dtype for tensor in model.parameters() if tensor.is_floating_point() and tensor.itemsize > 1)
    return next(kinds, torch.float32)


def audit_cost(cost: Cost, budget: Budget | None, *, name: str, strict_claims: bool = False) -> Audit:
    """Check a count against a budget.

    Errors: BudgetFileError if the file does not fit the model.
    """
    parts = split(cost, budget)
    rows = {part: total_of(inside, path=part) for part, inside in parts.items()}
    total = total_of(list(rows.values()), path="total")
    if (total.params, total.macs) != (cost.params, cost.macs):
        raise CountError(f"the components of {name} do not sum to its total: this is a bug in featherpress")
    same_shape = budget is None or [tuple(budget.input)] == list(cost.inputs)
    components = tuple(
        AuditRow(
            name=part, cost=row, checks=_checks(row, budget.components.get(part) if budget else None, shaped=same_shape)
        )
        for part, row in rows.items()
    )
    checks = _checks(total, budget.total if budget else None, shaped=same_shape, peak=cost.peak)
    whole = AuditRow(name="total", cost=total, checks=checks)
    claims = _check_claims(budget, {**rows, "total": total}, macs_too=same_shape) if budget else ()
    failures = _failures(budget, whole, components, parts) if budget else []
    if strict_claims and budget:
        failures += [_claim_failure(claim, budget) for claim in claims if claim.verdict == "differs"]
    notes = list(cost.notes)
    if budget and not same_shape:
        notes.append(
            f"limits and claims on MACs and activations not checked: {budget.file} holds for input "
            f"{_times(budget.input)}, counted was {', '.join(map(_times, cost.inputs))}"
        )
    return Audit(
        name=name,
        cost=cost,
        total=whole,
        components=components,
        claims=claims,
        failures=tuple(failures),
        notes=tuple(notes),
    )


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _checks(cost: ModuleCost, limits: Limits | None, *, shaped: bool, peak: int = 0) -> tuple[Check, ...]:
    found = []
    for quantity in QUANTITIES:
        limit = getattr(limits, quantity, None)
        if limit is not None and (shaped or quantity not in SHAPED):
            found.append(_check(quantity, peak if quantity == "peak" else getattr(cost, quantity), limit))
    return tuple(found)


def _check(quantity: str, actual: int, limit: Limit) -> Check:
    verdict: Verdict = "within"
    beyond = 0
    if limit.high is not None and actual > limit.high:
        verdict, beyond = "over", actual - limit.high
    elif limit.low is not None and actual < limit.low:
        verdict, beyond = "under", limit.low - actual
    elif limit.warn is not None and actual > limit.warn:
        verdict, beyond = "warn", actual - limit.warn
    return Check(quantity=quantity, actual=actual, limit=limit, verdict=verdict, beyond=beyond)


def _check_claims(budget: Budget, rows: dict[str, ModuleCost], *, macs_too: bool) -> tuple[ClaimCheck, ...]:
    checks = []
    for claim in budget.claims:
        unknown = [part for part in claim.components if part not in rows]
        if unknown:
            raise BudgetFileError(
                f"{budget.file}: a claim is about component {unknown[0]!r}, expected one of {', '.join(rows)}"
            )
        for quantity in ("params", "macs") if macs_too else ("params",):
            claimed = getattr(claim, quantity)
            if claimed is not None:
                ours = sum(getattr(rows[part], quantity) for part in claim.components)
                checks.append(ClaimCheck(claim=claim, quantity=quantity, claimed=claimed, ours=ours))
    return tuple(checks)


def _failures(
    budget: Budget, total: AuditRow, components: Sequence[AuditRow], parts: dict[str, list[ModuleCost]]
) -> list[str]:
    """State of each broken limit where it stands, by how much it is broken, and what contributes most."""
    sentences = []
    for row in (*components, total):
        inside = [part.cost for part in components] if row is total else parts[row.name]
        broken = [check for check in row.checks if check.verdict in {"over", "under"}]
        sentences += [_sentence(row, check, inside, budget, is_total=row is total) for check in broken]
    return sentences


def _sentence(row: AuditRow, check: Check, inside: Sequence[ModuleCost], budget: Budget, *, is_total: bool) -> str:
    table = "[total]" if is_total else f"[components.{row.name}]"
    side, bound = ("above", check.limit.high) if check.verdict == "over" else ("below", check.limit.low)
    largest = "activations" if check.quantity == "peak" else check.quantity
    return (
        f"{row.name} has {check.actual:,} {QUANTITIES[check.quantity]}, "
        f"{check.beyond:,} {side} the limit of {bound:,}; largest: {name_largest(inside, largest)}; "
        f"change the model, or {check.quantity} under {table} in {budget.file}"
    )


def name_largest(rows: Sequence[ModuleCost], quantity: str) -> str:
    """Name the three largest contributors."""
    ranked = sorted(rows, key=lambda row: -getattr(row, quantity))[:3]
    named = [f"{row.path or ROOT} {getattr(row, quantity):,}" for row in ranked if getattr(row, quantity)]
    return ", ".join(named) or "nothing"


def _claim_failure(claim: ClaimCheck, budget: Budget) -> str:
    return (
        f"{claim.claim.source} claims {claim.claimed:,} {QUANTITIES[claim.quantity]} for {claim.name}, "
        f"counted are {claim.ours:,} ({claim.difference:+,}); change the model, or the claim in {budget.file}"
    )
