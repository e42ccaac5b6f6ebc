"""Write docs/api.md, the page of public names, from the docstrings: `python docs/make_api.py`."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

__all__ = ["api_page"]

PAGE = Path(__file__).with_name("api.md")

MODULES = {
    "featherpress.models": "What is built: the zoo, its weights, and how to add to it.",
    "featherpress.budgets": "What it costs: exact counts of any module, budgets, comparisons.",
    "featherpress.compress.recipes": "What an experiment is: recipes, read from TOML and checked.",
    "featherpress.compress.experiments": "Whole experiments, as the commands `train` and `distill` run them.",
    "featherpress.compress.losses.registry": "The losses of distillation, by name.",
    "featherpress.compress.data": "Labelled pictures, and the crops that training sees.",
    "featherpress.compress.evaluation": "How good it is: average precision, WIDER FACE's protocol, intervals.",
    "featherpress.compress.deployment.exporting": "How a model leaves: ONNX, int8, a torch program, each checked.",
    "featherpress.compress.deployment.latency": "How fast it then is: several models and backends measured in turns.",
    "featherpress.reports": "What is said of it: saved records in, a report out.",
}

_HEAD = """# The public names

Everything below can be imported from the module that heads its section; what is not here may change without notice.
Errors are subclasses of `featherpress.errors.FeatherpressError`, whose tree is drawn at the top of that file. This page
is made from the docstrings by `python docs/make_api.py`; a test holds it to them.
"""


def api_page() -> str:
    """Return the page."""
    sections = [_section(importlib.import_module(name), intro) for name, intro in MODULES.items()]
    return _HEAD + "\n" + "\n".join(sections)


def _section(module: ModuleType, intro: str) -> str:
    names = [name for name in module.__all__ if inspect.isroutine(getattr(module, name)) or _is_class(module, name)]
    names.sort(key=lambda name: (_is_class(module, name), name.lower()))
    entries = "\n".join(_entry(name, getattr(module, name)) for name in names)
    return f"## {module.__name__}\n\n{intro}\n\n{entries}"


def _entry(name: str, value: object) -> str:
    kind = "class " if inspect.isclass(value) else ""
    lines = [
        f"### `{kind}{name}`",
        "",
        "```python",
        _signature(name, value),
        "```",
        "",
        inspect.getdoc(value) or "",
        "",
    ]
    if inspect.isclass(value):
        lines += [f"- `{method}`: {summary}" for method, summary in _methods(value)]
        lines += [""] if lines[-1] else []
    return "\n".join(lines)


def _signature(name: str, value: object) -> str:
    """Spell out how a name is called, one parameter a line where that gets long."""
    if inspect.isclass(value) and not dataclasses.is_dataclass(value) and "__init__" not in vars(value):
        return name
    if not callable(value):
        return name
    text = re.sub(r"(: |-> )'([^']+)'", r"\1\2", str(inspect.signature(value)))  # annotations that are strings
    text = re.sub(r"(?:[A-Za-z_]\w*\.)+(\w+)", r"\1", text).replace("~", "")
    if len(name + text) <= 110:
        return name + text
    parameters, _, returned = text[1:].rpartition(")")
    return f"{name}(\n" + "".join(f"    {part},\n" for part in _split(parameters)) + f"){returned}"


def _split(parameters: str) -> list[str]:
    """Split at the commas that are not within brackets."""
    parts, depth = [""], 0
    for letter in parameters:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _methods(value: type) -> Iterator[tuple[str, str]]:
    for name, member in vars(value).items():
        if name.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property | classmethod)):
            continue
        summary = (inspect.getdoc(member) or "").partition("\n")[0]
        if summary:
            yield (name if isinstance(member, property) else f"{name}()"), summary


def _is_class(module: ModuleType, name: str) -> bool:
    return inspect.isclass(getattr(module, name))


if __name__ == "__main__":
    PAGE.write_text(api_page(), encoding="utf-8")
