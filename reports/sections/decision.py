"""The table to decide by: a row per model, with what it costs and how good it is, before anything else is said."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from featherpress.errors import FeatherpressError
from featherpress.records.evaluation import Metric
from featherpress.reports.blocks import Block, Table, bold
from featherpress.reports.formats import DASH, fraction, integer, interval, milliseconds, percent, size
from featherpress.reports.metrics import mean_score, score, scores, with_unit
from featherpress.reports.runs import EVALUATION, Run, place
from featherpress.reports.sections.context import RunContext
from featherpress.reports.sections.costs import counted_in
from featherpress.verdicts import score_interval

CONFIDENCE = 0.95
# What was recorded as a score, and what comes out of the values that were saved, are equal but for rounding.
TOLERANCE = 5e-4
INTERVAL = f"{percent(CONFIDENCE)} interval"
UNKNOWN = Metric(key="score", name="score")

Value = TypeVar("Value", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What is known of one model: its costs, its scores, a seed each, and their interval as it is printed."""

    name: str
    model: str
    params: int | None
    macs: int | None
    weights: int | None
    file_bytes: int | None
    scores: Sequence[float]
    interval: str


def decision(context: RunContext, runs: Sequence[Run]) -> list[Block]:
    """Set all models of the runs side by side, the best of each column in bold; nothing where none is known."""
    runs = [run for run in runs if not run.in_a_loop]
    found = [row for run in runs for row in _rows(context, run, several=len(runs) > 1)]
    rows = [*{row.name: row for row in found}.values()]
    metrics = {run.metric for run in runs if run.evaluated}
    metric = metrics.pop() if len(metrics) == 1 else UNKNOWN
    setting, timed = _latencies(context, [row.model for row in rows])
    stored = [row.file_bytes for row in rows]
    means = [mean_score(row.scores) for row in rows]
    columns = {
        "parameters": _cells([row.params for row in rows], integer, min),
        "MACs": _cells([row.macs for row in rows], integer, min),
        with_unit(metric): _cells(means, fraction, None if metric is UNKNOWN else max, [score(r.scores) for r in rows]),
        INTERVAL: [row.interval for row in rows],
        f"latency, {setting}": _cells(timed, lambda ms: DASH if ms is None else milliseconds(ms), min),
        "weight file": _cells(stored, size, min),
        "weights": _cells([row.weights for row in rows], size, min) if not any(stored) else [],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) - {DASH}}
    if not columns:
        return []
    return [
        Table(
            name="decision",
            title=_title(columns, len(rows), scored=any(row.scores for row in rows)),
            header=["model", *columns],
            rows=[[row.name, *cells] for row, *cells in zip(rows, *columns.values(), strict=True)],
            align="l" + "r" * len(columns),
            records=_records(context, runs, timed=any(timed)),
        )
    ]


def _title(columns: Collection[str], models: int, *, scored: bool) -> str:
    text = "What each model costs" + (" and scores" if scored else "")
    if INTERVAL in columns:
        text += ", with intervals over examples, and over seeds where there are several"
    return text + ("; the best of each column in bold" if models > 1 else "")


def _rows(context: RunContext, run: Run, *, several: bool) -> list[_Row]:
    """Return the models of a run by role; a control costs what its student does."""
    audits = dict(run.audits)
    roles = audits if run.counted_only else [r for r in run.roles if r in audits or r in run.evaluated]
    found = []
    for role in roles:
        evaluated = run.evaluated.get(role, ())
        audit = audits.get("student" if role == "control" else role)
        params = evaluated[0].params if evaluated else audit.total.params if audit else None
        model = evaluated[0].model if evaluated else audit.model if audit else DASH
        known = audit if audit and audit.total.params == params else None
        said = (
            [] if run.counted_only else [*([role] if role != "model" else []), *([f"`{run.name}`"] if several else [])]
        )
        found.append(
            _Row(
                name=", ".join([f"`{model}`", *said]),
                model=model,
                params=params,
                macs=known.total.macs if known else None,
                weights=known.total.bytes or None if known else None,
                file_bytes=evaluated[0].file_bytes if evaluated else None,
                scores=scores(evaluated),
                interval=_interval(context, run, role),
            )
        )
    return found


def _interval(context: RunContext, run: Run, role: str) -> str:
    """Return the interval of a role's score from what was saved per example; a dash where that is not there."""
    mean = mean_score(scores(run.evaluated.get(role, ())))
    saved = {"teacher": run.path / place(role, EVALUATION), "control": run.path / "control"}.get(role, run.path)
    if mean is None:
        return DASH
    try:
        side = context.sources.read_scores([saved], None)
        found = score_interval(side.scores, confidence=CONFIDENCE)
    except FeatherpressError:
        return DASH
    if abs(found.difference - mean) > TOLERANCE:
        return DASH
    low, high = (max(found.low, 0.0), min(found.high, 1.0)) if side.bounded else (found.low, found.high)
    return interval(low, high, fraction)


def _latencies(context: RunContext, models: Sequence[str]) -> tuple[str, list[float | None]]:
    """Return the setting that most of the models were timed in, the largest and fastest of such, and their times."""
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    for bench in context.sources.benches:
        for timing in bench.results:
            if timing.model in models:
                found.setdefault(timing.setting, {}).setdefault(timing.model, timing.latency_ms.median)
    if not found:
        return "", [None for _ in models]
    counts = Counter({setting: len(times) for setting, times in found.items()})
    chosen = max(found, key=lambda each: (counts[each], each[1], each[2], -sum(found[each].values())))
    backend, side, batch = chosen
    return f"{backend}, {side} px, batch {batch}", [found[chosen].get(model) for model in models]


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


def _records(context: RunContext, runs: Sequence[Run], *, timed: bool) -> list[str]:
    """Return the files that the table is from; of several runs their folders alone."""
    if len(runs) > 1:
        files = [str(each) for run in runs for each in ([*counted_in(run)] if run.counted_only else [run.path])]
    else:
        files = [*counted_in(runs[0]), *context.files(runs[0].evaluated, EVALUATION)]
    return [*files, *(str(bench.file) for bench in context.sources.benches if timed)]
