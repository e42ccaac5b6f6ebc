"""What was measured of models in use: latency, throughput and memory, and what exporting gave."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featherpress.reports.reading import Fields, read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long one batch takes, over many of them; the percentiles are None where they were not recorded.

    Units: milliseconds.
    """

    median: float
    p10: float | None
    p90: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One model on one backend at one size.

    Units: `size` in pixels a side, `peak_memory` in bytes.
    """

    model: str
    backend: str
    size: int
    batch: int
    latency: Latency | None
    images_per_second: float | None
    peak_memory: int | None

    @property
    def setting(self) -> tuple[str, int, int]:
        """What has to be equal for two models to be compared."""
        return self.backend, self.size, self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One interleaved measurement of several models on one machine."""

    file: Path
    facts: Mapping[str, str]
    rounds: int | None
    timings: tuple[Timing, ...]
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One file that was written, and by how much at most its outputs differ from torch's; None where not compared."""

    kind: str
    precision: str
    size: int
    opset: int | None
    difference: float | None
    tolerance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The files of one export, and the AP of float32 and int8 where both were scored."""

    file: Path
    model: str
    files: tuple[Exported, ...]
    before: float | None
    after: float | None


def read_bench(file: Path) -> Bench | None:
    """Read a record of the schema featherpress.bench/1.

    Errors: `FileError` when it is broken.
    """
    fields = read_json(file, "bench")
    if fields is None:
        return None
    machine = fields.optional("environment", fields.child)
    values = machine.values if machine is not None else {}
    return Bench(
        file=file,
        facts={key: str(value) for key, value in values.items() if key != "schema" and _is_plain(value)},
        rounds=fields.optional("rounds", fields.integer),
        timings=tuple(_timing(row) for row in fields.children("results")),
        left_out=tuple(
            (row.text("backend"), row.text("reason")) for row in fields.optional("left_out", fields.children) or ()
        ),
    )


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _timing(fields: Fields) -> Timing:
    latency = fields.optional("latency_ms", fields.child)
    return Timing(
        model=fields.text("model"),
        backend=fields.text("backend"),
        size=fields.integer("size"),
        batch=fields.optional("batch", fields.integer) or 1,
        latency=None
        if latency is None
        else Latency(
            median=latency.number("median"),
            p10=latency.optional("p10", latency.number),
            p90=latency.optional("p90", latency.number),
        ),
        images_per_second=fields.optional("images_per_second", fields.number),
        peak_memory=fields.optional("peak_memory_bytes", fields.integer),
    )


def read_export(file: Path) -> Export | None:
    """Read a record of the schema featherpress.export/1.

    Errors: `FileError` when it is broken.
    """
    fields = read_json(file, "export")
    if fields is None:
        return None
    scored = fields.optional("evaluation", fields.child)
    before, after = (None if scored is None else scored.child(kind) for kind in ("float32", "int8"))
    return Export(
        file=file,
        model=fields.text("model"),
        files=tuple(_exported(row) for row in fields.children("files")),
        before=before.optional("ap", before.number) if before is not None else None,
        after=after.optional("ap", after.number) if after is not None else None,
    )


def _exported(fields: Fields) -> Exported:
    parity = fields.optional("parity", fields.child)
    shapes = parity.children("checked") if parity is not None else ()
    outputs = [shape.child("difference") for shape in shapes]
    differences = [output.number(name) for output in outputs for name in output.values]
    return Exported(
        kind=fields.text("kind"),
        precision=fields.optional("precision", fields.text) or "",
        size=fields.integer("bytes"),
        opset=fields.optional("opset", fields.integer),
        difference=max(differences, default=None),
        tolerance=parity.optional("tolerance", parity.number) if parity is not None else None,
    )
