"""An audit: what a model costs against what it may cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PrivateAttr, SkipValidation
from torch import Tensor, nn

from featherpress.budgets.auditing.budget_file import Budget, Limit, Limits
from featherpress.budgets.auditing.components import shapes_of, split
from featherpress.budgets.counting.costs import ROOT, SUMMED, WEIGHTS, Cost, ModuleCost, require_sums, total_of
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.formulas import Formula
from featherpress.budgets.counting.inputs import describe_inputs, input_type, same_inputs
from featherpress.budgets.counting.memory import IDEAL_TEXT
from featherpress.errors import BudgetFileError, UsageError
from featherpress.records.audit import Audit as AuditRecord
from featherpress.records.audit import Check, Claim, Component
from featherpress.records.audit import Weights as WeightsRecord

if TYPE_CHECKING:
    from featherpress.verdicts import GateResult

#: The quantities that can be limited, and what sentences call them.
QUANTITIES = {
    "params": "parameters",
    "macs": "MACs",
    "bytes": "bytes",
    "activations": "bytes of activations",
    "peak": "bytes of activations at the peak",
    "exported": "bytes of the exported file",
}
#: Those that hold for one input shape alone.
SHAPED = frozenset({"macs", "activations", "peak"})
#: Those of the whole model, which are no sum of its parts'.
WHOLE = frozenset({"peak", "exported"})
#: What a row's worst check says, the worst first.
VERDICTS = ("over", "under", "warn", "within")


class Audit(AuditRecord):
    """The result of an audit: a record, whose rows sum to the total, with the count that it was made from."""

    cost: SkipValidation[Cost] = Field(exclude=True)
    _accuracy: "GateResult | None" = PrivateAttr(default=None)

    @property
    def accuracy(self) -> "GateResult | None":
        """How the model's accuracy stands against its baseline, where that was asked."""
        return self._accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return the record; of weights alone, with null for the work that nobody knows."""
        record = super().to_dict()
        if self.cost.method == WEIGHTS:
            record["schema"] = WeightsRecord.SCHEMA
            for row in (record["total"], *record["components"]):
                row.update(dict.fromkeys(("macs", "flops", "elementwise", "activations", "unused")))
        return record

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """1 if anything failed, 3 if the accuracy could not be decided."""
        if self.failures:
            return 1
        return 3 if self.accuracy is not None and self.accuracy.outcome == "undecided" else 0

    def with_accuracy(self, found: "GateResult") -> Self:
        """Return the audit with how the model's accuracy stands against its baseline, a failure where it is worse."""
        sentence = f"accuracy: {found.sentence}"
        result = self.after(failures=[sentence]) if found.outcome == "worse" else self.after(notes=[sentence])
        result._accuracy = found
        return result

    def after(self, *, failures: Sequence[str] = (), notes: Sequence[str] = ()) -> Self:
        """Return the audit after another check: "over" if anything failed, claims and a baseline included."""
        failures = (*self.failures, *failures)
        verdict = "over" if failures else self.verdict
        return self.model_copy(update={"failures": failures, "notes": (*self.notes, *notes), "verdict": verdict})


def audit(
    model: nn.Module,
    budget: Budget | None = None,
    *,
    name: str,
    example_inputs: Sequence[Any] | Tensor | None = None,
    kwargs: Mapping[str, Any] | None = None,
    formulas: Mapping[str, Formula] | None = None,
    strict_claims: bool = False,
) -> Audit:
    """Count a model and check it against a budget; `kwargs` and `formulas` are those of `count`.

    Without inputs the model is counted on zeros of the budget's input. On another the limits on MACs do not apply, and
    a note says so. With `strict_claims` a claim that differs is a failure.

    Errors: UsageError without any input shape; CountError; BudgetFileError if the file does not fit the model.
    """
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if example_inputs is None and not kwargs:
        if budget is None:
            raise UsageError(f"auditing {name} without a budget needs example_inputs for the input shape")
        example_inputs, kwargs = budget.make_inputs(input_type(model))
    cost = count(model, *(example_inputs or ()), kwargs=kwargs, formulas=formulas)
    return audit_cost(cost, budget, name=name, strict_claims=strict_claims)


def audit_cost(cost: Cost, budget: Budget | None, *, name: str, strict_claims: bool = False) -> Audit:
    """Check a count against a budget.

    Errors: BudgetFileError if the file does not fit the model.
    """
    parts = split(cost, budget)
    rows = {part: total_of(inside, path=part) for part, inside in parts.items()}
    total = total_of(list(rows.values()), path="total")
    require_sums([total], cost, ("params", "macs", "bytes"), what=f"the components of {name}")
    wanted = describe_inputs(budget.make_inputs()) if budget else cost.signature
    same_shape = cost.method != WEIGHTS and same_inputs(wanted, cost.signature)
    limits: Mapping[str, Limits] = budget.components if budget else {}
    places = {path: place for place, path in enumerate(cost.shapes)}
    components = [
        _component(part, row, limits.get(part), whole=cost, shaped=same_shape).model_copy(
            update={"shapes": shapes_of(parts[part], cost, places)}
        )
        for part, row in rows.items()
    ]
    whole = _component("total", total, budget.total if budget else None, whole=cost, shaped=same_shape)
    claims = _check_claims(budget, {**rows, "total": total}, macs_too=same_shape) if budget else ()
    failures = [
        _failure(row, check, inside, budget)
        for row, inside in zip((*components, whole), (*parts.values(), list(rows.values())), strict=True)
        for check in row.checks
        if budget and check.verdict in {"over", "under"}
    ]
    if strict_claims and budget:
        failures += [_claim_failure(claim, budget) for claim in claims if claim.verdict == "differs"]
    notes = list(cost.notes)
    if budget and budget.total.exported and not cost.exported:
        notes.append("the limit on the exported file is not checked: it holds for a file, as `audit NET.onnx`")
    if budget and not same_shape and cost.method != WEIGHTS:
        notes.append(
            f"limits and claims on MACs and activations not checked: {budget.file} holds for input "
            f"{', '.join(wanted)}, counted was {', '.join(cost.signature)}"
        )
    checked = any(row.checks for row in (whole, *components))
    return Audit(
        cost=cost,
        model=name,
        input=cost.inputs[0] if len(cost.inputs) == 1 else cost.inputs,
        signature=cost.signature,
        convention=cost.convention,
        method=cost.method,
        verdict="over" if failures else "within" if checked else "unchecked",
        total=whole,
        components=tuple(components),
        claims=claims,
        failures=tuple(failures),
        notes=tuple(notes),
        memory_convention=f"ideal bytes: {IDEAL_TEXT}",
        memory={
            "weights": asdict(cost.weight_footprint),
            "activations": asdict(cost.activation_footprint),
            "peak": asdict(cost.peak_footprint),
        },
        shared=tuple({"names": list(row.owners), "params": row.params} for row in cost.shared),
        unused=cost.unused_names,
    )


def _component(name: str, cost: ModuleCost, limits: Limits | None, *, whole: Cost, shaped: bool) -> Component:
    """Make the row of a component, or of the total, with its checks."""
    checks = []
    for quantity in QUANTITIES:
        limit = getattr(limits, quantity, None)
        if limit is not None and (shaped or quantity not in SHAPED) and (whole.exported or quantity != "exported"):
            checks.append(_check(quantity, getattr(whole if quantity in WHOLE else cost, quantity), limit))
    target = limits.params.reference if limits and limits.params else None
    verdicts = {check.verdict for check in checks}
    return Component(
        name=name,
        share=cost.params / whole.params if whole.params else 0.0,
        **{quantity: getattr(cost, quantity) for quantity in (*SUMMED, "flops")},
        verdict=next((verdict for verdict in VERDICTS if verdict in verdicts), "unchecked"),
        target=target,
        difference=None if target is None else cost.params - target,
        checks=tuple(checks),
    )


def _check(quantity: str, actual: int, limit: Limit) -> Check:
    signs = (("over", limit.high, 1), ("under", limit.low, -1), ("warn", limit.warn, 1))
    broken = ((word, sign * (actual - bound)) for word, bound, sign in signs if bound is not None)
    verdict, beyond = next(((word, beyond) for word, beyond in broken if beyond > 0), ("within", 0))
    bounds = {"low": limit.low, "high": limit.high, "target": limit.target, "warn": limit.warn}
    return Check(quantity=quantity, actual=actual, verdict=verdict, beyond=beyond, **bounds)


def _check_claims(budget: Budget, rows: dict[str, ModuleCost], *, macs_too: bool) -> tuple[Claim, ...]:
    checks = []
    for claim in budget.claims:
        unknown = [part for part in claim.components if part not in rows]
        if unknown:
            raise BudgetFileError(
                f"{budget.file}: a claim is about component {unknown[0]!r}, expected one of {', '.join(rows)}"
            )
        for quantity in ("params", "macs") if macs_too else ("params",):
            claimed = getattr(claim, quantity)
            if claimed is None:
                continue
            ours = sum(getattr(rows[part], quantity) for part in claim.components)
            # A document may be right to the last digit that it prints, and no further.
            differs = 2 * abs(ours - claimed) > claim.rounded_to - 1
            checks.append(
                Claim(
                    component=" + ".join(claim.components),
                    quantity=quantity,
                    claimed=claimed,
                    ours=ours,
                    difference=ours - claimed,
                    verdict="differs" if differs else "equal",
                    source=claim.source,
                    note=claim.note,
                )
            )
    return tuple(checks)


def _failure(row: Component, check: Check, inside: Sequence[ModuleCost], budget: Budget) -> str:
    """State of a broken limit where it stands, by how much it is broken, and what contributes most."""
    table = "[total]" if row.name == "total" else f"[components.{row.name}]"
    side, bound = ("above", check.high) if check.verdict == "over" else ("below", check.low)
    largest = {"peak": "activations", "exported": "bytes"}.get(check.quantity, check.quantity)
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


def _claim_failure(claim: Claim, budget: Budget) -> str:
    return (
        f"{claim.source} claims {claim.claimed:,} {QUANTITIES[claim.quantity]} for {claim.component}, "
        f"counted are {claim.ours:,} ({claim.difference:+,}); change the model, or the claim in {budget.file}"
    )
