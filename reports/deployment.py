"""What was measured of models in use: latency, throughput and memory, and what exporting gave."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featherpress.reports.reading import Fields, read_json

__all__ = ["Bench", "Latency", "Timing", "read_bench"]


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
