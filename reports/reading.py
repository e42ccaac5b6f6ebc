"""Reading JSON that others saved, with complaints that name the file and the place."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from featherpress.errors import FileError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """One JSON object and where it stands; every getter checks the type of what it returns.

    `kind` is the record's, as its schema names it; only a whole record has one.

    Errors: `FileError` naming the file and the field when a value is missing or of another type.
    """

    values: Mapping[str, object]
    file: Path
    place: str = ""
    kind: str = ""

    def text(self, key: str) -> str:
        """Return the string under `key`."""
        value = self.values.get(key)
        return value if isinstance(value, str) else self._refuse(key, "a text")

    def integer(self, key: str) -> int:
        """Return the whole number under `key`."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else self._refuse(key, "a whole number")

    def number(self, key: str) -> float:
        """Return the finite number under `key`."""
        value = self.values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        return self._refuse(key, "a finite number")

    def flag(self, key: str) -> bool:
        """Return the truth value under `key`."""
        value = self.values.get(key)
        return value if isinstance(value, bool) else self._refuse(key, "true or false")

    def numbers(self, key: str, length: int | None = None) -> tuple[float, ...]:
        """Return the list of finite numbers under `key`, of `length` numbers where that is fixed."""
        items = self._items(key)
        if length is not None and len(items.values) != length:
            self._refuse(key, f"a list of {length} numbers")
        return tuple(items.number(index) for index in items.values)

    def integers(self, key: str) -> tuple[int, ...]:
        """Return the list of whole numbers under `key`."""
        items = self._items(key)
        return tuple(items.integer(index) for index in items.values)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the list of strings under `key`."""
        items = self._items(key)
        return tuple(items.text(index) for index in items.values)

    def child(self, key: str) -> "Fields":
        """Return the object under `key`."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            self._refuse(key, "an object")
        return Fields(values=value, file=self.file, place=self._name(key))

    def children(self, key: str) -> tuple["Fields", ...]:
        """Return the list of objects under `key`."""
        items = self._items(key)
        return tuple(items.child(index) for index in items.values)

    def optional(self, key: str, getter: Callable[[str], T]) -> T | None:
        """Return what `getter` finds under `key`, or None when the key is absent or null."""
        return None if self.values.get(key) is None else getter(key)

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def _items(self, key: str) -> "Fields":
        """Return the list under `key` as an object keyed by its positions."""
        value = self.values.get(key)
        if not isinstance(value, list):
            self._refuse(key, "a list")
        values = {str(index): item for index, item in enumerate(value)}
        return Fields(values=values, file=self.file, place=self._name(key))

    def _refuse(self, key: str, expected: str) -> NoReturn:
        got = _brief(self.values[key]) if key in self.values else "nothing"
        raise FileError(f"{self.file}: expected {expected} at `{self._name(key)}`, got {got}; write the record again.")


def read_bytes(file: Path) -> bytes:
    """Return a file's content.

    Errors: `FileError` when it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise FileError(f"{file}: expected a readable file, got {type(error).__name__}.") from error


def read_text(file: Path) -> str:
    """Return a text file's content.

    Errors: `FileError` when it cannot be read or is not UTF-8.
    """
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: expected a UTF-8 text file, got {type(error).__name__}.") from error


def read_json(file: Path, *kinds: str) -> Fields | None:
    """Return the record in `file`, or None when there is no such file.

    Errors: `FileError` when it is not JSON or its schema is `featherpress.<kind>/1` for none of the kinds.
    """
    if not file.exists():
        return None
    value = _read_object(file)
    schemas = {f"featherpress.{kind}/1": kind for kind in kinds}
    named = value.get("schema")
    if not isinstance(named, str) or named not in schemas:
        raise FileError(f"{file}: expected the schema {' or '.join(map(repr, schemas))}, got {_brief(named)}.")
    return Fields(values=value, file=file, kind=schemas[named])


def read_schema(file: Path) -> str:
    """Return the schema that a record names, empty when it names none.

    Errors: `FileError` when it is not JSON.
    """
    schema = _read_object(file).get("schema")
    return schema if isinstance(schema, str) else ""


def _read_object(file: Path) -> dict[str, object]:
    try:
        value = json.loads(read_text(file), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file}: expected JSON, got a file that breaks off or is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise FileError(f"{file}: expected a JSON object, got {_brief(value)}.")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _brief(value: object) -> str:
    """Return a value as an error message shows it, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
