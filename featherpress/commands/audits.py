"""`audit`, `diff` and `fit`: what models cost, and what they may."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featherpress.commands.model_names import audit_model, cross_check_model, find_factory
from featherpress.commands.places import require_place
from featherpress.commands.printing import append_step_summary, plain_console, print_json, show
from featherpress.errors import FileError, UsageError
from featherpress.extras import require_extra
from featherpress.options import By, DiffFormat, Format, JsonOption, SideOption

if TYPE_CHECKING:
    from featherpress.verdicts import GateResult


def _print_schema(wanted: bool) -> None:
    if wanted:
        from featherpress.budgets.auditing.budget_file import budget_schema

        typer.echo(budget_schema(), nl=False)
        raise typer.Exit


def audit(
    model: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory` for yours.")],
    budget: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A budget file, or the name of a shipped one; unless given, the model's own."
        ),
    ] = "",
    shape: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="A square image's side, or shapes as 1x77:int64,1x77:bool; the budget's, or 640.",
        ),
    ] = "",
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a budget from the model as it is, and stop.")
    ] = None,
    pin: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what the model costs now, for --baseline.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fail when anything grew since this file was pinned.")
    ] = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(metavar="RECORD", help="What the model scored: a run, an evaluation, a CSV; held to [accuracy]."),
    ] = None,
    strict_claims: Annotated[
        bool, typer.Option("--strict-claims", help="Fail when a claim of the budget file is wrong.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--cross-check", help="Count with fvcore, thop and torch too, and explain the differences.")
    ] = False,
    by: Annotated[By, typer.Option(metavar="WHAT", help="A row for each component, module or operator.")] = "component",
    depth: Annotated[int | None, typer.Option(metavar="N", min=1, help="Rows for modules down to this depth.")] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY", help="Order of rows: model, name, params, macs, elementwise, activations or calls."
        ),
    ] = "model",
    style: Annotated[
        Format, typer.Option("--format", metavar="FORMAT", help="table, json, markdown, csv or junit.")
    ] = "table",
    as_json: JsonOption = False,
    _schema: Annotated[
        bool, typer.Option("--schema", callback=_print_schema, is_eager=True, help="Print budget files' JSON Schema.")
    ] = False,
) -> None:
    """Count a model component by component, and check it against a budget.

    Exit code: 0 within budget, 1 over, 2 usage or a bad file, 3 the count cannot be trusted or the accuracy decided.

    Examples:
    ```
    featherpress audit featherface_v2
    featherpress audit torchvision.models:resnet18 --input 224
    featherpress audit my_models:encoder --input 1x77:int64
    featherpress audit featherface_v2 --init mine.toml
    featherpress audit featherface_v2 --budget mine.toml --format junit
    ```
    """
    from featherpress.budgets import dump_budget
    from featherpress.budgets.auditing.baseline import dump_baseline, load_baseline, ratchet
    from featherpress.budgets.views import printing, tables
    from featherpress.files import write_text

    if check:
        require_extra("crosscheck", "--cross-check")
    for file in (init, pin):
        require_place(file)
    result = audit_model(model, budget=budget, shape=shape, strict_claims=strict_claims)
    if init is not None:
        if init.exists():
            raise FileError(f"{init} exists already; choose another name for the budget file")
        write_text(init, dump_budget(result.cost, name=result.model))
        typer.echo(f"wrote {init}")
        return
    if baseline is not None:
        result = ratchet(result, load_baseline(baseline), file=str(baseline))
    if pin is not None:
        write_text(pin, dump_baseline(result))
    if accuracy is not None:
        result = result.with_accuracy(_gate_accuracy(accuracy, model=model, budget=budget))
    shown = printing.choose_breakdown(result, by=by, depth=depth, sort=sort)
    if shown is None:
        result = printing.sort_components(result, sort)
    compared = cross_check_model(model, result, shape=shape) if check else None
    printing.print_audit(result, style="json" if as_json else style, shown=shown, cross_check=compared)
    append_step_summary(tables.render_markdown(result))
    raise typer.Exit(result.exit_code)


def _gate_accuracy(record: Path, *, model: str, budget: str) -> "GateResult":
    """Hold what a model scored to the `[accuracy]` of its budget; the baseline lies beside the budget file."""
    from featherpress.budgets import load_budget
    from featherpress.commands.gating import run_gate

    limits = load_budget(budget or model)
    if limits.accuracy is None:
        raise UsageError(f"--accuracy needs [accuracy] in {limits.file}: metric, baseline and margin")
    baseline = Path(budget).parent / limits.accuracy.baseline
    return run_gate([record], [baseline], margin=limits.accuracy.margin, metric=limits.accuracy.metric)


def diff(
    before: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory` for yours.")],
    after: Annotated[str, typer.Argument(help="The model to compare with it.")],
    shape: Annotated[
        str, typer.Option("--input", metavar="SHAPE", help="A square image's side, or shapes as `audit` takes them.")
    ] = "640",
    style: Annotated[DiffFormat, typer.Option("--format", metavar="FORMAT", help="table, json or markdown.")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Compare two models component by component: parameters, MACs, and what is saved.

    Examples:
    ```
    featherpress diff featherface_v1 featherface_v2
    featherpress diff mine:net mine:thinner_net --input 224 --format markdown
    ```
    """
    from featherpress.budgets import diff as compare_costs
    from featherpress.budgets.views.diff import render_diff, render_diff_markdown

    costs = [audit_model(model, budget="", shape=shape).cost for model in (before, after)]
    result = compare_costs(*costs, names=(before, after))
    if as_json or style == "json":
        print_json(result.to_dict())
    elif style == "markdown":
        typer.echo(render_diff_markdown(result), nl=False)
    else:
        plain_console().print(render_diff(result))
    append_step_summary(render_diff_markdown(result))


def fit(
    model: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory` with your knobs.")],
    params: Annotated[int | None, typer.Option(metavar="N", min=1, help="The most parameters.")] = None,
    macs: Annotated[int | None, typer.Option(metavar="N", min=1, help="The most MACs, at the input's size.")] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARG=VALUES",
            help="A whole-number argument to turn: `out_channels=16:128:2` (from, to, step) or `n=1,2,4`; repeatable.",
        ),
    ] = None,
    side: SideOption = 640,
    as_json: JsonOption = False,
) -> None:
    """Find the settings of a model that use a budget best, counted exactly.

    Exit code: 0 if something fits, 1 if nothing does.

    Examples:
    ```
    featherpress fit featherface_v2 --params 256000
    featherpress fit my:net --macs 5000000 --knob w=8:64
    ```
    """
    from featherpress.budgets import fit as solve
    from featherpress.budgets.fitting.fit import parse_knob, render_fit

    make, usual = find_factory(model)
    knobs = [parse_knob(text) for text in knob or usual]
    result = solve(make, knobs, name=model, params=params, macs=macs, side=side)
    show(result.to_dict(), as_json, lambda: render_fit(result))
    raise typer.Exit(result.exit_code)
