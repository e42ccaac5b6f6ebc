"""What a model costs: counting, budget files, audits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featherpress.budgets.auditing.audit import Audit, AuditRow, audit
from featherpress.budgets.auditing.budget_file import Budget, list_budgets, load_budget
from featherpress.budgets.auditing.writing import dump_budget
from featherpress.budgets.counting.costs import Cost, ModuleCost
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.memory import Footprint

if TYPE_CHECKING:
    from featherpress.budgets.crosscheck.crosscheck import CrossCheck, cross_check
    from featherpress.budgets.fitting.fit import Fit, fit
    from featherpress.budgets.views.breakdown import Breakdown, breakdown
    from featherpress.budgets.views.diff import Diff, diff

__all__ = [
    "Audit",
    "AuditRow",
    "Budget",
    "Cost",
    "CrossCheck",
    "Diff",
    "Fit",
    "Footprint",
    "ModuleCost",
    "Breakdown",
    "audit",
    "count",
    "cross_check",
    "diff",
    "dump_budget",
    "fit",
    "list_budgets",
    "load_budget",
    "breakdown",
]

#: Imported when first asked for: an audit needs none of them.
_LATER = {
    "CrossCheck": "crosscheck.crosscheck",
    "cross_check": "crosscheck.crosscheck",
    "Diff": "views.diff",
    "diff": "views.diff",
    "Fit": "fitting.fit",
    "fit": "fitting.fit",
    "Breakdown": "views.breakdown",
    "breakdown": "views.breakdown",
}


def __getattr__(name: str) -> Any:
    """Import what is left for later."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
