"""`export` and `bench`: how a model leaves, and how fast it then is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from featherpress.commands.model_names import model_and_weights, weights_or_shipped
from featherpress.commands.places import require_own, require_place
from featherpress.commands.printing import show
from featherpress.commands.recipe_exports import build_by_recipe, open_int8
from featherpress.commands.subjects import count_model
from featherpress.errors import UsageError
from featherpress.options import BackendName, JsonOption, SetOption, WeightsOption

if TYPE_CHECKING:
    from torch import nn

    from featherpress.compress.deployment.exporting import Int8Request
    from featherpress.compress.deployment.latency import Costs
    from featherpress.compress.deployment.quantization import Quantization

# Where there is no folder of images, so many are drawn.
MOST_IMAGES = 1_000_000


def _read_size(text: str) -> tuple[int, int]:
    """Read an image's height and width in pixels, each 65,536 at most: a square's side, or a shape as 1x3x480x640."""
    sides = text.removeprefix("1x3x").split("x") if text.startswith("1x3x") else [text, text]
    sizes = [int(side) if side.isascii() and side.isdecimal() and len(side) <= 5 else 0 for side in sides]
    if len(sizes) != 2 or not all(1 <= size <= 65536 for size in sizes):
        raise UsageError(
            "--input is one image: the side of a square in pixels, as 640, or its shape, as 1x3x480x640; "
            f"got {text[:40]!r}"
        )
    return sizes[0], sizes[1]


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A model of the zoo, or `package.module:factory`, with a file's weights as `NAME@FILE`; not needed "
            "where the weights' file says it."
        ),
    ] = "",
    weights: WeightsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The ONNX file, named after the model unless given; others after it."),
    ] = None,
    priors: Annotated[bool, typer.Option("--priors", help="Add the priors as an output.")] = False,
    decode: Annotated[
        bool, typer.Option("--decode", help="Output boxes and landmarks in pixels, and scores, instead of raw outputs.")
    ] = False,
    nms: Annotated[
        float | None,
        typer.Option(
            metavar="IOU",
            min=0,
            max=1,
            help="Decode, and suppress boxes that overlap a better one by this, in the file.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="SCORE", min=0, max=1, help="With --nms: leave out detections below this score; 0.02."),
    ] = None,
    deformable: Annotated[
        Literal["samples", "operator"],
        typer.Option(metavar="FORM", help="Deformable convolutions as GridSample (`samples`) or as one `operator`."),
    ] = "samples",
    no_fuse: Annotated[bool, typer.Option("--no-fuse", help="Leave BatchNorms as they are.")] = False,
    opset: Annotated[
        int | None,
        typer.Option(metavar="N", min=17, max=25, help="ONNX's operator set; the oldest that has all that is needed."),
    ] = None,
    size: Annotated[
        Any,
        typer.Option(
            "--input",
            metavar="SHAPE",
            parser=_read_size,
            help="One image of this size and no other, a square's side, as 640, or 1x3x480x640; without it a model "
            "takes all that it can.",
        ),
    ] = None,
    program: Annotated[bool, typer.Option("--program", help="Write a torch.export program too, .pt2.")] = False,
    no_onnx: Annotated[bool, typer.Option("--no-onnx", help="Leave ONNX out.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise too, and score before and after.")] = False,
    plan: Annotated[
        str | None,
        typer.Option(
            "--int8-plan",
            metavar="PLAN",
            help="Convolutions in eight bits: those that are faster here (auto, the default), all, or those in a file.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Labelled images for --int8; the recipe's, or synthetic faces, unless given."
        ),
    ] = None,
    calibration: Annotated[
        Literal["percentile", "minmax", "entropy", "none"] | None,
        typer.Option(
            metavar="HOW",
            help="--int8's ranges of activations: percentile, the default, minmax, entropy, or none (float).",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--calibration-images",
            metavar="N",
            min=1,
            max=MOST_IMAGES,
            help="How many images --int8 calibrates on; 50.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=MOST_IMAGES, help="Score --int8 on the first N images only; 0: all."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="Export --weights of its student, whatever the task.")
    ] = "",
    settings: SetOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model as ONNX, checked against torch to 1e-4; in eight bits; or as a torch program.

    With --recipe MODEL is `student` or `teacher`, and --int8 calibrates on its training images and scores by its task's
    metric. The file says what images the model takes, and its classes.

    Exit code: 1 if the model cannot be exported, or its export computes something else; then nothing is written.

    Examples:
    ```
    featherpress export featherface_v2 --decode
    featherpress export --weights last.safetensors --out v2.onnx
    featherpress export --weights last.safetensors --int8 --data wider/
    featherpress export torchvision.models:resnet18 --input 224 --program
    featherpress export --recipe digits --weights last.safetensors --int8
    ```
    """
    from featherpress.compress.deployment import exporting, graphs, listing, planning, quantization

    require_place(out)
    if threshold is not None and nms is None:
        raise UsageError("--threshold has no effect without --nms; add that, or leave it out")
    of_int8 = {"--int8-plan": plan, "--calibration": calibration, "--calibration-images": images, "--limit": limit}
    given = [name for name, value in (of_int8 | ({} if recipe else {"--data": data})).items() if value is not None]
    if given and not int8:
        raise UsageError(f"{given[0]} has no effect without --int8; add that, or leave it out")
    if calibration == "none" and images is not None:
        raise UsageError("--calibration none looks at no images; leave --calibration-images out")
    plan, images, limit = plan or "auto", images or 50, limit or 0
    options = graphs.GraphOptions(
        priors=priors, decode=decode or nms is not None, deformable=deformable, fuse=not no_fuse
    )
    if int8 and size and size[0] != size[1]:
        raise UsageError("--int8 calibrates on images that fill a square: give --input one side, or leave it out")
    chosen = plan if plan in {"auto", "all"} else planning.read_plan(Path(plan))
    how = quantization.Quantization(plan=chosen, calibration=calibration or "percentile")
    built: nn.Module | None = None
    own: Mapping[str, Any] = {}
    eight: exporting.Int8Data | None = None
    if recipe:
        placed = [*(settings or ()), *([f"data.root={data.as_posix()}"] if data else [])]
        task, model, own, built = build_by_recipe(recipe, placed, weights, role=model)
        eight = open_int8(task, built, limit=limit, images=images, how=how) if int8 else None
    else:
        if settings:
            raise UsageError("--set changes a recipe; name it with --recipe")
        model, weights = model_and_weights(model, weights)
        weights = weights if ":" in model else weights_or_shipped(weights, model)
        eight = _ask_for_int8(data, limit=limit, images=images, how=how, side=max(size or (0,))) if int8 else None
    request = exporting.ExportRequest(
        target=model,
        weights=weights,
        model=built,
        settings=own,
        out=out,
        options=options,
        side=size,
        opset=opset,
        nms=nms,
        **({} if threshold is None else {"threshold": threshold}),
        program=program,
        onnx=not no_onnx,
        int8=eight,
        overwrite=overwrite,
    )
    record = exporting.export(request)
    show(record, as_json, lambda: listing.render_export(record))


def bench(
    models: Annotated[
        list[str], typer.Argument(help="Models of the zoo, or `package.module:factory`; of a pruned one, `NAME@FILE`.")
    ],
    backend: Annotated[
        list[BackendName] | None,
        typer.Option(metavar="NAME", help="eager, fused, compiled, onnx or onnx-int8; repeatable; all unless given."),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, max=8192, help="Side of the input; repeatable; 320 and 640 unless given."),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Images in each forward.")] = 1,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="Forwards of each that are measured, taking turns.")
    ] = 20,
    threads: Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Threads that every backend may use.")] = 1,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Leave peak memory out.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the record here, for `featherpress report`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure latency, throughput and peak memory of models side by side, with random weights.

    Examples:
    ```
    featherpress bench featherface_v1 featherface_v2 --out bench.json
    featherpress bench featherface_v2 --backend fused --backend onnx
    featherpress bench my:net my:net@pruned.safetensors --size 224
    ```
    """
    from featherpress.compress.deployment import backends, latency, listing
    from featherpress.files import write_json
    from featherpress.records.deployment import Bench

    require_own(out, Bench.load, "a record that `bench` wrote")
    sizes = list(dict.fromkeys(size or (320, 640)))
    wanted: list[backends.Backend] = [each.value for each in dict.fromkeys(backend or BackendName)]
    request = latency.BenchRequest(
        models=_count_models(models, sizes),
        backends=wanted,
        sizes=sizes,
        batch=batch,
        rounds=rounds,
        threads=threads,
        memory=not no_memory,
    )
    record = latency.bench(request)
    if out is not None:
        write_json(out, record)
    show(record, as_json, lambda: listing.render_bench(record))


def _ask_for_int8(data: Path | None, *, limit: int, images: int, how: "Quantization", side: int) -> "Int8Request":
    """Open the images to calibrate on and to score on: a folder's splits train and val, or synthetic faces."""
    from featherpress.compress.data import SampleDataset, SyntheticFaces
    from featherpress.compress.deployment.exporting import Int8Request
    from featherpress.compress.evaluation.scoring import open_labelled

    sides: tuple[SampleDataset, SampleDataset]
    if data is None:
        sides = SyntheticFaces(length=images, seed=0), SyntheticFaces(length=limit or 200, seed=1_000_003)
    else:
        sides = open_labelled(data, split="train", limit=images), open_labelled(data, split="val", limit=limit)
    return Int8Request(
        calibration=sides[0],
        validation=sides[1],
        about={"name": data.name if data else "synthetic faces", "split": "val"},
        how=how,
        side=side,
    )


def _count_models(names: Sequence[str], sizes: Sequence[int]) -> "Costs":
    """Count every model at every size; MACs that cannot be counted are left open."""

    def cost(name: str, size: int) -> tuple[int, int | None]:
        target, weights = model_and_weights(name, None)
        params, audit = count_model(target, inputs=[str(size)], weights=weights)
        return params, audit.cost.macs if audit else None

    return {name: {size: cost(name, size) for size in sizes} for name in dict.fromkeys(names)}
