"""What the models are in use: latency, throughput, memory, and where they stand beside published detectors."""

from dataclasses import replace
from functools import partial

from featherpress.reports.blocks import Block, Paragraph, Remark, Table
from featherpress.reports.deployment import Bench, Timing
from featherpress.reports.figures import accuracy_against_latency, accuracy_against_parameters
from featherpress.reports.figures.landscape import Point
from featherpress.reports.formats import (
    DASH,
    change,
    fraction,
    integer,
    megabytes,
    milliseconds,
    per_cent,
    rate,
    scientific,
    size,
)
from featherpress.reports.published import Published, published_detectors
from featherpress.reports.runs import Run
from featherpress.reports.scores import mean_score, scores
from featherpress.reports.sections.chapters import EVALUATION, Chapter

PUBLISHED = "featherpress/reports/data/published.toml"

APART = (
    "The panels have scales of AP of their own, and no point of one may be held against a point of the other: "
    "published are APs on WIDER FACE's validation set, ours are on the data of this run"
)


def benchmarks(chapter: Chapter) -> list[Block]:
    """Give what benchmarks measured, model beside model."""
    if not chapter.inputs.benches:
        return []
    parts: list[Block] = [chapter.heading("Latency, throughput and memory")]
    for bench in chapter.inputs.benches:
        parts += _bench(bench)
    return parts


def unread(chapter: Chapter) -> list[Block]:
    """Say which records in the runs' folders could not be read, and why."""
    return [Remark(text=f"Left out, as it is broken: {reason}", kind="warning") for reason in chapter.inputs.unread]


def _bench(bench: Bench) -> list[Block]:
    header = ["model", "backend", "pixels a side", "batch", "median latency", "10th to 90th percentile"]
    header += ["images a second", "peak memory"]
    rows = [_timing_row(timing) for timing in bench.timings]
    title = "Latency, throughput and memory, all models in one interleaved run"
    table = Table(name="latency", title=title, header=header, rows=rows, align="llrrrrrr", records=[str(bench.file)])
    facts = ", ".join(f"{name} {value}" for name, value in bench.facts.items())
    rounds = f"{integer(bench.rounds)} rounds, the models by turns. " if bench.rounds is not None else ""
    text = f"{rounds}{facts}. " if facts else rounds
    left_out = [Remark(text=f"{backend} was left out: {reason}.") for backend, reason in bench.left_out]
    text += "Latency is the time one batch takes; times of other machines differ."
    return [table, Paragraph(text=text), *left_out]


def _timing_row(timing: Timing) -> list[str]:
    found = timing.latency
    spread = DASH
    if found is not None and found.p10 is not None and found.p90 is not None:
        spread = f"{milliseconds(found.p10)} to {milliseconds(found.p90)}"
    return [
        f"`{timing.model}`",
        timing.backend,
        integer(timing.size),
        integer(timing.batch),
        milliseconds(found.median) if found is not None else DASH,
        spread,
        rate(timing.images_per_second),
        megabytes(timing.peak_memory),
    ]


def exports(chapter: Chapter) -> list[Block]:
    """Give what was exported: sizes, how near torch, and what int8 costs in AP."""
    found = chapter.inputs.exports
    if not found:
        return []
    rows = [
        [
            f"`{export.model}`",
            file.kind,
            file.precision or DASH,
            size(file.size),
            integer(file.opset),
            scientific(file.difference),
            scientific(file.tolerance),
        ]
        for export in found
        for file in export.files
    ]
    header = ["model", "file", "precision", "size", "opset", "largest difference from torch", "allowed"]
    title = "Exported files, and how far their outputs are from torch's"
    records = [str(export.file) for export in found]
    parts: list[Block] = [
        chapter.heading("Exported files"),
        Table(name="exports", title=title, header=header, rows=rows, align="lllrrrr", records=records),
    ]
    for export in found:
        if export.before is not None and export.after is not None:
            gap = change(export.after - export.before)
            before, after = fraction(export.before), fraction(export.after)
            parts.append(Paragraph(text=f"AP of `{export.model}`: {before} in float32, {after} in int8, {gap}."))
    return parts


def landscape(chapter: Chapter) -> list[Block]:
    """Set our accuracy and cost beside published detectors, which stay on axes of their own."""
    run = chapter.run
    ours = _points(run)
    if not ours:
        return []
    published = published_detectors()
    data = next(e.data for role in run.roles for e in run.detectors(role))
    records = [*chapter.files([point.role for point in ours], EVALUATION), PUBLISHED]
    where = f"{APART} ({data.name}, {data.split}, {integer(data.images)} images)"
    parts: list[Block] = [
        chapter.heading("Beside published detectors"),
        chapter.figure(
            "accuracy_parameters",
            partial(accuracy_against_parameters, published, ours),
            alt="Accuracy against parameters, published detectors above and ours below",
            caption=f"Accuracy against parameters. Hollow: as published; filled: as measured here. {where}. "
            "Test scales move the AP by up to twenty points, so published points of two scales do not compare either.",
            records=records,
        ),
    ]
    timed, side = _timed(chapter, ours)
    if timed:
        parts.append(
            chapter.figure(
                "accuracy_latency",
                partial(accuracy_against_latency, published, timed),
                alt="Accuracy against latency, published detectors above and ours below",
                caption="Accuracy against latency. Hollow: as published, each on the machine its source used; filled: "
                f"as measured here, on one, for an image of {side} pixels a side, while the AP is of images as the "
                f"protocol scales them. {where}; nor do latencies of two machines compare.",
                records=[*records, *(str(bench.file) for bench in chapter.inputs.benches)],
            )
        )
    else:
        text = "No latency of an evaluated model was given: accuracy is not drawn against latency."
        parts.append(Remark(text=text))
    return [*parts, _published_table(published)]


def _points(run: Run) -> list[Point]:
    """Return the evaluated models at their parameters; teacher, control and student, or a lone model."""
    points = []
    for role in run.roles if not run.counted_only else ():
        found = run.detectors(role)
        mean = mean_score(scores(found))
        if mean is not None:
            points.append(Point(role=role, name=role, x=found[0].params, ap=mean))
    return points


def _timed(chapter: Chapter, points: list[Point]) -> tuple[list[Point], int]:
    """Return the same models at their latencies for single images at the largest size, and that size.

    The control is the student's model, as fast, and left out; so is int8, which finds something else than what was
    scored.
    """
    run = chapter.run
    models = {run.evaluations(point.role)[0].model: point for point in points if point.role != "control"}
    timings = [
        timing
        for bench in chapter.inputs.benches
        for timing in bench.timings
        if timing.model in models and timing.latency is not None and timing.batch == 1 and "int8" not in timing.backend
    ]
    side = max((timing.size for timing in timings), default=0)
    found = [
        replace(models[timing.model], name=timing.backend, x=timing.latency.median)
        for timing in timings
        if timing.size == side and timing.latency is not None
    ]
    return found, side


def _published_table(published: tuple[Published, ...]) -> Table:
    rows = [
        [
            row.name,
            integer(row.params),
            *(per_cent(value) for value in (row.easy, row.medium, row.hard, row.mean)),
            row.scale or DASH,
            milliseconds(row.latency_ms),
            row.machine or DASH,
            row.source,
        ]
        for row in published
    ]
    header = ["published detector", "parameters", "easy AP (%)", "medium AP (%)", "hard AP (%)", "their mean (%)"]
    header += ["test scale", "latency", "machine", "source"]
    title = "Published detectors on WIDER FACE's validation set; a dash: the source does not say"
    return Table(name="published", title=title, header=header, rows=rows, align="lrrrrrlrll", records=[PUBLISHED])
