"""Budget files: TOML that people write, read strictly."""

import json
import re
import tomllib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from featherpress.budgets.auditing.toml_lines import find_line
from featherpress.budgets.counting.inputs import Inputs, make_inputs
from featherpress.errors import BudgetFileError, UsageError
from featherpress.files import read_bytes
from featherpress.validation import explain, first_finding, names_a_type

Amount = Annotated[int, Field(ge=0, le=2**63 - 1)]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Text = Annotated[str, Field(min_length=1)]
SHIPPED = Path(__file__).parents[1] / "data"
PERCENT = re.compile(r"\d{1,6}(\.\d{1,6})?%", re.ASCII)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Limit(_Strict):
    """Bounds of one quantity: `max`, `min`, `warn`, or a `target` with a `tolerance` (whole number or "1%")."""

    max: Amount | None = None
    min: Amount | None = None
    warn: Amount | None = None
    target: Amount | None = None
    tolerance: Amount | str | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.max is None and self.min is None and self.warn is None and self.target is None:
            raise ValueError("a limit needs at least one of max, min, warn or target")
        if self.target is not None and (self.max is not None or self.min is not None):
            raise ValueError("target already bounds both sides: use either target with a tolerance, or max and min")
        if self.tolerance is not None and self.target is None:
            raise ValueError("a tolerance needs the target that it belongs to")
        if isinstance(self.tolerance, str) and not PERCENT.fullmatch(self.tolerance):
            raise ValueError(f'tolerance is a whole number or a percentage such as "1%", got {self.tolerance[:40]!r}')
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min {self.min:,} is above max {self.max:,}")
        if self.warn is not None and self.high is not None and self.warn > self.high:
            raise ValueError(f"warn {self.warn:,} is above the upper limit {self.high:,}, it would never be seen")
        return self

    @property
    def slack(self) -> int:
        """The tolerance as a whole number, a percentage rounded down."""
        if isinstance(self.tolerance, str):
            return int((self.target or 0) * Fraction(self.tolerance.removesuffix("%")) / 100)
        return self.tolerance or 0

    @property
    def high(self) -> int | None:
        """The largest amount within the limit, None for any."""
        return self.max if self.target is None else self.target + self.slack

    @property
    def low(self) -> int | None:
        """The smallest amount within the limit, None for any."""
        return self.min if self.target is None else max(self.target - self.slack, 0)

    @property
    def reference(self) -> int | None:
        """The one number to compare with: the target, else max, warn or min."""
        return next((n for n in (self.target, self.max, self.warn, self.min) if n is not None), None)


class Limits(_Strict):
    """What a model, or a part of it, may cost."""

    params: Limit | None = None
    macs: Limit | None = None
    bytes: Limit | None = None
    activations: Limit | None = None


class TotalLimits(Limits):
    """What a whole model may cost; its peak of activation memory and its exported file are no sums of its parts'."""

    peak: Limit | None = None
    exported: Limit | None = None


class Component(Limits):
    """A part of the model: the modules whose paths match a pattern, with everything below them."""

    modules: Annotated[list[Text], Field(min_length=1)] | None = None


class Claim(_Strict):
    """What a document says of the total, of a component, or of several together, and where it says so.

    A number that was printed as 502K is `rounded_to` 1,000: what rounds to it bears it out.
    """

    component: Text | Annotated[list[Text], Field(min_length=1)]
    source: Text
    params: Amount | None = None
    macs: Amount | None = None
    rounded_to: Annotated[int, Field(ge=1, le=2**63 - 1)] = 1
    note: str = ""

    @model_validator(mode="after")
    def _claims_something(self) -> Self:
        if self.params is None and self.macs is None:
            raise ValueError("a claim needs params or macs")
        return self

    @property
    def components(self) -> tuple[str, ...]:
        """The names whose sum is claimed."""
        return (self.component,) if isinstance(self.component, str) else tuple(self.component)


class Accuracy(_Strict):
    """What a model must score: no worse than a baseline by more than a margin, in the metric's own unit.

    `baseline` is a file or folder, looked for beside the budget file, as `featherpress gate` takes them.
    """

    metric: Text
    baseline: Text
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Budget(_Strict):
    """A budget file: limits for the model and its components on one input, in one convention.

    `input` is the shape of one tensor, or what `--input` takes, as a text or a list of texts.
    """

    model: Text
    input: Annotated[list[Size], Field(min_length=1, max_length=8)] | Text | Annotated[list[Text], Field(min_length=1)]
    convention: Literal["core-macs"] = "core-macs"
    total: TotalLimits = TotalLimits()
    components: dict[Text, Component] = {}
    claims: list[Claim] = []
    accuracy: Accuracy | None = None
    _file: str = PrivateAttr(default="(no file)")

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if "total" in self.components:
            raise ValueError('a component cannot be called "total": limits of the whole model stand in [total]')
        return self

    @model_validator(mode="after")
    def _inputs_can_be_made(self) -> Self:
        try:
            self.make_inputs()
        except UsageError as error:
            raise ValueError(str(error).replace("--input", "input")) from error
        return self

    def make_inputs(self, kind: torch.dtype = torch.float32) -> Inputs:
        """Make zeros of the file's input, of `kind` where it says no type."""
        if isinstance(self.input, str):
            return make_inputs([self.input], kind=kind)
        sizes = [size for size in self.input if isinstance(size, int)]
        texts = ["x".join(map(str, sizes)) + ":"] if sizes else [str(text) for text in self.input]
        return make_inputs(texts, kind=kind)

    @property
    def file(self) -> str:
        """Where the budget was read from, for messages."""
        return self._file


def budget_schema() -> str:
    """Write the JSON Schema of budget files, for editors that complete and check TOML by one."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Budget.model_json_schema()
    return json.dumps(schema, indent=2) + "\n"


def list_budgets() -> list[str]:
    """Name the budgets that are shipped."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_budget(name_or_path: str | Path) -> Budget:
    """Read a budget: a shipped one by name, any other by its path.

    Errors: BudgetFileError, one sentence with file and line, whatever is wrong.
    """
    shipped = list_budgets()
    path = SHIPPED / f"{name_or_path}.toml" if name_or_path in shipped else Path(name_or_path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BudgetFileError(f"{path}: expected a TOML file in UTF-8, got byte {error.start} that is not") from error
    except FileNotFoundError as error:
        raise BudgetFileError(f"no budget file {path}: give a path, or one of {', '.join(shipped)}") from error
    except (OSError, ValueError) as error:
        raise BudgetFileError(f"cannot read budget file {str(path)!r}: {error}") from error
    return parse_budget(text, file=_shown(path))


def parse_budget(text: str, *, file: str) -> Budget:
    """Read a budget from its text; `file` is its name in messages.

    Errors: BudgetFileError.
    """
    try:
        budget = Budget.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise BudgetFileError(_explain(error, text, file)) from error
    except tomllib.TOMLDecodeError as error:
        raise BudgetFileError(f"{file} is not valid TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BudgetFileError(f"{file} cannot be read as a budget: {str(error)[:200]}") from error
    budget._file = file
    return budget


def _shown(path: Path) -> str:
    """Shorten a path that lies under the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(path)


def _explain(error: ValidationError, text: str, file: str) -> str:
    """Turn the first of pydantic's findings into a sentence with its line."""
    first, more = first_finding(error)
    place = [part for part in first["loc"] if not names_a_type(part)]
    line = find_line(text, place)
    where = f"{file}, line {line}" if line else file
    if first["type"] == "extra_forbidden" and len(place) > 1 and place[-1] in {"model", "input", "convention"}:
        return f"{where}: {place[-1]!r} stands in [{place[0]}]: it goes to the top of the file, above all tables{more}"
    return f"{where}: {explain(first, place, known=_keys(place[:-1]))}{more}"


def _keys(parents: Sequence[int | str]) -> list[str]:
    """List the keys that are known at a place in the file."""
    if parents and parents[-1] in TotalLimits.model_fields:
        return list(Limit.model_fields)
    tables: dict[str, type[BaseModel]] = {
        "total": TotalLimits,
        "components": Component,
        "claims": Claim,
        "accuracy": Accuracy,
    }
    model = tables.get(str(parents[0]), Budget) if parents else Budget
    return list(model.model_fields)
