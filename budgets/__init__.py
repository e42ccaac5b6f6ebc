"""What a model costs: counting, budget files, audits."""

from featherpress.budgets.costs import Cost, ModuleCost
from featherpress.budgets.counting import count

__all__ = ["Cost", "ModuleCost", "count"]
