"""What a model costs: counting, budget files, audits."""

from featherpress.budgets.audits import Audit, AuditRow, audit
from featherpress.budgets.costs import Cost, ModuleCost
from featherpress.budgets.counting import count
from featherpress.budgets.crosscheck import CrossCheck, cross_check
from featherpress.budgets.diffing import Diff, diff
from featherpress.budgets.files import Budget, list_budgets, load_budget
from featherpress.budgets.writing import dump_budget

__all__ = [
    "Audit",
    "AuditRow",
    "Budget",
    "Cost",
    "CrossCheck",
    "Diff",
    "ModuleCost",
    "audit",
    "count",
    "cross_check",
    "diff",
    "dump_budget",
    "list_budgets",
    "load_budget",
]
