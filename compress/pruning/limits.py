"""What may not be exceeded: parameters and MACs that are given, and the limits of a budget file."""

from pathlib import Path

from featherpress.budgets.auditing.budget_file import Budget, Limits, load_budget
from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import Cost
from featherpress.compress.pruning.units import Limit
from featherpress.errors import UsageError

#: What follows from widths by formulas; a file that limits anything else is refused.
_FOLLOWED = ("params", "macs", "bytes")


def make_limits(cost: Cost, *, params: int | None, macs: int | None, budget: Budget | str | Path | None) -> list[Limit]:
    """List all limits.

    Errors: UsageError for none, one below 1, or one of a budget file that does not follow from widths; BudgetFileError.
    """
    limits = []
    for quantity, amount in (("params", params), ("macs", macs)):
        if amount is not None:
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
                raise UsageError(f"{quantity} is a whole number of at least 1, got {amount!r}")
            limits.append(Limit(name=quantity, quantity=quantity, amount=amount))
    if isinstance(budget, str | Path):
        budget = load_budget(budget)
    if budget is not None:
        limits += _of_file(cost, budget)
    if not limits:
        raise UsageError("pruning needs a limit: give params, macs, or a budget file with an upper limit")
    return limits


def _of_file(cost: Cost, budget: Budget) -> list[Limit]:
    found = _limits("total", budget.total, budget, None)
    rows = split(cost, budget)
    for name, component in budget.components.items():
        paths = frozenset(place for row in rows[name] for place in row.places)
        found += _limits(name, component, budget, paths)
    return found


def _limits(name: str, limits: Limits, budget: Budget, modules: frozenset[str] | None) -> list[Limit]:
    found = []
    for quantity in type(limits).model_fields:
        limit = getattr(limits, quantity)
        high = getattr(limit, "high", None)
        if high is None:
            continue
        if quantity not in _FOLLOWED:
            raise UsageError(
                f"{budget.file} limits {quantity} of {name}, which pruning cannot promise: it keeps limits of "
                "params, macs and bytes"
            )
        found.append(Limit(name=f"{name} {quantity}", quantity=quantity, amount=high, modules=modules))
    return found


def measured(cost: Cost, limit: Limit) -> int:
    """Return what a count says of a limited quantity."""
    if limit.modules is None:
        return int(getattr(cost, limit.quantity))
    return sum(int(getattr(row, limit.quantity)) for row in cost.modules if limit.modules.issuperset(row.places))
