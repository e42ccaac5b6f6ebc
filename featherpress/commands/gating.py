"""`gate`: whether a candidate is not worse than the model it would replace, as an exit code."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featherpress.commands.printing import append_step_summary, junit_on_error, print_json
from featherpress.errors import FileError, UsageError
from featherpress.options import GateFormat, UndecidedAs

if TYPE_CHECKING:
    from featherpress.verdicts import GateResult
    from featherpress.verdicts.tables import Side


def gate(
    candidate: Annotated[
        list[Path],
        typer.Argument(
            help="A run folder, an evaluation's folder or record, COCO results, or CSV files of example,score."
        ),
    ],
    baseline: Annotated[
        list[Path], typer.Option(metavar="REFERENCE", help="What to compare with; repeatable, a CSV file a seed.")
    ],
    margin: Annotated[
        str, typer.Option(metavar="M", help="How much worse is still acceptable, in the metric's own unit.")
    ],
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

    Exit code: 0 not worse, 1 worse, 2 usage or a bad file, 3 undecided.

    Examples:
    ```
    featherpress gate new.csv --baseline old.csv --margin 0.005
    featherpress gate runs/new --baseline runs/old --margin 0.01 --metric AP
    featherpress gate a.json --baseline b.json --ground-truth t.json --margin 0
    ```
    """
    with junit_on_error(style == "junit", "featherpress gate"):
        result = run_gate(
            candidate, baseline, margin=margin, metric=metric, confidence=confidence, ground_truth=ground_truth
        )
    code = result.exit_code
    if result.outcome == "undecided" and undecided is not None:
        code = int(undecided == "fail")
    if style == "json":
        print_json(result.to_dict())
    elif style == "text":
        typer.echo(result.sentence)
    else:
        render = render_gate_markdown if style == "markdown" else render_gate_junit
        typer.echo(render(result, failed=code != 0), nl=False)
    append_step_summary(render_gate_markdown(result, failed=code != 0))
    raise typer.Exit(code)


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
    if all(path.suffix.lower() == ".csv" for path in paths):
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
    from featherpress.budgets.views.layout import escape, markdown_table

    interval, (candidate, baseline) = result.interval, result.scores
    cells = [
        *(f"{value:.4f}" for value in (candidate, baseline)),
        f"{interval.difference:+.4f}",
        f"{interval.low:+.4f} to {interval.high:+.4f}",
        f"{result.margin:g}",
        f"**{result.outcome}**" if failed else result.outcome,
    ]
    header = ["candidate", "baseline", "difference", f"{100 * result.confidence:g}% ends", "margin", "outcome"]
    title = escape(f"{result.metric} of {result.candidate}")
    return "\n".join([f"## {title}", "", *markdown_table(header, [cells]), "", escape(result.sentence)]) + "\n"


def render_gate_junit(result: "GateResult", *, failed: bool) -> str:
    """Make JUnit XML: one case, failed where the build is to fail, skipped where nothing was decided."""
    from featherpress.budgets.views.junit import Case, render_suite

    name = f"{result.metric} not worse than {result.baseline} by {result.margin:g}"
    if failed:
        case = Case(name=name, outcome="failure", message=result.outcome, text=result.sentence)
    elif result.outcome == "undecided":
        case = Case(name=name, outcome="skipped", message=result.sentence)
    else:
        case = Case(name=name, said=[result.sentence])
    return render_suite("featherpress gate", [case], classname=result.candidate)
