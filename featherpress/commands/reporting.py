"""`report` and `demo`: the write-up of runs, and the whole path in one command."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from featherpress.commands.printing import echo, plain_console, say
from featherpress.commands.recipes import audit_recipe, find_recipe, open_logged_run
from featherpress.commands.subjects import audit_model
from featherpress.extras import require_extra
from featherpress.options import FigureFormat, OverwriteOption

if TYPE_CHECKING:
    from featherpress.verdicts.tables import Side

DEMO = (
    "A face detector of 485,599 parameters, V1, is distilled into one of 256,812, V2, on pictures that this program "
    "draws itself. Nothing is downloaded. Some nine minutes of an idle core; longer where others use it.",
    "1 of 4. Count both models, part by part, and hold each to the budget file that comes with it. Seconds.",
    "2 of 4. Train V1, the teacher, on 640 drawn pictures and their labels; then V2, from three random starts twice "
    "each. Both times it knows the labels of 16 pictures alone: `student` sees the other 624 too, with what V1 says of "
    "them, `control` has no teacher. Only against that control does a gain mean something. Most of the time goes here. "
    "Loss is to fall, AP to rise: 1 is every face found and nothing else taken for one.",
    "3 of 4. What that last sentence means. Starts and test pictures differ by chance, and so would the difference "
    "with others of them: the interval says by how much.",
    "4 of 4. Write it up: where V2's parameters went, how both learned, what they find. Seconds.",
)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs and of `evaluate --out`; JSON of audits, evaluations, benchmarks, exports, and "
            "beside them of models; CSV of one's own numbers."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to; `report/` in the first run's or evaluation's folder unless given.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write `report.html` too: one file with all inside.")] = False,
    style: Annotated[
        Literal["markdown", "latex"], typer.Option("--format", help="`latex` writes the tables to `tables.tex` too.")
    ] = "markdown",
    figures: Annotated[
        list[FigureFormat] | None, typer.Option(help="Write figures in this format too; may be given twice.")
    ] = None,
) -> None:
    """Write Markdown and PNG figures from records: of one run or several, audits, evaluations, benchmarks, exports.

    Runs may be of any task. Several evaluations are set side by side, with an interval on the difference to the first
    where the images are the same. Benchmarks and exports saved in a run's folder are found there. A CSV file (or a
    JSON list) with a row a model, a column `model`, and if wanted `seed` and `scores` (a file of scores per example, as
    for `gate`), is set beside the audits and benchmarks of these models.

    Examples:
    ```
    featherpress report runs/v1_to_v2 --html
    featherpress report v1.json v2.json --out counted
    featherpress report old/ new/ --out evaluated
    featherpress report mine.csv a.json b.json bench.json --out compared
    ```
    """
    require_extra("report", "a report")
    from featherpress.reports import write_report

    latex = style == "latex"
    written = write_report(
        runs,
        out,
        page=html,
        latex=latex,
        vectors=[each.value for each in figures or ()],
        read_scores=_read_scores,
    )
    echo(f"report: {written}")
    if html:
        echo(f"page: {written.with_name('report.html')}")
    if latex:
        echo(f"tables: {written.with_name('tables.tex')}")


def _read_scores(files: Sequence[Path], order: Sequence[str] | None) -> "Side":
    from featherpress.commands.gating import read_side

    return read_side(files, order=order)


def demo(
    out: Annotated[Path, typer.Option(help="The demo's run folder.")] = Path("runs/demo"),
    overwrite: OverwriteOption = False,
) -> None:
    """Do all of it on synthetic faces, in minutes of a core: audit, distil, evaluate, report.

    Examples:
    ```
    featherpress demo
    featherpress demo --out runs/again --overwrite
    ```
    """
    require_extra("train", "the demo")
    require_extra("report", "the demo's report")
    from featherpress.budgets.views.tables import render_brief
    from featherpress.compress.experiments.distill import distill
    from featherpress.compress.runtime.threads import computing_threads
    from featherpress.reports import write_report

    console = plain_console()
    recipe = find_recipe("demo")
    audits = audit_recipe(recipe, allow_over_budget=False)
    opening, counting, training, comparing, writing = DEMO
    say(console, opening)
    say(console, counting)
    counted = [audit_model(name) for name in (recipe.all_teachers[0].model, recipe.student.model)]
    for each in counted:
        console.print(render_brief(each), "", markup=False)
    first, second = (each.cost for each in counted)
    console.print(
        f"V2 has {1 - second.params / first.params:.0%} fewer parameters and {1 - second.macs / first.macs:.0%} fewer "
        f"multiply-accumulates. `featherpress audit {counted[1].model}` says more.",
        highlight=False,
    )
    say(console, training)
    # On pictures so small several threads wait for each other longer than they work.
    with open_logged_run(recipe, out, resume=False, overwrite=overwrite) as folder, computing_threads(1):
        distill(recipe, folder, audits=audits)
    say(console, comparing)
    comparison = json.loads((folder / "eval" / "comparison.json").read_text(encoding="utf-8"))
    console.print(explain(comparison), highlight=False)
    say(console, writing)
    echo(f"report: {write_report([folder], read_scores=_read_scores)}")


def explain(comparison: Mapping[str, Any]) -> str:
    """Explain a comparison to someone who has never seen one, and what it does not show."""
    difference, images = comparison["difference"], comparison["data"]["images"]
    low, high = (f"{difference[end]:+.3f}" for end in ("low", "high"))
    verdict = {
        "better": "all of it above 0, so that on such pictures the teacher helped.",
        "worse": "all of it below 0, so that on such pictures the teacher did harm.",
        "not shown": "which holds 0: whether the teacher helped, this run cannot tell.",
        "undecided": "and with another start it could differ more: whether the teacher helped, so few cannot tell.",
    }[comparison["verdict"]]
    return (
        f"V1 reached an AP of {comparison['teacher']['score']:.3f}; V2 {comparison['distilled']['mean']:.3f} with V1's "
        f"help and {comparison['control']['mean']:.3f} without, a difference of {difference['mean']:+.3f}. With other "
        f"starts and pictures it could as well have been anything from {low} to {high} "
        f"({difference['confidence']:.0%} interval), {verdict} A teacher that knows labels which its student does not "
        f"know is where distillation gives most. This rests on {images} drawn pictures and minutes of training; what "
        "hours on photographs gave, where both know all labels, is in docs/results.md."
    )
