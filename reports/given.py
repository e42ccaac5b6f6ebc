"""Numbers measured elsewhere: a CSV or JSON file of one row a model, any metrics, seeds as rows."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from featherpress.errors import FileError
from featherpress.files import is_table, separator
from featherpress.records.evaluation import SubsetScores
from featherpress.records.record import read_text
from featherpress.verdicts.tables import Side

MODEL, SEED, SCORES = "model", "seed", "scores"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

#: Reads the scores per example of one model, a file a seed, in the order of some examples.
ReadScores: TypeAlias = Callable[[Sequence[Path], Sequence[str] | None], Side]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenModel:
    """What a file says of one model: numbers by column, as texts, one a seed, and files of scores per example."""

    name: str
    seeds: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    scores: tuple[Path, ...]

    def numbers(self, column: str) -> tuple[float, ...]:
        """Return the numbers of a column, one a seed, without those that are not there."""
        return tuple(float(text) for text in self.values[column] if text)

    def decimals(self, column: str) -> int:
        """Return with how many decimals the numbers of a column were given, at most."""
        return max((_decimals(text) for text in self.values[column] if text), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The models of one file, in its order, and its columns of numbers; `further` files may have a model each."""

    file: Path
    columns: tuple[str, ...]
    models: tuple[GivenModel, ...]
    further: tuple[Path, ...] = ()

    @property
    def records(self) -> list[str]:
        """The files that the numbers stand in."""
        return list(map(str, (self.file, *self.further)))


def is_given(file: Path) -> bool:
    """Tell whether a file holds numbers measured elsewhere, not a record: it is CSV, or a JSON list."""
    return is_table(file) or read_text(file).lstrip("\ufeff \t\r\n").startswith("[")


def read_given(file: Path) -> Given:
    """Read numbers measured elsewhere.

    Errors: `FileError`, in one sentence with the line, for a file without models or numbers, for what is no number,
    and for rows of one model that no seed tells apart.
    """
    rows = [*(_csv_rows if is_table(file) else _json_rows)(file)]
    names = [*dict.fromkeys(name for _, row in rows for name in row)]
    if not rows:
        raise FileError(f"{file}: expected a row a model, got none.")
    if MODEL not in names:
        raise FileError(f"{file}: expected a column `model`, got {', '.join(names)[:80] or 'none'}.")
    columns = tuple(name for name in names if name not in (MODEL, SEED, SCORES))
    if not columns:
        raise FileError(f"{file}: expected a column of numbers beside {', '.join(names)}, got none.")
    found: dict[str, dict[str, tuple[str, dict[str, str]]]] = {}
    for where, row in rows:
        name, seed = row.get(MODEL, ""), row.get(SEED, "")
        if not name:
            raise FileError(f"{file}, {where}: expected a model, got an empty cell.")
        seeds = found.setdefault(name, {})
        if seed in seeds:
            raise FileError(f"{file}, {where}: {name!r} is in {seeds[seed][0]} too, and no `seed` tells them apart.")
        seeds[seed] = (where, row)
        for column in columns:
            _require_number(row.get(column, ""), f"{file}, {where}, column {column!r}")
    return Given(file=file, columns=columns, models=tuple(_model(file, *each, columns) for each in found.items()))


def subsets_given(scored: Sequence[SubsetScores], names: Sequence[str]) -> Given:
    """Set evaluations of predictions side by side, which say nothing of the models; `names` are what to call them."""
    columns = {f"AP, {subset}": subset for subset in SubsetScores.model_fields}
    models = [
        {column: "" if (ap := getattr(each, subset)) is None else f"{ap:.4f}" for column, subset in columns.items()}
        for each in scored
    ]
    return Given(
        file=scored[0].file,
        columns=tuple(columns),
        models=tuple(
            GivenModel(name=name, seeds=("",), values={column: (text,) for column, text in model.items()}, scores=())
            for name, model in zip(names, models, strict=True)
        ),
        further=tuple(each.file for each in scored[1:]),
    )


def _model(
    file: Path, name: str, seeds: Mapping[str, tuple[str, dict[str, str]]], columns: Sequence[str]
) -> GivenModel:
    rows = [row for _, row in seeds.values()]
    scores = [row.get(SCORES, "") for row in rows]
    if any(scores) and not all(scores):
        raise FileError(f"{file}: {name!r} has `scores` of some of its seeds alone; give a file for each, or none.")
    return GivenModel(
        name=name,
        seeds=tuple(seeds),
        values={column: tuple(row.get(column, "") for row in rows) for column in columns},
        scores=tuple(file.parent / each for each in scores if each),
    )


def _require_number(text: str, where: str) -> None:
    if text and (not _NUMBER.fullmatch(text) or not math.isfinite(float(text))):
        raise FileError(f"{where}: expected a number or nothing, got {text[:40]!r}.")


def _decimals(text: str) -> int:
    exponent = Decimal(text).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _csv_rows(file: Path) -> Iterable[tuple[str, dict[str, str]]]:
    try:
        text = read_text(file).removeprefix("\ufeff")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator(text), strict=True)
        header = [name.strip() for name in next(reader, [])]
        twice = {name for name in header if header.count(name) > 1 or not name}
        if twice:
            raise FileError(f"{file}: expected columns with names of their own, got {', '.join(header)[:80]}.")
        if len(header) == 1 and ";" in header[0]:
            raise FileError(
                f"{file}: expected commas or tabs between columns and a point in numbers, got {header[0][:80]!r}."
            )
        for cells in reader:
            where = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise FileError(f"{file}, {where}: expected {len(header)} cells, got {len(cells)}.")
            yield where, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:
        raise FileError(f"{file}: expected CSV, got something else ({error}).") from error


def _json_rows(file: Path) -> Iterable[tuple[str, dict[str, str]]]:
    try:
        rows = json.loads(read_text(file).removeprefix("\ufeff"), parse_float=_Digits, parse_int=_Digits)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file}: expected JSON, got a file that breaks off or is not JSON ({error}).") from error
    for number, row in enumerate(rows, start=1):
        where = f"entry {number}"
        if not isinstance(row, dict):
            raise FileError(f"{file}, {where}: expected a table of one model's numbers, got {row!r:.40}.")
        yield where, {name: _cell(name, value, f"{file}, {where}, {name!r}") for name, value in row.items()}


class _Digits(str):
    """A number of a JSON file in its own digits."""

    __slots__ = ()


def _cell(name: str, value: Any, where: str) -> str:
    """Return a value of JSON as CSV has it; only models, seeds and files may be texts."""
    if value is None:
        return ""
    if isinstance(value, _Digits) or (isinstance(value, str) and name in (MODEL, SEED, SCORES)):
        return str(value).strip()
    raise FileError(f"{where}: expected a number or nothing, got {value!r:.40}.")
