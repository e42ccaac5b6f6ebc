"""What a model costs: counting, budget files, audits."""

from featherpress.budgets.audits import Audit, AuditRow, audit
from featherpress.budgets.costs import Cost, ModuleCost
from featherpress.budgets.counting import count
from featherpress.budgets.files import Budget, list_budgets, load_budget
from featherpress.budgets.writing import dump_budget

__all__ = [
    "Audit",
    "AuditRow",
    "Budget",
    "Cost",
    "ModuleCost",
    "audit",
    "count",
    "dump_budget",
    "list_budgets",
    "load_budget",
]
