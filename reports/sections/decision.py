"""The table to decide by: a row per model, with what it costs and how good it is, before anything else is said."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from featherpress.errors import FeatherpressError
from featherpress.records.audit import Audit
from featherpress.records.evaluation import Metric
from featherpress.reports.blocks import Block, Table, bold
from featherpress.reports.formats import DASH, fraction, integer, interval, milliseconds, percent, size
from featherpress.reports.metrics import mean_score, score, scores, with_unit
from featherpress.reports.runs import EVALUATION, Run, place, target
from featherpress.reports.sections.context import RunContext
from featherpress.reports.sections.costs import counted_in
from featherpress.reports.sources import Sources
from featherpress.verdicts import score_interval

CONFIDENCE = 0.95
# What was recorded as a score, and what comes out of the values that were saved, are equal but for rounding.
TOLERANCE = 5e-4
INTERVAL = f"{percent(CONFIDENCE)} interval"
UNKNOWN = Metric(key="score", name="score")

Value = TypeVar("Value", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What is known of one model: its costs, its scores, a seed each, and their interval as it is printed.

    `measured` is what the scores are of, `fed` what the MACs are of: where models differ in it, none is the best.
    """

    name: str
    model: str
    params: int | None
    macs: int | None = None
    fed: tuple[object, ...] = ()
    weights: int | None = None
    file_bytes: int | None = None
    scores: Sequence[float] = ()
    interval: str = DASH
    measured: tuple[object, ...] = ()
    counted: bool = False


def decision(context: RunContext, runs: Sequence[Run]) -> list[Block]:
    """Set all models of the runs side by side, the best of each column in bold; nothing where none is known."""
    several = len(runs) > 1
    runs = [run for run in runs if not run.in_a_loop]
    found = [row for run in runs for row in _rows(context, run, several=several)]
    exported = _exported(context, found)
    found += exported or ([] if found else _timed(context))
    # Of a model that was scored too, the row of its count says nothing more.
    scored = {(target(row.model), row.params) for row in found if row.scores}
    found = [row for row in found if row.scores or not row.counted or (target(row.model), row.params) not in scored]
    rows = [row for number, row in enumerate(found) if row not in found[:number]]
    metrics = {run.metric for run in runs if run.evaluated}
    metrics |= {export.scored.metric for export in context.sources.exports if export.scored}
    metric = metrics.pop() if len(metrics) == 1 else UNKNOWN
    alike = metric is not UNKNOWN and len({row.measured for row in rows if row.scores}) == 1
    same_input = len({row.fed for row in rows if row.macs is not None}) < 2
    setting, timed, together = _latencies(context, rows)
    stored = [row.file_bytes for row in rows]
    means = [mean_score(row.scores) for row in rows]
    columns = {
        "parameters": _cells([row.params for row in rows], integer, min),
        "MACs": _cells([row.macs for row in rows], integer, min if same_input else None),
        with_unit(metric): _cells(means, fraction, max if alike else None, [score(r.scores) for r in rows]),
        INTERVAL: [row.interval for row in rows],
        f"latency, {setting}": _cells(timed, _milliseconds, min if together else None),
        "file" if exported else "weight file": _cells(stored, size, min),
        "weights": _cells([row.weights for row in rows], size, min) if not any(stored) else [],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) - {DASH}}
    if not columns:
        return []
    return [
        Table(
            name="decision",
            title=_title(
                columns,
                len(rows),
                scored=any(row.scores for row in rows),
                alike=alike or not any(means),
                same_input=same_input,
                together=together,
            ),
            header=["model", *columns],
            rows=[[row.name, *cells] for row, *cells in zip(rows, *columns.values(), strict=True)],
            align="l" + "r" * len(columns),
            records=_records(context, runs, several=several, timed=any(timed), exported=bool(exported)),
        )
    ]


def _title(
    columns: Collection[str], models: int, *, scored: bool, alike: bool, same_input: bool, together: bool
) -> str:
    text = "What each model costs" + (" and scores" if scored else "")
    if INTERVAL in columns:
        text += ", with intervals over examples, and over seeds where there are several"
    text += "" if alike else "; scores are not of the same data and protocol"
    text += "" if same_input else "; MACs are not of the same input"
    text += "" if together else "; latencies are not of one benchmark, and do not compare"
    return text + ("; the best of each column in bold" if models > 1 else "")


def _rows(context: RunContext, run: Run, *, several: bool) -> list[_Row]:
    """Return the models of a run by role; a control costs what its student does."""
    audits = dict(run.audits)
    if run.scored_only:
        counted = {(target(each.model), each.total.params): each for each in _counted(context)}
        scored = {role: (target(of.model), of.params) for role, [of] in run.evaluated.items()}
        audits = {role: counted[of] for role, of in scored.items() if of in counted}
    roles = audits if run.counted_only else [r for r in run.roles if r in audits or r in run.evaluated]
    found = []
    for role in roles:
        evaluated = run.evaluated.get(role, ())
        audit = audits.get("student" if role == "control" else role)
        params = evaluated[0].params if evaluated else audit.total.params if audit else None
        model = evaluated[0].model if evaluated else audit.model if audit else DASH
        known = audit if audit and audit.total.params == params else None
        said = (
            []
            if run.counted_only
            else [*([role] if role != "model" else []), *([f"`{run.name}`"] if several and not run.scored_only else [])]
        )
        found.append(
            _Row(
                name=", ".join([f"`{model}`", *said]),
                model=model,
                params=params,
                macs=known.total.macs if known else None,
                fed=(*known.inputs,) if known else (),
                weights=known.total.bytes or None if known else None,
                file_bytes=evaluated[0].file_bytes if evaluated else None,
                scores=scores(evaluated),
                interval=_interval(context, run, role),
                measured=_measured(evaluated[0].model_dump()) if evaluated else (),
                counted=run.counted_only,
            )
        )
    return found


def _counted(context: RunContext) -> list[Audit]:
    return [audit for run in context.sources.runs if run.counted_only for _, audit in run.audits]


def _exported(context: RunContext, rows: Sequence[_Row]) -> list[_Row]:
    """Return a row for both precisions of each export that was scored; the float file is timed as its model."""
    exports = [export for export in context.sources.exports if export.scored]
    named = Counter(export.model for export in exports)
    found = []
    for export in exports:
        assert export.scored is not None
        of = (target(export.model), export.params)
        counted = next((row for row in rows if (target(row.model), row.params) == of), None)
        for kind, precision, scored in (
            ("onnx", "float32", export.scored.float32),
            ("int8", "int8", export.scored.int8),
        ):
            file = next((file for file in export.files if file.kind == kind), None)
            said = f", `{export.file}`" if named[export.model] > 1 else ""
            found.append(
                _Row(
                    name=f"`{export.model}`, {precision} file{said}",
                    model=export.model if kind == "onnx" else "",
                    params=export.params,
                    macs=counted.macs if counted else None,
                    fed=counted.fed if counted else (),
                    file_bytes=file.bytes if file else None,
                    scores=() if scored.score is None else (scored.score,),
                    measured=_measured(export.scored.model_dump()),
                )
            )
    return found


def _timed(context: RunContext) -> list[_Row]:
    """Return a row for each model of benchmarks that stand alone."""
    timings = [timing for bench in context.sources.benches for timing in bench.results]
    return [
        _Row(name=f"`{model}`", model=model, params=params)
        for model, params in {timing.model: timing.params for timing in timings}.items()
    ]


def _measured(record: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what a score is of, as far as the record of an evaluation or an export says it."""
    data, protocol = record.get("data") or {}, record.get("protocol") or {}
    of = [data.get(key) for key in ("name", "split", "images", "faces", "classes")]
    return *of, *(protocol.get(key) for key in ("iou", "test_scale", "flip", "score_threshold", "nms_iou", "top_k"))


def _interval(context: RunContext, run: Run, role: str) -> str:
    """Return the interval of a role's score from what was saved per example; a dash where that is not there."""
    mean = mean_score(scores(run.evaluated.get(role, ())))
    saved = {"teacher": run.path / place(role, EVALUATION), "control": run.path / "control"}.get(role, run.path)
    if run.scored_only:
        saved = run.evaluated[role][0].file
    if mean is None:
        return DASH
    try:
        side = context.sources.read_scores([saved], None)
        found = score_interval(side.scores, confidence=CONFIDENCE)
        shown = found.as_share() if side.bounded else found
    except FeatherpressError:
        return DASH
    if abs(found.difference - mean) > TOLERANCE:
        return DASH
    return interval(shown.low, shown.high, fraction)


def _milliseconds(time: float | None) -> str:
    return DASH if time is None else milliseconds(time)


def _latencies(context: RunContext, rows: Sequence[_Row]) -> tuple[str, list[float | None], bool]:
    """Return the setting that most of the models were timed in, the largest and fastest of such, and their times.

    They are those of one benchmark that timed all of these models, where there is one, and the last value says so.
    """
    times = _times(context.sources, rows)
    sums: dict[tuple[str, int, int], list[float]] = {}
    for found in times:
        for setting, each in found.items():
            sums.setdefault(setting, []).append(each)
    if not sums:
        return "", [None for _ in rows], True
    chosen = max(sums, key=lambda each: (len(sums[each]), each[1], each[2], -sum(sums[each])))
    backend, side, batch = chosen
    of = [found.get(chosen) for found in times]
    known = [place for place, time in enumerate(of) if time is not None]
    for bench in context.sources.benches:
        alone = [found.get(chosen) for found in _times(replace(context.sources, benches=[bench]), rows)]
        if all(alone[place] is not None for place in known):
            return f"{backend}, {side} px, batch {batch}", alone, True
    return f"{backend}, {side} px, batch {batch}", of, False


def _times(sources: Sources, rows: Sequence[_Row]) -> list[dict[tuple[str, int, int], float]]:
    return [sources.times_of(row.model, row.params) if row.model else {} for row in rows]


def _cells(
    values: Sequence[Value | None],
    show: Callable[[Value | None], str],
    best: Callable[[Sequence[Value]], Value] | None,
    texts: Sequence[str] = (),
) -> list[str]:
    """Return the texts of a column, in bold where a value is the best of several."""
    known = [value for value in values if value is not None]
    texts = list(texts) or [show(value) for value in values]
    if best is None or len(known) < 2:
        return list(texts)
    top = best(known)
    return [bold([text])[0] if value == top else text for text, value in zip(texts, values, strict=True)]


def _records(context: RunContext, runs: Sequence[Run], *, several: bool, timed: bool, exported: bool) -> list[str]:
    """Return the files that the table is from; of several runs their folders alone."""
    files: list[str] = []
    if not several and runs:
        files = [*counted_in(runs[0]), *context.files(runs[0].evaluated, EVALUATION)]
    for run in runs if several else ():
        scored = [str(each.file) for found in run.evaluated.values() for each in found]
        files += counted_in(run) if run.counted_only else scored if run.scored_only else [str(run.path)]
    files += [str(export.file) for export in context.sources.exports if exported and export.scored]
    return [*files, *(str(bench.file) for bench in context.sources.benches if timed)]
