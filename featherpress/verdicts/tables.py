"""Scores from CSV files: one value per example, of one seed or several."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featherpress.errors import DataError
from featherpress.files import separator
from featherpress.verdicts.intervals import Scores

COLUMNS = ("example", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a gate: its name, metric, seeds and the names of its examples, in the order of its scores.

    `bounded` says that no score is outside 0 to 1, so that a margin of 1 cannot be meant.
    """

    name: str
    metric: str
    seeds: tuple[str, ...]
    examples: tuple[str, ...]
    scores: Scores
    bounded: bool
    unit: str = "examples"


def read_tables(paths: Sequence[Path], *, metric: str = "score", order: Sequence[str] | None = None) -> Side:
    """Read CSV files with the columns example and score, several files or a column `seed` being seeds.

    With `order` the examples are put in the order of another side.
    Errors: DataError with file and line for what cannot be read, and for examples that do not match.
    """
    tables: dict[str, dict[str, float]] = {}
    for number, path in enumerate(paths):
        found = _read(path)
        if len(paths) > 1 and len(found) > 1:
            raise DataError(f"{path} has several seeds and is one of several files; give seeds in one of the two ways")
        tables |= found if len(paths) == 1 else {str(number): next(iter(found.values()))}
    tables = dict(sorted(tables.items(), key=lambda item: (len(item[0]), item[0])))
    name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    examples = tuple(order) if order is not None else tuple(next(iter(tables.values())))
    for seed, table in tables.items():
        match_examples(tuple(table), examples, name if len(tables) == 1 else f"seed {seed} of {name}")
    values = np.array([[table[example] for example in examples] for table in tables.values()])
    return Side(
        name=name,
        metric=metric,
        seeds=tuple(tables),
        examples=examples,
        scores=Scores.of(values),
        bounded=bool(values.min() >= 0 and values.max() <= 1),
    )


def match_examples(examples: Sequence[str], wanted: Sequence[str], name: str) -> None:
    """Refuse examples that are not those wanted, in whatever order.

    Errors: DataError that says how many differ, and names three.
    """
    missing, unknown = set(wanted) - set(examples), set(examples) - set(wanted)
    if missing or unknown:
        first = ", ".join(map(repr, sorted(missing | unknown)[:3]))
        raise DataError(
            f"{name}: the examples do not match the other side's: {len(missing)} are missing and {len(unknown)} are "
            f"unknown there ({first}, ...)"
        )


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return _parse(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator(text)), path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _parse(rows: "csv.DictReader[str]", path: Path) -> dict[str, dict[str, float]]:
    names = rows.fieldnames
    if not names:
        raise DataError(f"{path} is empty; expected the columns example,score and a row for each example")
    if not set(COLUMNS) <= set(names):
        raise DataError(f"{path}: expected the columns example,score (and seed), got {','.join(names)[:80]}")
    tables: dict[str, dict[str, float]] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        if row["score"] is None:
            raise DataError(f"{where}: expected {len(names)} values, got fewer")
        table = tables.setdefault(row.get("seed") or "0", {})
        if row["example"] in table:
            raise DataError(f"{where}: the example {row['example']!r} is there a second time")
        table[row["example"]] = _number(row["score"], where)
    if not tables:
        raise DataError(f"{path} is empty: it has a header and no row")
    return tables


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: expected a number as score, got {text[:40]!r}")
    return value
