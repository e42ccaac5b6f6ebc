"""What a model costs: counting, budget files, audits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featherpress.budgets.activations import Footprint
from featherpress.budgets.audits import Audit, AuditRow, audit
from featherpress.budgets.costs import Cost, ModuleCost
from featherpress.budgets.counting import count
from featherpress.budgets.files import Budget, list_budgets, load_budget
from featherpress.budgets.writing import dump_budget

if TYPE_CHECKING:
    from featherpress.budgets.crosscheck import CrossCheck, cross_check
    from featherpress.budgets.diffing import Diff, diff
    from featherpress.budgets.fitting import Fit, fit
    from featherpress.budgets.views import View, view

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
    "View",
    "audit",
    "count",
    "cross_check",
    "diff",
    "dump_budget",
    "fit",
    "list_budgets",
    "load_budget",
    "view",
]

#: Imported when first asked for: an audit needs none of them.
_LATER = {
    "CrossCheck": "crosscheck",
    "cross_check": "crosscheck",
    "Diff": "diffing",
    "diff": "diffing",
    "Fit": "fitting",
    "fit": "fitting",
    "View": "views",
    "view": "views",
}


def __getattr__(name: str) -> Any:
    """Import what is left for later."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
