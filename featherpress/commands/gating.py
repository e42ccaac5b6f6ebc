"""`gate`: whether a candidate is not worse than the model it would replace, as an exit code."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featherpress.commands.printing import append_step_summary, echo, junit_on_error
from featherpress.errors import FileError, UsageError
from featherpress.escaping import escape_markdown
from featherpress.files import is_table
from featherpress.options import GateFormat, UndecidedAs

if TYPE_CHECKING:
    from featherpress.budgets.views.junit import Case
    from featherpress.verdicts import GateResult
    from featherpress.verdicts.tables import Side


def gate(
    candidate: Annotated[
        list[Path],
        typer.Argument(
            help="A run, a sweep or an evaluation: its folder or record; COCO results; CSV files of example,score."
        ),
    ],
    margin: Annotated[
        str, typer.Option(metavar="M", help="How much worse is still acceptable, in the metric's own unit.")
    ],
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="REFERENCE",
            help="What to compare with; repeatable, a CSV file a seed. A sweep's is its teacher unless given.",
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="What is compared, as AP; the name of CSV files' scores.")
    ] = "",
    confidence: Annotated[float, typer.Option(metavar="C", help="Of the one-sided interval.")] = 0.95,
    ground_truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO's annotations, for COCO results.")
    ] = None,
    undecided: Annotated[
        UndecidedAs | None, typer.Option(metavar="HOW", help="`pass` or `fail` builds that decide nothing: 0 or 1.")
    ] = None,
    style: Annotated[
        GateFormat, typer.Option("--format", metavar="FORMAT", help="text, json, markdown or junit.")
    ] = "text",
) -> None:
    """Decide whether a candidate is worse than a baseline by more than a margin.

    Of a sweep it says from which budget on. Exit code: 0 not worse, 1 worse (a sweep: at some budget), 2 usage or a bad
    file, 3 undecided.

    Examples:
    ```
    featherpress gate new.csv --baseline old.csv --margin 0.005
    featherpress gate runs/new --baseline runs/old --margin 0.01 --metric AP
    featherpress gate a.json --baseline b.json --ground-truth t.json --margin 0
    featherpress gate runs/curve --margin 0.01
    ```
    """
    from featherpress.commands import sweep_gating

    with junit_on_error(style == "junit", "featherpress gate"):
        if ground_truth is not None and not any(each.suffix == ".json" for each in (*candidate, *(baseline or ()))):
            raise UsageError("--ground-truth goes with COCO results, files that end in .json, and none was given")
        if sweep_gating.is_sweep(candidate):
            swept = sweep_gating.gate_sweep(
                candidate[0], baseline or (), margin=margin, metric=metric, confidence=confidence
            )
            return _end(swept.exit_code, undecided, style, sweep_gating.writers(swept, undecided))
        if not baseline:
            raise UsageError("gate compares with a --baseline; only a sweep has one of its own, its teacher")
        result = run_gate(
            candidate, baseline, margin=margin, metric=metric, confidence=confidence, ground_truth=ground_truth
        )
    failed = settle(result.exit_code, undecided) != 0
    written = {
        "json": lambda: json.dumps(result.to_dict(), indent=2) + "\n",
        "text": lambda: f"{result.sentence}\n",
        "markdown": lambda: render_gate_markdown(result, failed=failed),
        "junit": lambda: render_gate_junit(result, failed=failed),
    }
    return _end(result.exit_code, undecided, style, written)


def settle(code: int, undecided: UndecidedAs | None) -> int:
    """Return the exit code that a build asked for where nothing is decided."""
    return int(undecided == "fail") if code == 3 and undecided is not None else code


def _end(code: int, undecided: UndecidedAs | None, style: str, written: Mapping[str, Callable[[], str]]) -> None:
    echo(written[style](), nl=False)
    append_step_summary(written["markdown"]())
    raise typer.Exit(settle(code, undecided))


def run_gate(
    candidate: Sequence[Path],
    baseline: Sequence[Path],
    *,
    margin: str | float,
    metric: str = "",
    confidence: float = 0.95,
    ground_truth: Path | None = None,
) -> "GateResult":
    """Read both sides and decide.

    Errors: UsageError and FileError, one sentence, for whatever cannot be compared.
    """
    from featherpress.verdicts import gate as decide

    reference = read_side(baseline, metric=metric, ground_truth=ground_truth)
    tested = read_side(candidate, metric=metric, ground_truth=ground_truth, order=reference.examples)
    _require_one_metric(tested, reference, metric)
    if len(reference.seeds) > 1 and set(tested.seeds) != set(reference.seeds):
        raise UsageError(
            f"{tested.name} has the seeds {', '.join(tested.seeds)} and {reference.name} has "
            f"{', '.join(reference.seeds)}; give the same seeds of both, or one baseline"
        )
    return decide(
        tested.scores,
        reference.scores,
        margin=_parse_margin(margin, tested, reference),
        confidence=confidence,
        metric=reference.metric,
        names=(tested.name, reference.name),
        unit=reference.unit,
    )


def read_side(
    paths: Sequence[Path], *, metric: str = "", ground_truth: Path | None = None, order: Sequence[str] | None = None
) -> "Side":
    """Read one side: CSV files of examples and scores, a run, an evaluation, or COCO results.

    Errors: UsageError, FileError and DataError for what cannot be read, and for other examples than those of `order`.
    """
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise FileError(f"there is no file or folder {missing}")
    if all(map(is_table, paths)):
        from featherpress.verdicts.tables import read_tables

        return read_tables(paths, metric=metric or "score", order=order)
    if len(paths) > 1:
        raise UsageError("several files are seeds only where all are CSV; a run folder has its seeds in it")
    from featherpress.compress.evaluation import saved_scores

    path = paths[0]
    if ground_truth is not None and path.suffix == ".json":
        return saved_scores.read_coco_results(path, ground_truth, order=order)
    if path.suffix == ".json" and path.read_bytes().lstrip().startswith(b"["):
        raise UsageError(f"{path} holds COCO results: give --ground-truth, the annotations that go with them")
    return saved_scores.read_saved(path, order=order)


def _require_one_metric(candidate: "Side", baseline: "Side", metric: str) -> None:
    if candidate.metric != baseline.metric:
        raise UsageError(
            f"{candidate.name} is scored by {candidate.metric} and {baseline.name} by {baseline.metric}; "
            "a gate compares one metric"
        )
    if metric and metric.lower() != baseline.metric.lower():
        raise UsageError(f"--metric is {metric}, and both sides are scored by {baseline.metric}")


def _parse_margin(margin: str | float, *sides: "Side") -> float:
    metric = sides[0].metric
    try:
        value = float(margin)
    except ValueError as error:
        raise UsageError(f"a margin is a positive number in the unit of {metric}, as 0.005; got {margin!r}") from error
    if value >= 1 and all(side.bounded for side in sides):
        raise UsageError(
            f"the margin {margin} is in another unit: {metric} lies between 0 and 1 here, so that 0.01 is one point"
        )
    return value


def render_gate_markdown(result: "GateResult", *, failed: bool) -> str:
    """Make GitHub-flavoured Markdown: a table of the numbers and the sentence."""
    from featherpress.budgets.views.layout import markdown_table

    interval, (candidate, baseline) = result.interval, result.scores
    cells = [
        *(f"{value:.4f}" for value in (candidate, baseline)),
        f"{interval.difference:+.4f}",
        f"{interval.low:+.4f} to {interval.high:+.4f}",
        f"{result.margin:g}",
        f"**{result.outcome}**" if failed else result.outcome,
    ]
    header = ["candidate", "baseline", "difference", f"{100 * result.confidence:g}% ends", "margin", "outcome"]
    title = escape_markdown(f"{result.metric} of {result.candidate}")
    return "\n".join([f"## {title}", "", *markdown_table(header, [cells]), "", escape_markdown(result.sentence)]) + "\n"


def render_gate_junit(result: "GateResult", *, failed: bool) -> str:
    """Make JUnit XML of one case."""
    from featherpress.budgets.views.junit import render_suite

    name = f"{result.metric} not worse than {result.baseline} by {result.margin:g}"
    return render_suite("featherpress gate", [make_case(result, name, failed=failed)], classname=result.candidate)


def make_case(result: "GateResult", name: str, *, failed: bool) -> "Case":
    """Return a gate as a case of JUnit: failed where the build is to fail, skipped where nothing was decided."""
    from featherpress.budgets.views.junit import Case

    if failed:
        return Case(name=name, outcome="failure", message=result.outcome, text=result.sentence)
    if result.outcome == "undecided":
        return Case(name=name, outcome="skipped", message=result.sentence)
    return Case(name=name, said=[result.sentence])
