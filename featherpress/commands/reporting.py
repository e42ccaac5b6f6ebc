"""`report` and `demo`: what is said of runs, and all of it at once."""

import json
from pathlib import Path
from typing import Annotated

import typer

from featherpress.commands.printing import plain_console, say
from featherpress.commands.recipes import audit_recipe, find_recipe, open_logged_run
from featherpress.commands.targets import audit_target
from featherpress.options import FigureFormat, OverwriteOption, ReportFormat

__all__ = ["DEMO", "demo", "report"]

DEMO = (
    "1. The audit of V1. Every component is counted on a copy without data, checked against the budget file that comes "
    "with the package, and put beside what the model's document says; where that cannot be right, the reason is given.",
    "2. The audit of V2, the model that V1 is to be distilled into.",
    "3. V1 is trained on synthetic faces, then distilled into V2. The same V2 is trained without a teacher too, from "
    "the same weights on the same crops: only against this control does a gain mean something. This takes minutes.",
    "4. Did it help? Each validation image is drawn again and again to see how far the difference depends on them. The "
    "run is far too short to say what distillation can do; it shows how the question is answered.",
)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, and JSON of audits, models, benchmarks, exports.")],
    out: Annotated[Path | None, typer.Option(help="Where to; the first run's `report/` unless given.")] = None,
    html: Annotated[bool, typer.Option("--html", help="Write `report.html` too: one file with all inside.")] = False,
    style: Annotated[
        ReportFormat, typer.Option("--format", help="`latex` writes the tables to `tables.tex` too.")
    ] = ReportFormat.MARKDOWN,
    figures: Annotated[
        list[FigureFormat] | None, typer.Option(help="Write figures in this format too; may be given twice.")
    ] = None,
) -> None:
    """Write Markdown and PNG figures from the records of one run or several, and of audits and benchmarks.

    Runs may be of detectors and of classifiers. Benchmarks and exports saved in a run's folder are found there.

    Examples:
    ```
    featherpress report runs/v1_to_v2 --html
    featherpress report v1.json v2.json --out counted
    ```
    """
    from featherpress.reports import write_report

    latex = style == ReportFormat.LATEX
    written = write_report(runs, out, page=html, latex=latex, vectors=[each.value for each in figures or ()])
    typer.echo(f"report: {written}")
    if html:
        typer.echo(f"page: {written.with_name('report.html')}")
    if latex:
        typer.echo(f"tables: {written.with_name('tables.tex')}")


def demo(
    out: Annotated[Path, typer.Option(help="The demo's run folder.")] = Path("runs/demo"),
    overwrite: OverwriteOption = False,
) -> None:
    """Do all of it on synthetic faces, in minutes on two cores: audit, distil, evaluate, report.

    Examples:
    ```
    featherpress demo
    featherpress demo --out runs/again --overwrite
    ```
    """
    typer.echo(f"report: {_run_demo(out, overwrite=overwrite)}")


def _run_demo(out: Path, *, overwrite: bool) -> Path:
    """Audit both models, distil on synthetic faces, and report, with a word before each; return the report."""
    from featherpress.budgets import rendering
    from featherpress.compress import experiments
    from featherpress.reports import write_report

    console = plain_console()
    recipe = find_recipe("demo", None, resume=False, overwrite=overwrite, out=None)
    for name, text in zip(("featherface_v1", "featherface_v2"), DEMO[:2], strict=True):
        say(console, text)
        console.print(rendering.render_table(audit_target(name, budget="")))
    say(console, DEMO[2])
    audits = audit_recipe(recipe, allow_over_budget=False)
    with open_logged_run(recipe, out, resume=False, overwrite=overwrite) as folder:
        experiments.distill(recipe, folder, audits=audits)
    comparison = json.loads((out / "eval" / "comparison.json").read_text(encoding="utf-8"))
    say(console, DEMO[3])
    console.print(comparison["sentence"], markup=False)
    return write_report([folder])
