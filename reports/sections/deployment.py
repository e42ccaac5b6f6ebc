"""What the models are in use: latency, throughput and memory, and what was exported."""

from featherpress.records.deployment import Bench
from featherpress.reports.blocks import Block, Paragraph, Remark, Table
from featherpress.reports.formats import (
    DASH,
    change,
    fraction,
    integer,
    megabytes,
    milliseconds,
    scientific,
    size,
)
from featherpress.reports.metrics import title as metric_title
from featherpress.reports.sections.context import RunContext


def benchmarks(context: RunContext) -> list[Block]:
    """Give what benchmarks measured, model beside model."""
    if not context.sources.benches:
        return []
    parts: list[Block] = [context.heading("Latency, throughput and memory")]
    for bench in context.sources.benches:
        parts += _bench(bench)
    return parts


def unread(context: RunContext) -> list[Block]:
    """Say which records in the runs' folders could not be read, and why."""
    return [Remark(text=f"Left out, as it is broken: {reason}", kind="warning") for reason in context.sources.unread]


def _bench(bench: Bench) -> list[Block]:
    header = ["model", "backend", "pixels a side", "batch", "median latency", "10th to 90th percentile"]
    header += ["images a second", "peak memory"]
    rows = [
        [
            f"`{timing.model}`",
            timing.backend,
            integer(timing.size),
            integer(timing.batch),
            milliseconds(timing.latency_ms.median),
            f"{milliseconds(timing.latency_ms.p10)} to {milliseconds(timing.latency_ms.p90)}",
            f"{timing.images_per_second:,.1f}",
            megabytes(timing.peak_memory_bytes),
        ]
        for timing in bench.results
    ]
    title = "Latency, throughput and memory, all models in one interleaved run"
    table = Table(name="latency", title=title, header=header, rows=rows, align="llrrrrrr", records=[str(bench.file)])
    facts = ", ".join(f"{name} {value}" for name, value in bench.environment.items())
    text = (
        f"{integer(bench.rounds)} rounds, the models by turns. {facts}. Latency is the time one batch takes; times of "
        "other machines differ."
    )
    left_out = [Remark(text=f"{each.backend} was left out: {each.reason}.") for each in bench.left_out]
    plan = [Remark(text=f"{bench.planned}.")] if bench.planned else []
    return [table, Paragraph(text=text), *plan, *left_out]


def exports(context: RunContext) -> list[Block]:
    """Give what was exported: sizes, how near torch, and what int8 costs in their metric."""
    found = context.sources.exports
    if not found:
        return []
    rows = [
        [
            f"`{export.model}`",
            file.kind,
            file.precision or DASH,
            size(file.bytes),
            integer(file.opset),
            scientific(file.parity.largest if file.parity else None),
            scientific(file.parity.tolerance if file.parity else None),
        ]
        for export in found
        for file in export.files
    ]
    header = ["model", "file", "precision", "size", "opset", "largest difference from torch", "allowed"]
    title = "Exported files, and how far their outputs are from torch's"
    records = [str(export.file) for export in found]
    parts: list[Block] = [
        context.heading("Exported files"),
        Table(name="exports", title=title, header=header, rows=rows, align="lllrrrr", records=records),
    ]
    for export in found:
        scored = export.scored
        if scored is not None:
            before, after = scored.float32.score or 0, scored.int8.score or 0
            scores = f"{fraction(before)} in float32, {fraction(after)} in int8, {change(after - before)}"
            said = f"{metric_title(scored.metric)} of `{export.model}`: {scores}. {scored.gate or ''}".strip()
            parts.append(Paragraph(text=said if said.endswith(".") else f"{said}."))
    return parts
