"""`audit --claims`: a published table, counted again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from featherpress.commands.printing import append_step_summary, echo, plain_console, print_json
from featherpress.errors import UsageError
from featherpress.extras import require_extra

_WRONG = ("model", "wrong", "open", "failed")


def print_recount(
    table: Path,
    factory: str,
    *,
    mapping: Sequence[str],
    settings: Mapping[str, Any],
    jobs: int,
    style: str,
    strict: bool,
    others: Mapping[str, object],
) -> None:
    """Count the models of a table with a progress bar, and print what became of its figures.

    What was counted is kept in `TABLE.recount.jsonl` in the working directory, and not counted again.

    Errors: `typer.Exit` with 1 where `strict` and a figure is neither what was counted nor explained; `UsageError`
    without a factory, for JUnit, which has no place for it, and for `others`, options that are for one model.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from featherpress.budgets.recount.claims import read_claims
    from featherpress.budgets.recount.printing import recount_csv, recount_markdown, render_recount
    from featherpress.budgets.recount.running import recount

    if ":" not in factory:
        raise UsageError("--claims needs --factory package.module:factory, which takes a model's name")
    if given := ", ".join(name for name, value in others.items() if value):
        raise UsageError(f"--claims counts a table: {given} is for a model")
    if style == "junit":
        raise UsageError("--claims is written as table, json, markdown or csv")
    require_extra("crosscheck", "--claims")
    rows = read_claims(table, mapping)
    kept = Path(f"{table.stem}.recount.jsonl")
    shown = TextColumn("counting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(rows))
        result = recount(
            rows,
            table=table.name,
            factory=factory,
            settings=settings,
            jobs=jobs,
            kept=kept,
            advance=lambda total: bar.update(task, total=total, advance=1),
        )
    if style == "json":
        print_json(result.to_dict())
    elif style == "csv":
        echo(recount_csv(result), nl=False)
    elif style == "markdown":
        echo(recount_markdown(result), nl=False)
    else:
        plain_console().print(render_recount(result))
        echo(f"kept in {kept}: the same command counts only what is not there yet")
    append_step_summary(recount_markdown(result))
    raise typer.Exit(int(strict and any(result.summary.get(verdict) for verdict in _WRONG)))
