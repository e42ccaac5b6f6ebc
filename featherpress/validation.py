"""What is wrong in a TOML file or a record, in one sentence: pydantic's findings in the file's own words."""

import difflib
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

#: What findings expect, by pydantic's name for them.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text",
    "string_pattern_mismatch": "text of the form {pattern}",
    "too_short": "at least {min_length} entry",
    "too_long": "at most {max_length} entries",
    "string_too_short": "text that is not empty",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}


def first_finding(error: ValidationError) -> tuple[Any, str]:
    """Return the finding that says most, and how many more there are, in brackets."""
    # A key that is missing is often there under a name that is not known, which says more.
    findings = sorted(error.errors(include_url=False), key=lambda finding: finding["type"] != "extra_forbidden")
    unknown = {finding["loc"][-1] for finding in findings if finding["type"] == "extra_forbidden"}
    # What may be of several types is found wrong once for each, and a key in another table is missing in its own.
    places = {
        tuple(takewhile(lambda part: not names_a_type(part), finding["loc"]))
        for finding in findings
        if finding["type"] != "missing" or finding["loc"][-1] not in unknown
    }
    return findings[0], f" (and {len(places) - 1} more)" if len(places) > 1 else ""


def names_a_type(part: int | str) -> bool:
    """Tell pydantic's names for the members of a union from keys."""
    return isinstance(part, str) and (part in {"int", "str", "constrained-str"} or "[" in part)


def explain(finding: Any, place: Sequence[int | str], *, known: Sequence[str]) -> str:
    """Turn a finding into a sentence; `place` is the path of its key, `known` the keys of the table around it."""
    *parents, key = place or [""]
    inside = dotted(parents) or "the top level"
    if finding["type"] == "extra_forbidden":
        return f"unknown key {str(key)[:60]!r} in {inside}; {suggest(str(key), known)}"
    if finding["type"] == "missing":
        return f"key {key!r} is missing in {inside}"
    return f"{dotted(place)}: {_complaint(finding)}".removeprefix(": ")


def suggest(name: str, known: Sequence[str]) -> str:
    """Ask about the known name that is nearest, or list them all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def dotted(place: Sequence[int | str]) -> str:
    """Write a path as `claims[1].source`, entries of lists from 1."""
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")[:120]


def _complaint(finding: Any) -> str:
    if finding["type"] == "value_error":
        return str(finding["ctx"]["error"])
    words = _EXPECTED.get(finding["type"])
    expected = words.format_map(finding.get("ctx", {})) if words else finding["msg"].removeprefix("Input should be ")
    if not words and expected == finding["msg"]:
        return str(expected)
    return f"expected {expected}, got {_short(finding['input'])}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else repr(value)[:60]
