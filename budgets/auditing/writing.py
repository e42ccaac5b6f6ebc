"""A budget file from a model as it is."""

import json
import re

from featherpress.budgets.auditing.audit import Audit, audit_cost
from featherpress.budgets.counting.costs import Cost
from featherpress.errors import UsageError


def dump_budget(counted: Audit | Cost) -> str:
    """Write the budget that holds a model to what it costs now, as TOML that `load_budget` reads.

    Errors: UsageError for a model that takes anything but one tensor, which a budget file cannot describe.
    """
    cost, name = (counted.cost, counted.model) if isinstance(counted, Audit) else (counted, counted.model)
    result = audit_cost(cost, None, name=name)
    inputs = result.cost.inputs
    if len(inputs) != 1 or not inputs[0]:
        raise UsageError(
            f"a budget file holds one input shape, {result.model} takes {len(inputs)} tensors: write the file by hand"
        )
    lines = [
        f"model = {_text(result.model)}",
        f"input = {list(inputs[0])}",
        f"convention = {_text(result.cost.convention)}",
        "",
        "[total]",
        *_limits(result.cost.params, result.cost.macs),
    ]
    for row in result.components:
        lines += ["", f"[components.{_key(row.name)}]", *_limits(row.params, row.macs)]
    return "\n".join(lines) + "\n"


def _limits(params: int, macs: int) -> list[str]:
    return [f"params = {{ target = {params} }}", f"macs = {{ target = {macs} }}"]


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)
