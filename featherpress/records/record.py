"""What every record is: frozen, written with its schema, and read with complaints that name the file and the place."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from featherpress import files
from featherpress.errors import FileError
from featherpress.files import write_json
from featherpress.validation import explain, first_finding


class Part(BaseModel):
    """A part of a record: frozen, its numbers finite; keys that are not known are passed over when it is read.

    Only what was given is written, so that a field with a default may be left out of a record.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """Return what is written, in plain lists and dictionaries."""
        return self.model_dump(mode="json", exclude_unset=True)


class Record(Part):
    """A record with a schema: the class that writes it reads it."""

    SCHEMA: ClassVar[str]
    _file: Path = PrivateAttr(default=Path())

    @property
    def file(self) -> Path:
        """The file it was read from."""
        return self._file

    @model_serializer(mode="wrap")
    def _with_schema(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"schema": self.SCHEMA, **write(self)}

    def save(self, path: Path) -> None:
        """Write the record as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record.

        Errors: `FileError`, in one sentence, for a file that cannot be read, is not JSON, has another schema, lacks a
        value or contradicts itself.
        """
        text = read_text(path)
        found = _schema_in(text, path)
        if found != cls.SCHEMA:
            raise FileError(f"{path}: expected the schema {cls.SCHEMA!r}, got {found!r}.")
        try:
            record = cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            first, more = first_finding(error)
            sentence = explain(first, first["loc"], known=())
            raise FileError(f"{path}: {sentence}{more}; write the record again.") from error
        record._file = path
        return record

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Read a record where there is one, None where there is no such file.

        Errors: `FileError` as `load`.
        """
        return cls.load(path) if path.exists() else None


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_bytes(file: Path) -> bytes:
    """Return a file's content.

    Errors: `FileError` when it cannot be read.
    """
    try:
        return files.read_bytes(file)
    except OSError as error:
        raise FileError(f"{file}: expected a readable file, got {type(error).__name__}.") from error


def read_text(file: Path) -> str:
    """Return a text file's content.

    Errors: `FileError` when it cannot be read or is not UTF-8.
    """
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: expected a UTF-8 text file, got {type(error).__name__}.") from error


def read_kind(
    file: Path, kinds: Collection[type[AnyRecord]], *, instead: Mapping[str, str] | None = None
) -> type[AnyRecord]:
    """Return which of some kinds of record a file is; `instead` says of other schemas what is wanted in their place.

    Errors: `FileError` when it is none of them.
    """
    schema = _schema_in(read_text(file), file) or ""
    for kind in kinds:
        if schema == kind.SCHEMA:
            return kind
    if instead and schema in instead:
        raise FileError(f"{file}: {instead[schema]}.")
    known = ", ".join(kind.SCHEMA for kind in kinds)
    raise FileError(f"{file}: expected a record of one of the schemas {known}, got {schema!r}.")


def _schema_in(text: str, file: Path) -> str | None:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file}: expected JSON, got a file that breaks off or is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise FileError(f"{file}: expected a JSON object, got {value!r:.60}.")
    schema = value.get("schema")
    return schema if isinstance(schema, str) else None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
