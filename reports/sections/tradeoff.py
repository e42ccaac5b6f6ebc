"""Numbers measured elsewhere, beside what was counted and timed here."""

import statistics
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

from featherpress.errors import UsageError
from featherpress.reports.blocks import Block, Heading, Paragraph, Remark, Table
from featherpress.reports.figures.tradeoff import score_against_cost
from featherpress.reports.formats import DASH, MINUS, change, integer, interval, milliseconds, percent
from featherpress.reports.given import SCORES, Given, GivenModel, ReadScores
from featherpress.reports.runs import target
from featherpress.reports.sections.context import RunContext
from featherpress.verdicts import MIN_EXAMPLES, Interval, paired_interval
from featherpress.verdicts.tables import Side

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
CONFIDENCE = 0.95

Costs = Mapping[str, Mapping[str, float]]


def as_given(context: RunContext) -> list[Block]:
    """Set what was measured elsewhere beside what was counted and timed, a table and a figure a file."""
    blocks: list[Block] = []
    for given in context.sources.given:
        blocks += [Heading(text=f"As given in `{given.file.name}`", level=2), *_file(context, given)]
    return blocks


def names(context: RunContext) -> list[str]:
    """Return the models that are spoken of, each once."""
    return [*dict.fromkeys(model.name for given in context.sources.given for model in given.models)]


def _file(context: RunContext, given: Given) -> list[Block]:
    costs, records = _costs(context)
    differences = _differences(given, context.sources.read_scores)
    first = next((model.name for model in given.models if model.scores), "")
    header = ["model", *(["seeds"] if _seeded(given) else [])]
    header += [f"{column}, as given" for column in given.columns]
    header += [f"score less that of {_code(first)}", f"its {percent(CONFIDENCE)} interval"] if differences else []
    header += costs
    table = Table(
        name="given",
        title="Numbers as given"
        + (", beside what was counted and timed here; the least of each cost in bold" if costs else ""),
        header=header,
        rows=[_row(model, given, costs, differences) for model in given.models],
        align="l" + "r" * (len(header) - 1),
        records=[*given.records, *records],
    )
    notes = [f"A number over several seeds is their mean {PLUS_MINUS} standard deviation."] if _seeded(given) else []
    notes += [_interval_note(first, differences)] if differences else []
    return [
        table,
        *([Paragraph(text=" ".join(notes))] if notes else []),
        *(Remark(text=text) for text in _missing(given, costs, _alike(context))),
        *_figures(context, given, costs, records),
    ]


def _seeded(given: Given) -> bool:
    return any(len(model.seeds) > 1 for model in given.models)


def _code(name: str) -> str:
    return f"`{name.replace('`', '')}`"


def _row(model: GivenModel, given: Given, costs: Costs, differences: Mapping[str, Interval | None]) -> list[str]:
    row = [_code(model.name), *([integer(len(model.seeds))] if _seeded(given) else [])]
    row += [_number(model, column) for column in given.columns]
    if differences:
        found = differences.get(model.name)
        row += [change(found.difference), interval(found.low, found.high)] if found else [DASH, DASH]
    return [*row, *(_cost(name, found, model.name) for name, found in costs.items())]


def _cost(name: str, found: Mapping[str, float], model: str) -> str:
    """Return what a model costs, in bold where no other costs less."""
    if model not in found:
        return DASH
    text = milliseconds(found[model]) if name.startswith("latency") else integer(int(found[model]))
    return f"**{text}**" if len(found) > 1 and found[model] == min(found.values()) else text


def _number(model: GivenModel, column: str) -> str:
    """Return a number with the digits it was given with; the mean of several with one more."""
    values, decimals = model.numbers(column), model.decimals(column)
    if not values:
        return DASH
    text = f"{Decimal(next(filter(None, model.values[column]))):,f}"
    if len(values) > 1:
        text = f"{statistics.fmean(values):,.{decimals + 1}f}"
        text += f" {PLUS_MINUS} {statistics.stdev(values):,.{decimals + 1}f}"
    part = f" ({len(values)} of {len(model.seeds)} seeds)" if len(values) < len(model.seeds) else ""
    return f"{text.replace('-', MINUS)}{part}"


def _alike(context: RunContext) -> list[str]:
    """Return the names that models of several sizes have, so that numbers of one of them cannot be told."""
    sizes: dict[str, set[int]] = {}
    for audit in (audit for run in context.sources.runs for _, audit in run.audits):
        sizes.setdefault(target(audit.model), set()).add(audit.total.params)
    return [name for name in names(context) if len(sizes.get(name, ())) > 1]


def _costs(context: RunContext) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return what is known of the costs by name, then by model, and the files it stands in."""
    sources = context.sources
    spoken = set(names(context)) - set(_alike(context))
    audits = {audit.model: audit for run in sources.runs for _, audit in run.audits if audit.model in spoken}
    costs: dict[str, dict[str, float]] = {
        "parameters": {name: audit.total.params for name, audit in audits.items()},
        "MACs": {name: audit.total.macs for name, audit in audits.items()},
    }
    records = [str(audit.file if audit.file.name else run.path) for run in sources.runs for _, audit in run.audits]
    timed: dict[tuple[str, int, int], set[Path]] = {}
    for bench in sources.benches:
        for timing in bench.results:
            timed.setdefault(timing.setting, set()).add(bench.file)
    for bench in sources.benches:
        for timing in bench.results:
            counted = audits.get(timing.model)
            if timing.model in spoken and (counted is None or timing.params in (None, counted.total.params)):
                backend, side, batch = timing.setting
                name = f"latency, {backend}, {side} px, batch {batch}"
                # Times of several benchmarks do not compare.
                name += f", `{bench.file}`" if len(timed[timing.setting]) > 1 else ""
                costs.setdefault(name, {})[timing.model] = timing.latency_ms.median
                records.append(str(bench.file))
    return {name: found for name, found in costs.items() if found}, [*dict.fromkeys(records)] if costs else []


def _differences(given: Given, read: ReadScores) -> dict[str, Interval | None]:
    """Return how each model's mean score per example differs from that of the first that has such scores."""
    scored = [model for model in given.models if model.scores]
    if len(scored) < 2:
        return {}
    first = read(scored[0].scores, None)
    sides: dict[str, Side] = {model.name: read(model.scores, first.examples) for model in scored[1:]}
    try:
        found: dict[str, Interval | None] = {
            name: paired_interval(candidate=side.scores, baseline=first.scores, confidence=CONFIDENCE)
            for name, side in sides.items()
        }
    except UsageError as error:
        raise UsageError(f"{given.file}: {error}") from error
    return found


def _interval_note(first: str, differences: Mapping[str, Interval | None]) -> str:
    found = [each for each in differences.values() if each]
    examples = found[0].examples
    over = f"{integer(examples)} examples" + (" and seeds" if any("seeds" in each.covers for each in found) else "")
    text = (
        f"Scores per example are the files in the column `{SCORES}`; their difference to {_code(first)} is paired, its "
        f"interval over {over}. One that holds 0 shows no difference."
    )
    if examples < MIN_EXAMPLES:
        text += f" Fewer than {MIN_EXAMPLES} examples decide nothing."
    if not any("seeds" in each.covers for each in found):
        text += " It is about these models as they are, not about how they were trained."
    return text


def _missing(given: Given, costs: Costs, alike: Sequence[str]) -> list[str]:
    """Say of which models something is not known, and what would say it."""
    spoken = [model.name for model in given.models if model.name not in alike]
    texts = [
        f"Models of several sizes are called `{name}`: which one the numbers are of is not said." for name in alike
    ]
    uncounted = [name for name in spoken if name not in costs.get("parameters", {})]
    if uncounted:
        texts.append(
            f"Not counted: {', '.join(map(_code, uncounted))}. Give the output of `featherpress audit NAME --json`, "
            "under the same name."
        )
    timed = {name for cost, found in costs.items() if cost.startswith("latency") for name in found}
    untimed = [name for name in spoken if name not in timed]
    if untimed:
        texts.append(
            f"Not timed: {', '.join(map(_code, untimed))}. Give the output of `featherpress bench NAME --json`, under "
            "the same name."
        )
    return texts


def _figures(context: RunContext, given: Given, costs: Costs, records: Sequence[str]) -> list[Block]:
    """Draw the first column of numbers against each cost that two models or more have, a point for each of them."""
    column = given.columns[0]
    scores = {model.name: model.numbers(column) for model in given.models if model.numbers(column)}
    known = {name: {m: v for m, v in found.items() if m in scores} for name, found in costs.items()}
    seeds = " Points: mean over seeds; bars: standard deviation." if _seeded(given) else ""
    return [
        context.figure(
            f"given-{len(context.figures)}",
            partial(
                score_against_cost,
                found,
                scores,
                cost=f"{name.replace('`', '')} (ms)" if name.startswith("latency") else name,
                metric=column,
            ),
            alt=f"{column} against {name}".replace("`", ""),
            caption=f"`{column}` as given, against {name}.{seeds}",
            records=[*given.records, *records],
        )
        for name, found in known.items()
        if len(found) > 1
    ]
