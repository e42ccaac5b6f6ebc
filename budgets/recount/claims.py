"""A published table: which columns say what, in what units, to how many digits."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from statistics import median
from typing import Any

from featherpress.errors import FileError, UsageError
from featherpress.files import separator
from featherpress.models.factories import read_argument
from featherpress.records.record import read_bytes

#: What a column may say of a model, other than an argument of its factory.
FIELDS = ("name", "params", "macs", "input", "-")
_GUESSES = (
    ("name", ("model", "name", "weight", "weights")),
    ("params", ("params", "params_m", "param_count", "#params", "num_params", "parameters")),
    ("macs", ("macs", "gmacs", "gflops", "flops", "mmacs", "mflops", "multadds", "madds")),
    ("input", ("img_size", "input", "size", "resolution", "input_size", "image_size", "infer_img_size", "train_size")),
)
#: What headings say after a name, as Params (M).
_UNIT = re.compile(r"\s*\(\w+\)$")
_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, slots=True)
class Claim:
    """A number as it was published; it stands for all that round to its digits."""

    text: str

    def __post_init__(self) -> None:
        if not self.value.is_finite() or self.value < 0:
            raise InvalidOperation

    @property
    def value(self) -> Decimal:
        """The number."""
        return Decimal(self.text.replace(",", ""))

    def holds(self, amount: float, unit: "Unit") -> bool:
        """Tell whether an amount, in single parameters or MACs, is what was published, at its digits."""
        exponent = self.value.as_tuple().exponent
        assert isinstance(exponent, int)
        half = 0.5 * 10.0**exponent if exponent < 0 or self.value else 0.5
        return abs(unit.scale * amount - float(self.value)) <= half * (1 + 1e-9)


@dataclass(frozen=True, slots=True)
class Unit:
    """A column's unit: `prefix` as M or Gi, and how many of what was published make one parameter or MAC."""

    prefix: str = ""
    per_mac: int = 1

    @property
    def scale(self) -> float:
        """What turns single parameters or MACs into the column's numbers."""
        return self.per_mac / _SCALES[self.prefix]

    def name(self, quantity: str) -> str:
        """Name the unit of a quantity, `params` or `macs`."""
        counted = quantity if quantity == "params" else ("FLOPs, two for each MAC" if self.per_mac == 2 else "MACs")
        return f"{self.prefix} {counted}".strip()


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One published row: the line in its file, the model's name, its factory's arguments, its input, its claims."""

    line: int
    name: str
    settings: Mapping[str, Any]
    input: str
    claims: Mapping[str, Claim]


def read_claims(path: Path, mapping: Sequence[str] = ()) -> list[ClaimRow]:
    """Read a CSV of one model per row, with a heading; tabs may stand for its commas.

    `mapping` has texts `column=field`; a field is `name`, `params`, `macs`, `input`, `-` for a column that says nothing
    of these, or an argument of the factory. Unless mapped, usual headings are understood.

    Errors: `FileError` for a file that is no such table, with the line; `UsageError` for a mapping that does not fit.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: expected a CSV in UTF-8, got byte {error.start} that is not") from error
    table = csv.DictReader(io.StringIO(text), delimiter=separator(text))
    columns = list(table.fieldnames or ())
    fields = _fields(columns, mapping, path)
    if "name" not in fields.values() or not {"params", "macs"} & set(fields.values()):
        raise FileError(
            f"{path}: the heading has {', '.join(columns) or 'nothing'}; say which column holds the model's name and "
            "which its params or macs: --map column=name --map column=params --map column=macs"
        )
    rows = [_row(line, cells, fields, path) for line, cells in enumerate(table, start=2)]
    if not rows:
        raise FileError(f"{path} has a heading and no rows")
    return rows


def _fields(columns: Sequence[str], mapping: Sequence[str], path: Path) -> dict[str, str]:
    """Return what each column says, by its heading or as mapped."""
    fields = {}
    for field, headings in _GUESSES:
        known = [column for column in columns if _UNIT.sub("", column.strip().lower()) in headings]
        fields.update(dict.fromkeys(known[:1], field))
    for text in mapping:
        column, equals, field = text.partition("=")
        if column not in columns or not equals or not (field in FIELDS or field.isidentifier()):
            raise UsageError(
                f"--map is column=field, with one of {', '.join(columns)} and {', '.join(FIELDS)} or an argument of "
                f"the factory, got {text!r} for {path}"
            )
        fields = {known: each for known, each in fields.items() if each != field or field == "-"} | {column: field}
    return fields


def _row(line: int, cells: Mapping[str, str | None], fields: Mapping[str, str], path: Path) -> ClaimRow:
    if None in cells:
        raise FileError(f"{path}, line {line}: more cells than the heading has; a comma in a number needs quotes")
    found = {field: (cells.get(column) or "").strip() for column, field in fields.items()}
    claims = {}
    for quantity in ("params", "macs"):
        if found.get(quantity):
            try:
                claims[quantity] = Claim(found[quantity])
            except InvalidOperation:
                raise FileError(f"{path}, line {line}: {quantity} is {found[quantity][:40]!r}, not a number") from None
    settings = {
        field: read_argument(_in_small(value)) for field, value in found.items() if field not in FIELDS and value
    }
    return ClaimRow(line, found["name"], settings, found.get("input", ""), claims)


def _in_small(value: str) -> str:
    """Write TRUE and FALSE, as spreadsheets do, as arguments have them."""
    return value.lower() if value.lower() in {"true", "false"} else value


def find_unit(quantity: str, pairs: Iterable[tuple[Claim, int]]) -> Unit:
    """Find the unit in which a column's numbers are nearest to what was counted: the median of their ratios decides."""
    known = [(float(claim.value), amount) for claim, amount in pairs if claim.value and amount]
    units = [Unit(prefix, per) for per in ((1,) if quantity == "params" else (1, 2)) for prefix in _SCALES]

    def distance(unit: Unit) -> float:
        return median(abs(math.log(value / (unit.scale * amount))) for value, amount in known)

    return min(units, key=distance) if known else units[0]
