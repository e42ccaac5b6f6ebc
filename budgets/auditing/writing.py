"""A budget file from a model as it is."""

import json
import re

from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import Cost, total_of
from featherpress.errors import UsageError


def dump_budget(cost: Cost, *, name: str = "") -> str:
    """Write the budget that holds a model to what it costs now, as TOML that `load_budget` reads.

    Without a name the model goes by that of its class.

    Errors: UsageError for a model that takes anything but one tensor, which a budget file cannot describe.
    """
    name = name or cost.model
    if len(cost.inputs) != 1 or not cost.inputs[0]:
        raise UsageError(
            f"a budget file holds one input shape, {name} takes {len(cost.inputs)} tensors: write the file by hand"
        )
    tables = {"total": (cost.params, cost.macs)}
    for part, rows in split(cost).items():
        key = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else _text(part)
        row = total_of(rows, path=part)
        tables[f"components.{key}"] = (row.params, row.macs)
    lines = [f"model = {_text(name)}", f"input = {list(cost.inputs[0])}", f"convention = {_text(cost.convention)}"]
    for table, (params, macs) in tables.items():
        lines += ["", f"[{table}]", f"params = {{ target = {params} }}", f"macs = {{ target = {macs} }}"]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
