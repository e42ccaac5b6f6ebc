"""What a model costs: counting, budget files, audits."""

from typing import TYPE_CHECKING

from featherpress.lazy import import_later

if TYPE_CHECKING:
    from featherpress.budgets.auditing.audit import Audit, audit
    from featherpress.budgets.auditing.budget_file import Budget, list_budgets, load_budget
    from featherpress.budgets.auditing.writing import dump_budget
    from featherpress.budgets.counting.costs import Cost, ModuleCost
    from featherpress.budgets.counting.count import count
    from featherpress.budgets.crosscheck.crosscheck import CrossCheck, cross_check
    from featherpress.budgets.fitting.fit import Fit, fit
    from featherpress.budgets.views.breakdown import Breakdown, breakdown
    from featherpress.budgets.views.diff import Diff, diff

__all__ = [
    "Audit",
    "Budget",
    "Cost",
    "CrossCheck",
    "Diff",
    "Fit",
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

__getattr__ = import_later(
    __name__,
    {
        "auditing.audit": ("Audit", "audit"),
        "auditing.budget_file": ("Budget", "list_budgets", "load_budget"),
        "auditing.writing": ("dump_budget",),
        "counting.costs": ("Cost", "ModuleCost"),
        "counting.count": ("count",),
        "crosscheck.crosscheck": ("CrossCheck", "cross_check"),
        "fitting.fit": ("Fit", "fit"),
        "views.breakdown": ("Breakdown", "breakdown"),
        "views.diff": ("Diff", "diff"),
    },
)
