"""Options that several commands share, and the values of some."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from featherpress.amounts import read_amount

Format = Literal["table", "json", "markdown", "csv", "junit"]
DiffFormat = Literal["table", "json", "markdown"]
GateFormat = Literal["text", "json", "markdown", "junit"]
UndecidedAs = Literal["pass", "fail"]
By = Literal["component", "module", "operator"]


class FigureFormat(StrEnum):
    """How figures are written beside PNG; typer takes no list of a Literal."""

    PDF = "pdf"
    SVG = "svg"


class BackendName(StrEnum):
    """What runs a model in a benchmark."""

    EAGER = "eager"
    FUSED = "fused"
    COMPILED = "compiled"
    ONNX = "onnx"
    ONNX_INT8 = "onnx-int8"


def _amount(help_text: str) -> Any:
    return typer.Option(metavar="N", parser=read_amount, help=help_text)


WeightsOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A checkpoint; the shipped weights unless given.")
]
ShapedOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The model's weights; those of a pruned model, trained or not, say its shape."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key, as `schedule.epochs=3`; repeatable."),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="What the model is fed: a square image's side, as 640; a shape, as 1x77:int64; with a name, as "
        "ids=1x77:int64; repeatable.",
    ),
]
ArgumentOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An argument of the factory, as num_classes=10; repeatable."),
]
ParamsOption = Annotated[int | None, _amount("The most parameters, as 256812, 128K or 1.5M.")]
MacsOption = Annotated[int | None, _amount("The most MACs at the input's size, as 150M or 1.2G.")]
KnobOption = Annotated[
    list[str] | None,
    typer.Option(
        "--knob",
        metavar="ARG=VALUES",
        help="An argument to turn: `out_channels=16:128:2` (from, to, step) or `ratio=0.5,1,2`; repeatable.",
    ),
]
FormulaOption = Annotated[
    list[str] | None,
    typer.Option(
        "--formula",
        metavar="OP=EXPR",
        help="MACs of an operator, as ns::op=2*result.numel(), or a module of formulas; repeatable.",
    ),
]
ClaimsOption = Annotated[
    Path | None,
    typer.Option(metavar="TABLE", help="Count again what a CSV says of many models, and say what became of each row."),
]
FactoryOption = Annotated[
    str, typer.Option(metavar="NAME", help="Who builds a row's model, by its name: package.module:factory.")
]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="COLUMN=FIELD",
        help="What a column of the table is: name, params, macs, input, or an argument of the factory; repeatable.",
    ),
]
JobsOption = Annotated[int, typer.Option(metavar="N", min=1, help="How many models are counted at once.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="The run's folder; `runs/NAME` unless given.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, where it stopped.")]
ChangedOption = Annotated[
    bool, typer.Option("--allow-changed", help="Go on though recipe, data, teachers or machine are not as they were.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Remove the run that is in --out first.")]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the recipe with every default, the run's size and files; train nothing."),
]
CacheOption = Annotated[
    Literal["ram", "disk", "none"] | None,
    typer.Option(
        metavar="PLACE", help="Where decoded images are kept: `ram`, `disk` or `none`; the recipe's unless given."
    ),
]
OverBudgetOption = Annotated[bool, typer.Option("--allow-over-budget", help="Train a student that breaks its budget.")]
LeakOption = Annotated[
    bool, typer.Option("--allow-leak", help="Train though validation images are training images too.")
]
SideOption = Annotated[
    int, typer.Option("--input", metavar="N", min=1, max=65536, help="Side of the square input in pixels.")
]
LongSideOption = Annotated[
    int, typer.Option(metavar="N", min=0, help="Scale images so that their longer side has N pixels; 0: as they are.")
]
BatchOption = Annotated[
    int, typer.Option(metavar="N", min=1, max=1024, help="How many images of one size go through the model at once.")
]
NmsOption = Annotated[
    float,
    typer.Option(
        "--nms", metavar="IOU", min=0, max=1, help="Of two boxes that overlap by more, the higher score stays."
    ),
]
FlipOption = Annotated[bool, typer.Option("--flip", help="Run the mirrored image too: twice the time.")]
