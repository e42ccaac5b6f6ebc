"""A budget file from a model as it is."""

import json
import re

from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import Cost, total_of
from featherpress.budgets.counting.inputs import make_inputs
from featherpress.errors import UsageError


def dump_budget(cost: Cost, *, name: str = "") -> str:
    """Write the budget that holds a model to what it costs now, as TOML that `load_budget` reads.

    Without a name the model goes by that of its class.

    Errors: UsageError for inputs that no text can describe.
    """
    name = name or cost.model
    try:
        make_inputs(cost.signature)
    except UsageError as error:
        fed = ", ".join(cost.signature)
        raise UsageError(f"a budget file cannot say what {name} was fed: {fed}; feed a module that makes it") from error
    plain = re.fullmatch(r"\d+(x\d+)+", ",".join(cost.signature))
    shown = str(list(cost.inputs[0])) if plain else f"[{', '.join(map(_text, cost.signature))}]"
    tables = {"total": (cost.params, cost.macs)}
    for part, rows in split(cost).items():
        key = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else _text(part)
        row = total_of(rows, path=part)
        tables[f"components.{key}"] = (row.params, row.macs)
    lines = [f"model = {_text(name)}", f"input = {shown}", f"convention = {_text(cost.convention)}"]
    for table, (params, macs) in tables.items():
        lines += ["", f"[{table}]", f"params = {{ target = {params} }}", f"macs = {{ target = {macs} }}"]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
