"""The command line: every command parses, calls one function of the library, prints, and exits with its code.

Exit codes: 0 done or within budget, 1 over budget, 2 a mistake in usage or files, 3 a count that cannot be trusted.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featherpress import __version__
from featherpress.commands import (
    ask_for_int8,
    audit_recipe,
    audit_target,
    cross_check_target,
    draw_curves,
    find_factory,
    find_recipe,
    fly,
    list_candidates,
    list_model,
    open_detector,
    open_logged_run,
    plain_console,
    refuse_overwriting,
    require_empty,
    run_demo,
    run_distillation,
    say_usage,
    weights_or_shipped,
)
from featherpress.compress.logs import log_to_stderr
from featherpress.errors import CountError, FeatherpressError, FileError, UsageError
from featherpress.options import (
    Ablation,
    Arms,
    BackendName,
    BatchOption,
    By,
    CacheOption,
    DeformableForm,
    DryRunOption,
    FigureFormat,
    FlipOption,
    Format,
    JsonOption,
    LongSideOption,
    OutOption,
    OverBudgetOption,
    OverwriteOption,
    ReportFormat,
    ResumeOption,
    SetOption,
    SideOption,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from featherpress.compress.recipes import Recipe

app = typer.Typer(
    help="Distillation and parameter budgeting for detectors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


# What typer raises on words it does not understand; where that class lives depends on its version.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line; a user's mistake is one sentence and an exit code, never a traceback."""
    log_to_stderr()
    # Threads that spin for long while they wait cost threefold beside other work; read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        sys.exit(app(prog_name="featherpress", standalone_mode=False) or 0)
    except _CommandLineError as error:
        say_usage(error)
        sys.exit(UsageError.exit_code)
    except typer.Abort:
        sys.exit(1)
    except FeatherpressError as error:
        sys.stderr.write(f"featherpress: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"featherpress: {where}{error.strerror or error}\n")
        sys.exit(FileError.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"featherpress {__version__}")
        raise typer.Exit


def _print_schema(wanted: bool) -> None:
    if wanted:
        from featherpress.budgets.files import budget_schema

        typer.echo(budget_schema(), nl=False)
        raise typer.Exit


def _print_recipe_schema(wanted: bool) -> None:
    if wanted:
        from featherpress.compress.recipes import recipe_schema

        typer.echo(recipe_schema(), nl=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distillation and parameter budgeting for detectors."""


models_app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
app.add_typer(models_app, name="models")


@models_app.callback()
def models(context: typer.Context, side: SideOption = 640, as_json: JsonOption = False) -> None:
    """List the zoo: year, paper, parameters, MACs, strides, and whether trained weights are known.

    Examples:
    ```
    featherpress models
    featherpress models show featherface_v2
    ```
    """
    if context.invoked_subcommand:
        if as_json:
            raise UsageError("--json goes after `show NAME`")
        return

    from featherpress.budgets.rendering import format_macs
    from featherpress.models import list_models, listing

    rows = [list_model(name, side)[0] for name in list_models()]
    _show(
        listing.list_to_dict(rows, side=side),
        as_json,
        lambda: listing.render_list(rows, side=side, format_macs=format_macs),
    )


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model of the zoo.")],
    depth: Annotated[int, typer.Option(min=0, help="How many levels of modules; 0: all.")] = 2,
    side: SideOption = 640,
    as_json: JsonOption = False,
) -> None:
    """Draw a model as a tree with the parameters and MACs of every module.

    Examples:
    ```
    featherpress models show featherface_v2 --depth 3
    ```
    """
    from featherpress.budgets.rendering import format_macs
    from featherpress.models import create_model, listing

    row, cost = list_model(name, side)
    if cost is None:
        raise CountError(f"{name} cannot be counted at {side}x{side}; try another --input")
    model = create_model(name)
    parts = {path: cost.subtree(path) for path, _ in model.named_modules()}
    costs = {path: (part.params, part.macs) for path, part in parts.items()}
    tree = listing.tree_of(name, model, costs, depth=depth)
    _show(
        listing.tree_to_dict(row, tree, side=side),
        as_json,
        lambda: listing.render_tree(row, tree, side=side, format_macs=format_macs),
    )


@app.command()
def audit(
    target: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory` for yours.")],
    budget: Annotated[str, typer.Option(help="A budget file, or the name of a shipped one.")] = "",
    side: Annotated[
        int | None, typer.Option("--input", min=1, help="Side of the square input in pixels; the budget's, or 640.")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Write a budget from the model as it is, and stop.")] = None,
    pin: Annotated[Path | None, typer.Option(help="Write what the model costs now, for --baseline.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Fail when anything grew since this file was pinned.")] = None,
    strict_claims: Annotated[bool, typer.Option(help="Fail when a claim of the budget file is wrong.")] = False,
    check: Annotated[
        bool, typer.Option("--cross-check", help="Count with fvcore, thop and torch too, and say why they differ.")
    ] = False,
    by: Annotated[By, typer.Option(help="What a row is.")] = By.COMPONENT,
    depth: Annotated[int | None, typer.Option(min=1, help="Show modules to this depth.")] = None,
    sort: Annotated[str, typer.Option(help="model, name, params, macs, elementwise, activations or calls.")] = "model",
    style: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    as_json: JsonOption = False,
    _schema: Annotated[
        bool, typer.Option("--schema", callback=_print_schema, is_eager=True, help="Print budget files' JSON Schema.")
    ] = False,
) -> None:
    """Count a model component by component, and check it against a budget.

    Exit code: 0 within budget, 1 over, 2 usage or a bad file, 3 the count cannot be trusted.

    Examples:
    ```
    featherpress audit featherface_v2
    featherpress audit torchvision.models:resnet18 --input 224
    ```
    """
    from featherpress.budgets import dump_budget, pins, printing, rendering, summaries
    from featherpress.compress.runs import write_text

    result = audit_target(target, budget=budget, side=side, strict_claims=strict_claims)
    if init is not None:
        if init.exists():
            raise FileError(f"{init} exists already; choose another name for the budget file")
        write_text(init, dump_budget(result))
        typer.echo(f"wrote {init}")
        return
    if baseline is not None:
        result = pins.ratchet(result, pins.load_pin(baseline), file=str(baseline))
    if pin is not None:
        write_text(pin, pins.dump_pin(result))
    shown = printing.choose_view(result, by=by, depth=depth, sort=sort)
    if shown is None:
        result = printing.sort_components(result, sort)
    peers = cross_check_target(target, result) if check else None
    printing.print_audit(result, style="json" if as_json else style, shown=shown, peers=peers)
    summaries.append_step_summary(rendering.render_markdown(result))
    raise typer.Exit(result.exit_code)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory`.")],
    after: Annotated[str, typer.Argument(help="Another.")],
    side: Annotated[int, typer.Option("--input", min=1, max=65536, help="Side of the square input in pixels.")] = 640,
    style: Annotated[Format, typer.Option("--format", help="table, json or markdown.")] = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Compare two models component by component: parameters, MACs, and what is saved.

    Examples:
    ```
    featherpress diff featherface_v1 featherface_v2
    ```
    """
    from featherpress.budgets import diff as compare_costs
    from featherpress.budgets import summaries
    from featherpress.budgets.diffing import render_diff, render_diff_markdown

    costs = [audit_target(target, budget="", side=side).cost for target in (before, after)]
    result = compare_costs(*costs, names=(before, after))
    if as_json or style is Format.JSON:
        _print_json(result.to_dict())
    elif style is Format.MARKDOWN:
        typer.echo(render_diff_markdown(result), nl=False)
    elif style is Format.TABLE:
        plain_console().print(render_diff(result))
    else:
        raise UsageError(f"diff prints table, json or markdown, not {style}")
    summaries.append_step_summary(render_diff_markdown(result))


@app.command()
def fit(
    target: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory` with your knobs.")],
    params: Annotated[int | None, typer.Option(min=1, help="The most parameters.")] = None,
    macs: Annotated[int | None, typer.Option(min=1, help="The most MACs, at the input's size.")] = None,
    knob: Annotated[
        list[str] | None, typer.Option(help="A whole-number argument to turn: `out_channels=16:128:2` or `n=1,2,4`.")
    ] = None,
    side: Annotated[int, typer.Option("--input", min=1, max=65536, help="Side of the square input in pixels.")] = 640,
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
    from featherpress.budgets.candidates import parse_knob
    from featherpress.budgets.fitting import render_fit

    make, usual = find_factory(target)
    knobs = [parse_knob(text) for text in knob or usual]
    result = solve(make, knobs, name=target, params=params, macs=macs, side=side)
    _show(result.to_dict(), as_json, lambda: render_fit(result))
    raise typer.Exit(result.exit_code)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    settings: SetOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    allow_over_budget: OverBudgetOption = False,
    cache: CacheOption = None,
) -> None:
    """Train a recipe's student alone.

    Examples:
    ```
    featherpress train my.toml --set schedule.epochs=3 --out runs/short
    ```
    """
    settings = [*(settings or []), *([f"data.cache={cache}"] if cache else [])]
    loaded = find_recipe(recipe, settings, resume=resume, overwrite=overwrite, out=out)
    if dry_run:
        return _print_recipe(loaded)
    audits = audit_recipe(loaded, allow_over_budget=allow_over_budget)
    from featherpress.compress import experiments

    if not resume:
        experiments.check(loaded, alone=True)
    with open_logged_run(loaded, out, resume=resume, overwrite=overwrite) as folder:
        experiments.train(loaded, folder, audits=audits)
    typer.echo(f"trained: {folder}; `featherpress report {folder}` writes it up")
    return None


@app.command()
def distill(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")] = "v1_to_v2",
    settings: SetOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    allow_over_budget: OverBudgetOption = False,
    cache: CacheOption = None,
    arm: Annotated[Arms, typer.Option(help="Train one of the two only, without a comparison.")] = Arms.BOTH,
    ablate: Annotated[Ablation | None, typer.Option(help="Then each loss alone, and each left out: one table.")] = None,
    no_preflight: Annotated[bool, typer.Option("--no-preflight", help="Start without a few steps to check.")] = False,
    _schema: Annotated[
        bool, typer.Option("--schema", callback=_print_recipe_schema, is_eager=True, help="Print recipes' JSON Schema.")
    ] = False,
) -> None:
    """Distil a teacher into a student, train the control beside it, and say whether the gain is real.

    Examples:
    ```
    featherpress distill v1_to_v2 --out runs/v1_to_v2
    featherpress distill demo --ablate losses
    ```
    """
    settings = [*(settings or []), *([f"data.cache={cache}"] if cache else [])]
    loaded = find_recipe(recipe, settings, resume=resume, overwrite=overwrite, out=out)
    if dry_run:
        return _print_recipe(loaded)
    folder, table = run_distillation(
        loaded,
        out,
        arms=("student", "control") if arm is Arms.BOTH else (arm,),
        ablate=ablate is not None,
        resume=resume,
        overwrite=overwrite,
        checked=not no_preflight,
        allow_over_budget=allow_over_budget,
    )
    if table:
        typer.echo(table)
    closing = f"; `featherpress report {folder}` writes it up" if loaded.data.task == "detection" else ""
    typer.echo(f"distilled: {folder}{closing}")
    return None


@app.command()
def preflight(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    settings: SetOption = None,
    allow_over_budget: OverBudgetOption = False,
    as_json: JsonOption = False,
) -> None:
    """Distil for a few steps and check what has ruined distillations elsewhere; exit code 0 if all is well, else 1.

    Examples:
    ```
    featherpress preflight v1_to_v2
    ```
    """
    loaded = find_recipe(recipe, settings, resume=False, overwrite=False, out=None)
    findings = fly(loaded, allow_over_budget=allow_over_budget)
    if as_json:
        _print_json({"schema": "featherpress.preflight/1", "findings": [asdict(each) for each in findings]})
    else:
        typer.echo("\n".join(str(each) for each in findings))
    raise typer.Exit(int(not all(each.passed for each in findings)))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model of the zoo; not needed where the weights file says it.")] = "",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint; the shipped weights unless given.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder in WIDER FACE's layout, or with COCO's format.")] = None,
    split: Annotated[str, typer.Option(help="Which split of it.")] = "val",
    category: Annotated[str, typer.Option(help="COCO's category of the faces; the one, or `face`, unless given.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Only the first images; 0: all.")] = 0,
    long_side: LongSideOption = 0,
    flip: FlipOption = False,
    batch: BatchOption = 1,
    coco: Annotated[bool, typer.Option(help="Score COCO's AP too.")] = True,
    predictions: Annotated[Path | None, typer.Option(help="Text predictions to score, a folder or .tar.gz.")] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="The folder of WIDER FACE's .mat files.")] = None,
    present_only: Annotated[bool, typer.Option("--present-only", help="Score part of WIDER FACE's images.")] = False,
    out: Annotated[Path | None, typer.Option(help="A new folder: record, detections, text files, figure.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model by AP at IoU 0.5, overall and by face height, and by COCO's AP; or by WIDER FACE's protocol.

    Examples:
    ```
    featherpress evaluate --data wider/
    featherpress evaluate --weights last.safetensors --data wider/ --flip
    featherpress evaluate --data wider/ --ground-truth mat/ --out results/
    featherpress evaluate --predictions out/ --ground-truth mat/
    ```
    """
    require_empty(out)
    if predictions is not None or (ground_truth is not None and not (model or weights or data)):
        if model or weights or data:
            raise UsageError("evaluate scores either a model on --data, or --predictions: not both at once")
        _evaluate_predictions(predictions, ground_truth, out=out, as_json=as_json)
        return
    if data is None:
        raise UsageError("evaluate needs --data to look at, or --predictions and --ground-truth to compare")

    from featherpress.compress.evaluation import scoring
    from featherpress.compress.evaluation.listing import render_evaluation
    from featherpress.compress.evaluation.settings import DetectionSettings

    settings = DetectionSettings(long_side=long_side, flip=flip)
    trained = weights_or_shipped(weights, model)
    detector = open_detector(trained, model)
    dataset = scoring.open_labelled(
        data, split=split, category=category, ground_truth=ground_truth, present_only=present_only, limit=limit
    )
    about = scoring.describe_weights(trained, detector, name=model)
    where = {"name": data.name, "split": split}
    scored = scoring.score_model(detector, dataset, settings=settings, about=about, data=where, batch=batch, coco=coco)
    if out is not None:
        scoring.save_scored(scored, out)
        draw_curves(out, scored.curves, {"all faces": scored.record["ap"]} | scored.record)
    _show(scored.record, as_json, lambda: render_evaluation(scored.record))


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(help="Image files, folders, or patterns in quotes.")],
    weights: Annotated[Path | None, typer.Option(help="A checkpoint; the shipped weights unless given.")] = None,
    model: Annotated[str, typer.Option(help="The weights' model, when their file does not say.")] = "",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Show detections from this score on.")] = 0.5,
    long_side: LongSideOption = 0,
    flip: FlipOption = False,
    tile: Annotated[int, typer.Option(min=0, help="Look at large images in tiles of this side; 0: whole.")] = 0,
    overlap: Annotated[int | None, typer.Option(min=0, help="What tiles share; a quarter unless given.")] = None,
    batch: BatchOption = 1,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the folders in folders too.")] = False,
    out: Annotated[Path, typer.Option(help="Where the drawn images go.")] = Path("detections"),
    as_json: JsonOption = False,
) -> None:
    """Find faces in images and draw boxes, landmarks and scores; with --json, print them instead.

    Exit code: 2 if an image could not be read; the others are done all the same.

    Examples:
    ```
    featherpress detect photo.jpg
    featherpress detect album/ --recursive --json
    featherpress detect crowd.jpg --tile 1024 --weights last.safetensors
    ```
    """
    from featherpress.compress.evaluation import photographs
    from featherpress.compress.evaluation.drawing import save_drawing
    from featherpress.compress.evaluation.settings import DetectionSettings
    from featherpress.compress.evaluation.tiling import Tiling

    if overlap is not None and not tile:
        raise UsageError("--overlap goes with --tile")
    settings = DetectionSettings(long_side=long_side, flip=flip, score_threshold=threshold)
    tiling = Tiling(size=tile, overlap=tile // 4 if overlap is None else overlap) if tile else None
    found = photographs.find_photographs(images, recursive=recursive, leave_out=out)
    targets = photographs.drawing_paths(found, out)
    if not as_json:
        refuse_overwriting(targets, [each.path for each in found])
    detector = open_detector(weights_or_shipped(weights, model), model)
    rows = {}
    for number, image, faces in photographs.detect_photographs(
        detector, found, settings=settings, tiling=tiling, batch=batch
    ):
        rows[number] = {"file": str(found[number].path), **photographs.faces_to_dict(image, faces)}
        if not as_json:
            save_drawing(image, faces, targets[number])
            count = f"{len(faces)} {'face' if len(faces) == 1 else 'faces'}"
            typer.echo(f"{found[number].path}: {count}, drawn in {targets[number]}")
    if as_json:
        about = {"schema": "featherpress.detections/1", "threshold": threshold, "protocol": settings.to_dict()}
        about |= {"tile": tile, "overlap": tiling.overlap if tiling else 0, "skipped": len(found) - len(rows)}
        _print_json({**about, "images": [rows[number] for number in sorted(rows)]})
    raise typer.Exit(2 if len(rows) < len(found) else 0)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory`; the file's.")] = "",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint; the shipped weights unless given.")] = None,
    out: Annotated[Path | None, typer.Option(help="The ONNX file; the others are named after it.")] = None,
    priors: Annotated[bool, typer.Option(help="Give the priors as an output.")] = False,
    decode: Annotated[bool, typer.Option(help="Give boxes and landmarks in pixels, and scores.")] = False,
    deformable: Annotated[
        DeformableForm, typer.Option(help="Deformable convolutions as GridSample, or as DeformConv.")
    ] = DeformableForm.SAMPLES,
    opset: Annotated[int, typer.Option(min=20, max=25, help="ONNX's operator set.")] = 25,
    side: Annotated[int | None, typer.Option("--input", min=1, help="Side of another model's input; 640.")] = None,
    program: Annotated[bool, typer.Option("--program", help="Write a torch.export program too, .pt2.")] = False,
    onnx: Annotated[bool, typer.Option(help="Write ONNX.")] = True,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise too, and score before and after.")] = False,
    data: Annotated[Path | None, typer.Option(help="Photographs for --int8; synthetic faces unless given.")] = None,
    images: Annotated[int, typer.Option("--calibration", min=1, help="How many images --int8 calibrates on.")] = 100,
    limit: Annotated[int, typer.Option(min=0, help="Score --int8 on the first images only; 0: all.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model as ONNX for any batch and size, checked against torch to 1e-4; quantise it; write a program.

    Exit code: 1 if the model cannot be exported, or its export computes something else; then nothing is written.

    Examples:
    ```
    featherpress export --weights last.safetensors --out v2.onnx --decode
    featherpress export --weights last.safetensors --int8 --data wider/
    featherpress export torchvision.models:resnet18 --input 224 --program
    ```
    """
    from featherpress.compress.deployment import exporting, graphs, listing

    options = graphs.GraphOptions(priors=priors, decode=decode, deformable=deformable.value)
    request = exporting.ExportRequest(
        target=model,
        weights=weights if ":" in model else weights_or_shipped(weights, model),
        out=out,
        options=options,
        side=side,
        opset=opset,
        program=program,
        onnx=onnx,
        int8=ask_for_int8(data, limit=limit, images=images) if int8 else None,
        overwrite=overwrite,
    )
    record = exporting.export(request)
    _show(record, as_json, lambda: listing.render_export(record))


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(help="Models of the zoo, or `package.module:factory`.")],
    backend: Annotated[list[BackendName] | None, typer.Option(help="One or several; all unless given.")] = None,
    size: Annotated[list[int] | None, typer.Option(min=1, max=8192, help="Sides in pixels; 320 and 640.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Images a forward.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Forwards of each that are measured, taking turns.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every backend.")] = 1,
    memory: Annotated[bool, typer.Option(help="Measure peak memory too, in processes of their own.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the record here, for `featherpress report`.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure latency, throughput and peak memory of models side by side, with random weights, in one run.

    Examples:
    ```
    featherpress bench featherface_v1 featherface_v2 --out bench.json
    featherpress bench featherface_v2 --backend fused --backend onnx
    ```
    """
    from featherpress.compress.deployment import backends, latency, listing
    from featherpress.compress.runs import write_json

    sizes = list(dict.fromkeys(size or (320, 640)))
    wanted: list[backends.Backend] = [each.value for each in dict.fromkeys(backend or BackendName)]
    candidates = list_candidates(list(dict.fromkeys(models)), sizes)
    counts = {"batch": batch, "rounds": rounds, "threads": threads}
    request = latency.BenchRequest(candidates=candidates, backends=wanted, sizes=sizes, memory=memory, **counts)
    record = latency.bench(request)
    if out is not None:
        write_json(out, record)
    _show(record, as_json, lambda: listing.render_bench(record))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, and JSON of audits, models and benchmarks.")],
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


@app.command()
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
    typer.echo(f"report: {run_demo(out, overwrite=overwrite)}")


def _evaluate_predictions(
    predictions: Path | None, ground_truth: Path | None, *, out: Path | None, as_json: bool
) -> None:
    if predictions is None or ground_truth is None:
        raise UsageError("--predictions and --ground-truth go together")
    from featherpress.compress.evaluation import evaluate_widerface
    from featherpress.compress.evaluation.listing import render_subsets
    from featherpress.compress.runs import write_json

    result = evaluate_widerface(predictions, ground_truth)
    record = {"schema": "featherpress.widerface/1", **result.to_dict()}
    if out is not None:
        write_json(out / "evaluation.json", record)
        draw_curves(out, result.curves, record)
    if as_json:
        _print_json(record)
    else:
        typer.echo(render_subsets(record))


def _print_recipe(recipe: "Recipe") -> None:
    from featherpress.compress.recipes import recipe_to_toml

    typer.echo(recipe_to_toml(recipe), nl=False)


def _show(record: dict[str, Any], as_json: bool, render: Callable[[], "RenderableType"]) -> None:
    """Print a record as JSON, or as it is rendered for people."""
    if as_json:
        _print_json(record)
    else:
        plain_console().print(render())


def _print_json(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
