"""What models cost: audits, the audits of one run, and what was pinned of one."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from featherpress.records.record import Part, Record


class Check(Part):
    """One quantity against its limit; `beyond` is by how much it breaks the limit or passes the warning.

    Units: those of `quantity`; a limit that is None leaves its side open.
    """

    quantity: str
    actual: int
    verdict: str
    beyond: int = 0
    low: int | None = None
    high: int | None = None
    target: int | None = None
    warn: int | None = None


class Amounts(Part):
    """What a pinned component cost."""

    params: int = Field(ge=0)
    macs: int = Field(ge=0)
    bytes: int = Field(ge=0)


class Component(Part):
    """One row of an audit: what a part costs, and how it stands against its limits.

    Units: parameters, multiply-accumulates and FLOPs, elements, bytes; `share` is a fraction of all parameters;
    `types` are elements by type, of weights alone; `shapes` of
    what it takes and returns, as 1x3x8x8.
    """

    name: str
    params: int = Field(ge=0)
    share: float = 0.0
    macs: int = Field(ge=0)
    flops: int = 0
    bytes: int = Field(default=0, ge=0)
    elementwise: int = 0
    activations: int = 0
    trainable: int = 0
    frozen: int = 0
    unused: int = 0
    types: dict[str, int] | None = None
    shapes: tuple[str, str] | None = None
    verdict: str = "unchecked"
    target: int | None = None
    difference: int | None = None
    checks: tuple[Check, ...] = ()


class Claim(Part):
    """What a document says of a component, `claimed`, beside what was counted, `ours`."""

    component: str
    quantity: str = "params"
    claimed: int
    ours: int
    difference: int = 0
    verdict: str = ""
    source: str | None = None
    note: str | None = None


class Audit(Record):
    """The costs of one model; `components` sum to `total`, exactly.

    `signature` is what it was fed, as `--input` takes it, and `input_source` says where that is from; `baseline` is the
    file that it was held to. `settings` are what it was built from, empty where the record does not say.
    """

    SCHEMA: ClassVar[str] = "featherpress.audit/1"

    model: str
    input: tuple[int | tuple[int, ...], ...]
    signature: tuple[str, ...] = ()
    input_source: str = ""
    convention: str = ""
    method: str = ""
    verdict: str
    total: Component
    components: tuple[Component, ...]
    claims: tuple[Claim, ...] = ()
    baseline: str = ""
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    memory_convention: str = ""
    memory: dict[str, Any] | None = None
    shared: tuple[dict[str, Any], ...] = ()
    unused: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all inputs; one alone is written without a list around it."""
        shapes = tuple(shape for shape in self.input if isinstance(shape, tuple))
        return shapes or (tuple(side for side in self.input if isinstance(side, int)),)

    @model_validator(mode="after")
    def _sum_up(self) -> Self:
        """Refuse components that do not sum to the total."""
        for unit in ("params", "macs"):
            whole, parts = getattr(self.total, unit), sum(getattr(row, unit) for row in self.components)
            if whole != parts:
                raise ValueError(f"expected the components' {unit} to sum to the total {whole:,}, got {parts:,}")
        return self


class WeightsRow(Part):
    """What a part of a file of weights holds."""

    name: str
    params: int
    bytes: int = 0
    types: dict[str, int] | None = None


class Weights(Record):
    """An audit of a file of weights: all of an audit's keys but the work, which is null."""

    SCHEMA: ClassVar[str] = "featherpress.weights/1"

    model: str
    total: WeightsRow
    components: tuple[WeightsRow, ...]


class Pin(Record):
    """What a model cost when it was pinned: the part of an audit that a baseline holds."""

    SCHEMA: ClassVar[str] = "featherpress.pin/1"

    model: str
    input: tuple[tuple[int, ...], ...]
    signature: tuple[str, ...] = ()
    convention: str
    total: Amounts
    components: dict[str, Amounts]


class Adapters(Part):
    """The weights that distillation trains and that belong to no model."""

    params: int


class Budget(Record):
    """The audits of a run's student and teachers, and of what a pruned student was before; its adapters."""

    SCHEMA: ClassVar[str] = "featherpress.budget/1"

    teacher: Audit | None = None
    original: Audit | None = None
    student: Audit
    adapters: Adapters | None = None


class Model(Record):
    """What `featherpress models show NAME --json` prints, as far as others read it."""

    SCHEMA: ClassVar[str] = "featherpress.model/1"

    name: str
    settings: dict[str, Any]
