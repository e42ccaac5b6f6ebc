"""`audit`, `diff` and `fit`: what models cost, and what they may."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from featherpress.commands.formulas import read_formulas
from featherpress.commands.model_files import audit_file, is_file, refuse_for_files
from featherpress.commands.places import require_own, require_place
from featherpress.commands.printing import (
    append_step_summary,
    echo,
    junit_on_error,
    plain_console,
    print_json,
    show,
    stdout_to_stderr,
)
from featherpress.commands.recounting import print_recount
from featherpress.commands.subjects import (
    audit_subject,
    choose_fit_inputs,
    find_budget,
    find_factory,
    open_subject,
    read_settings,
)
from featherpress.errors import FileError, UsageError
from featherpress.extras import require_extra
from featherpress.files import split_weights
from featherpress.options import (
    ArgumentOption,
    By,
    ClaimsOption,
    DiffFormat,
    FactoryOption,
    Format,
    FormulaOption,
    InputOption,
    JobsOption,
    JsonOption,
    KnobOption,
    MacsOption,
    MapOption,
    ParamsOption,
    ShapedOption,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featherpress.budgets import Budget, CrossCheck
    from featherpress.budgets.counting.formulas import Formula
    from featherpress.commands.subjects import Subject
    from featherpress.verdicts import GateResult


class _How(TypedDict):
    """What counting takes of the command line, whatever the target."""

    formulas: "Mapping[str, Formula]"
    strict_claims: bool


def _print_schema(wanted: bool) -> None:
    if wanted:
        from featherpress.budgets.auditing.budget_file import budget_schema

        echo(budget_schema(), nl=False)
        raise typer.Exit


def audit(
    model: Annotated[
        str,
        typer.Argument(
            help="A model of the zoo, `package.module:factory`, or a file: .onnx, .safetensors, .pth, .pt2."
        ),
    ] = "",
    budget: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A budget file, or the name of a shipped one; unless given, the model's own."
        ),
    ] = "",
    weights: ShapedOption = None,
    inputs: InputOption = None,
    settings: ArgumentOption = None,
    formula: FormulaOption = None,
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
    shapes: Annotated[bool, typer.Option("--shapes", help="Show what each component takes and returns.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show memory, the convention and the largest modules too.")
    ] = False,
    claims: ClaimsOption = None,
    factory: FactoryOption = "",
    mapping: MapOption = None,
    jobs: JobsOption = 1,
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
    featherpress audit torchvision.models:resnet18
    featherpress audit timm:create_model --set model_name=resnet18
    featherpress audit my_models:encoder --input ids=1x77:int64
    featherpress audit my_models:net --weights pruned.safetensors
    featherpress audit featherface_v2 --init mine.toml
    featherpress audit featherface_v2 --budget mine.toml --format junit
    featherpress audit --claims TABLE.csv --factory timm:create_model
    ```
    """
    from featherpress.budgets import dump_budget
    from featherpress.budgets.auditing.baseline import dump_baseline, load_baseline, ratchet
    from featherpress.budgets.views import printing, tables
    from featherpress.files import write_text

    if claims is not None:
        others = {
            "--budget": budget, "--weights": weights, "--input": inputs, "--formula": formula, "--init": init,
            "--pin": pin, "--baseline": baseline, "--accuracy": accuracy, "--cross-check": check,
        }  # fmt: skip
        wanted = "json" if as_json else style
        print_recount(
            claims,
            factory or model,
            mapping=mapping or (),
            settings=read_settings(settings),
            jobs=jobs,
            style=wanted,
            strict=strict_claims,
            others=others,
        )
    with junit_on_error(style == "junit" and not as_json, model):
        chosen = read_settings(settings)
        if not model:
            raise UsageError("name a model: `featherpress audit featherface_v2`, or package.module:factory for yours")
        if check:
            require_extra("crosscheck", "--cross-check")
        require_place(init)
        require_own(pin, load_baseline, "a baseline that --pin wrote")
        formulas = read_formulas(formula)
        limits = find_budget(model, budget, chosen, weights)
        _require_limits(limits, accuracy)
        held = load_baseline(baseline) if baseline else None
        refuse_for_files(model, {"--set": settings, "--cross-check": check, "--weights": weights})
        how: _How = {"formulas": formulas, "strict_claims": strict_claims}
        subject = None
        if is_file(model):
            result = audit_file(model, limits, inputs=inputs or (), pin=held, **how)
        else:
            subject = open_subject(
                model, inputs=inputs or (), settings=chosen, budget=limits, pin=held, weights=weights
            )
            result = audit_subject(subject, limits, **how)
        if init is not None:
            if init.exists():
                raise FileError(f"{init} exists already; choose another name for the budget file")
            write_text(init, dump_budget(result.cost, name=result.model))
            echo(f"wrote {init}")
            return
        if held is not None:
            result = ratchet(result, held, file=str(baseline))
        if pin is not None:
            write_text(pin, dump_baseline(result))
        if accuracy is not None:
            result = result.with_accuracy(_gate_accuracy(accuracy, model=model, budget=budget))
        shown = printing.choose_breakdown(result, by=by, depth=depth, sort=sort)
        if shown is None:
            result = printing.sort_components(result, sort)
        compared = _cross_check(subject, formulas) if check and subject else None
    printing.print_audit(
        result, style="json" if as_json else style, shown=shown, cross_check=compared, verbose=verbose, shapes=shapes
    )
    if pin is not None and style == "table" and not as_json:
        echo(f"wrote {pin}; `--baseline {pin}` fails when anything has grown since")
    append_step_summary(tables.render_markdown(result))
    raise typer.Exit(result.exit_code)


def _cross_check(subject: "Subject", formulas: "Mapping[str, Formula]") -> "CrossCheck":
    from featherpress.budgets import cross_check

    with stdout_to_stderr():
        return cross_check(subject.model, *subject.inputs.args, kwargs=subject.inputs.kwargs, formulas=formulas)


def _require_limits(limits: "Budget | None", accuracy: Path | None) -> None:
    if accuracy is not None and limits is None:
        raise UsageError("--accuracy is held to [accuracy] of a budget: name its file with --budget")


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
    before: Annotated[
        str,
        typer.Argument(help="A model, a file, or what `audit --json` or --pin wrote; with --target a revision."),
    ],
    after: Annotated[str, typer.Argument(help="What to compare with it.")] = "",
    target: Annotated[
        str, typer.Option(metavar="MODEL", help="Compare this model, or file, between two git revisions.")
    ] = "",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the second, which may be the first pruned: then name it once."),
    ] = None,
    inputs: InputOption = None,
    settings: ArgumentOption = None,
    formula: FormulaOption = None,
    style: Annotated[DiffFormat, typer.Option("--format", metavar="FORMAT", help="table, json or markdown.")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Compare two models component by component: parameters, MACs, and what is saved.

    Examples:
    ```
    featherpress diff featherface_v1 featherface_v2
    featherpress diff mine:net mine:thinner_net --input 224 --format markdown
    featherpress diff before.json net.onnx
    featherpress diff mine:net --weights pruned.safetensors
    featherpress diff main...HEAD --target package.module:factory
    ```
    """
    from featherpress.budgets import diff as compare_costs
    from featherpress.budgets.views.diff import render_diff, render_diff_markdown
    from featherpress.commands.sides import audit_revision, open_side, refuse_unused, split_range

    if target and weights:
        raise UsageError("--weights is for models as they are now, not for --target at two revisions")
    if target:
        given = {"--input": inputs, "--set": settings, "--formula": formula}
        words = [word for option, texts in given.items() for text in texts or () for word in (option, text)]
        first, second = split_range(before, after)
        names = (f"{target} at {first[:12]}", f"{target} at {second[:12]}")
        one, two = (audit_revision(revision, target, words) for revision in (first, second))
        result = compare_costs(one, two, names=names)
    elif not after and not weights:
        raise UsageError("diff compares two: name the second too, or --target and two revisions as main...HEAD")
    else:
        chosen, formulas, after = read_settings(settings), read_formulas(formula), after or before
        refuse_unused((before, after), settings, inputs or formula)
        was = open_side(before, inputs=inputs or (), settings=chosen, formulas=formulas)
        now = open_side(after, inputs=inputs or (), settings=chosen, formulas=formulas, weights=weights)
        shown = f"{after}, {weights.name}" if weights else after
        result = compare_costs(was, now, names=(before, shown))
    if as_json or style == "json":
        print_json(result.to_dict())
    elif style == "markdown":
        echo(render_diff_markdown(result), nl=False)
    else:
        plain_console().print(render_diff(result))
    append_step_summary(render_diff_markdown(result))


def fit(
    model: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory` with your knobs.")],
    params: ParamsOption = None,
    macs: MacsOption = None,
    knob: KnobOption = None,
    inputs: InputOption = None,
    settings: ArgumentOption = None,
    formula: FormulaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the settings of a model that use a budget best, counted exactly.

    Exit code: 0 if something fits, 1 if nothing does. A model without knobs is cut by `featherpress prune`.

    Examples:
    ```
    featherpress fit featherface_v2 --params 256K
    featherpress fit my:net --macs 5M --knob w=8:64
    ```
    """
    from featherpress.budgets import fit as solve
    from featherpress.budgets.fitting.fit import parse_knob, render_fit

    target, weights = split_weights(model)
    if weights:
        raise UsageError(
            f"fit builds the model at several settings, and none with weights: name {target} alone, without {weights}"
        )
    chosen = read_settings(settings)
    make, usual = find_factory(model, chosen)
    knobs = [parse_knob(text) for text in knob or usual]
    if both := chosen.keys() & {each.name for each in knobs if knob}:
        raise UsageError(f"{min(both)} is set and turned: give it to --set or to --knob")
    knobs = [each for each in knobs if each.name not in chosen]
    formulas = read_formulas(formula)
    args, kwargs = choose_fit_inputs(model, make, knobs, inputs=inputs or (), formulas=formulas)
    with stdout_to_stderr():
        result = solve(
            make, knobs, name=model, params=params, macs=macs, example_inputs=args, kwargs=kwargs, formulas=formulas
        )
    show(result.to_dict(), as_json, lambda: render_fit(result))
    raise typer.Exit(result.exit_code)
