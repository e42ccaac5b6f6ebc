"""`prune`: a model cut to an absolute budget, whatever it is."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from featherpress.commands.model_files import is_file
from featherpress.commands.places import require_own
from featherpress.commands.printing import plain_console, print_json, stdout_to_stderr
from featherpress.commands.subjects import advised, list_knobs, open_subject, read_settings
from featherpress.errors import UsageError
from featherpress.files import split_weights
from featherpress.options import ArgumentOption, InputOption, JsonOption, MacsOption, ParamsOption, ShapedOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from featherpress.budgets.views.diff import Diff
    from featherpress.compress.pruning.result import Pruned
    from featherpress.records.pruning import Pruning


def prune(
    model: Annotated[str, typer.Argument(help="A model of the zoo, or `package.module:factory`.")],
    params: ParamsOption = None,
    macs: MacsOption = None,
    budget: Annotated[
        str, typer.Option(metavar="FILE", help="A budget file, or the name of a shipped one: its limits hold too.")
    ] = "",
    weights: ShapedOption = None,
    inputs: InputOption = None,
    settings: ArgumentOption = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Modules or tensors that stay as they are, as `head*`; repeatable."),
    ] = None,
    importance: Annotated[
        Literal["l2", "l1", "batchnorm"],
        typer.Option(
            metavar="HOW", help="What a channel is worth: `l2` or `l1` of its weights, or `batchnorm`'s scale."
        ),
    ] = "l2",
    floor: Annotated[float, typer.Option(metavar="SHARE", help="The least share of an axis that stays.")] = 0.1,
    multiple_of: Annotated[
        int, typer.Option(metavar="N", min=1, help="Widths that stay are multiples of this, as hardware likes them.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write weights and plan here, .safetensors; else only look.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Cut whole channels of any model until it is within a budget, and no further.

    The result costs at most every limit, counted, and computes what the model does without these channels. Train it
    further by a recipe: `[student] pruned = "FILE"`, or `prune = { params = "1M" }`.

    Exit code: 0 within every limit, 1 if one cannot be reached, 2 usage or a bad file.

    Examples:
    ```
    featherpress prune mine:net --params 1M --macs 150M --out small.safetensors
    featherpress prune torchvision.models:resnet18 --params 5M --keep fc
    featherpress prune mine:net --budget mine.toml --weights trained.safetensors
    ```
    """
    from featherpress.budgets import diff, load_budget
    from featherpress.compress import prune as cut

    if is_file(model) or split_weights(model)[1]:
        raise UsageError(f"prune needs what builds the model, package.module:factory, and --weights; got {model}")
    require_own(out, _is_pruned, "a model that `prune` wrote")
    if out is not None and out.suffix != ".safetensors":
        raise UsageError(
            f"a pruned model is written as safetensors: name --out so, as {out.with_suffix('.safetensors')}"
        )
    chosen, limits = read_settings(settings), load_budget(budget) if budget else None
    subject = open_subject(model, inputs=inputs or (), settings=chosen, budget=limits, weights=weights)
    with advised(subject), stdout_to_stderr():
        result = cut(
            subject.model,
            subject.inputs,
            params=params,
            macs=macs,
            budget=limits,
            keep=tuple(keep or ()),
            importance=importance,
            floor=floor,
            multiple_of=multiple_of,
        )
    if out is not None:
        _write(result, out, model, chosen)
    compared = diff(result.before, result.cost, names=(model, "pruned"))
    record = result.describe(model)
    if as_json:
        file = {"file": str(out)} if out else {}
        print_json({**record.to_dict(), **file, "components": compared.to_dict()["components"]})
    else:
        plain_console().print(_render(record, compared, _hints(record, weights, out, inputs or ())))


def _is_pruned(path: Path) -> bool:
    """Tell what `prune` wrote from a pruned model that was trained since."""
    from featherpress.models.saving import TARGET, read_metadata

    return path.suffix == ".safetensors" and TARGET in read_metadata(path)


def _write(result: "Pruned", out: Path, model: str, settings: Mapping[str, Any]) -> None:
    from featherpress.models.saving import SETTINGS, TARGET, save_weights

    save_weights(result.model, out, metadata={TARGET: model, SETTINGS: json.dumps(dict(settings))})


def _render(record: "Pruning", compared: "Diff", hints: "list[str]") -> "RenderableType":
    """Make the tables of components, of limits and of what is locked, for a console."""
    from rich.console import Group
    from rich.text import Text

    from featherpress.budgets.views.diff import render_diff
    from featherpress.budgets.views.layout import console_table

    header = ["limit", "at most", "pruned", "left", *(["uniform width"] if record.uniform else [])]
    rows = []
    for name, most in record.limits.items():
        row = [name, f"{most:,}", f"{most - record.slack[name]:,}", f"{record.slack[name]:,}"]
        rows.append([*row, *([f"{record.uniform[name]:,}"] if record.uniform else [])])
    parts: list[RenderableType] = [render_diff(compared), Text(), console_table(header, rows), Text()]
    locked = [*_locked_rows(record)]
    if locked:
        parts += [console_table(("locked", "axes", "such as"), locked, words=True), Text()]
    return Group(*parts, *map(Text, [_proof(record), *hints]))


def _locked_rows(record: "Pruning") -> Iterator[list[str]]:
    for reason, units in record.locked.items():
        yield [reason, str(len(units)), units[0].axes[0]]


def _proof(record: "Pruning") -> str:
    free = [unit for unit in record.units if not unit.locked]
    cut = [unit for unit in free if unit.after < unit.before]
    if not cut:
        return "nothing was cut: the model is within every limit as it is"
    return (
        f"{len(cut)} of {len(free)} groups of axes were cut; without these channels the model computes the same, to "
        f"{record.error:.0e} of its signal"
    )


def _hints(record: "Pruning", weights: Path | None, out: Path | None, inputs: Sequence[str]) -> list[str]:
    """Say what comes next, and what else there is where the model has knobs."""
    lines, model = [], record.model
    if weights is None and record.after != record.before:
        lines.append(f"what was cut rests on the weights that {model} begins with: --weights gives it trained ones")
    if out is not None:
        given = [word for each in inputs for word in ("--input", each)]
        lines.append(
            f"wrote {out}; `{shlex.join(['featherpress', 'audit', model, '--weights', str(out), *given])}` counts it"
        )
    knobs = list_knobs(model)
    if knobs:
        lines.append(
            f"{model} has knobs ({', '.join(knobs)}): `featherpress fit` finds whole architectures within a budget"
        )
    return lines
