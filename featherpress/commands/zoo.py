"""`models` and `models show`: the zoo."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from featherpress.commands.printing import show
from featherpress.errors import CountError, FeatherpressError, UsageError
from featherpress.options import JsonOption, SideOption

if TYPE_CHECKING:
    from featherpress.budgets import Cost
    from featherpress.models import ModelEntry

models_app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")


@models_app.callback()
def models(context: typer.Context, side: SideOption = 640, as_json: JsonOption = False) -> None:
    """List the zoo: parameters, MACs, and whether trained weights are known.

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

    from featherpress.budgets.views.layout import format_macs
    from featherpress.models import list_models, listing

    entries = [_list_model(name, side) for name in list_models()]
    show(
        listing.list_to_dict(entries, side=side),
        as_json,
        lambda: listing.render_list(entries, side=side, format_macs=format_macs),
    )


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model of the zoo.")],
    depth: Annotated[int, typer.Option(metavar="N", min=0, help="How many levels of modules; 0: all.")] = 2,
    side: SideOption = 640,
    as_json: JsonOption = False,
) -> None:
    """Draw a model as a tree with the parameters and MACs of every module, and describe its weights.

    Examples:
    ```
    featherpress models show featherface_v2 --depth 3
    ```
    """
    from featherpress.budgets.views.layout import format_macs
    from featherpress.models import create_model, listing

    entry, cost = _count_model(name, side)
    if cost is None:
        raise CountError(f"{name} cannot be counted at {side}x{side}; try another --input")
    model = create_model(name)
    parts = {path: cost.subtree(path) for path, _ in model.named_modules()}
    costs = {path: (part.params, part.macs) for path, part in parts.items()}
    tree = listing.tree_of(name, model, costs, depth=depth)
    show(
        listing.tree_to_dict(entry, tree, side=side),
        as_json,
        lambda: listing.render_tree(entry, tree, side=side, format_macs=format_macs),
    )


def _list_model(name: str, side: int) -> "ModelEntry":
    """Return what a model declares, or count it if nothing is declared for this size."""
    from featherpress.models import find_model
    from featherpress.models.zoo import DECLARED_SIDE

    entry = find_model(name)
    return entry if side == DECLARED_SIDE and entry.macs is not None else _count_model(name, side)[0]


def _count_model(name: str, side: int) -> "tuple[ModelEntry, Cost | None]":
    """Build and count a model of the zoo for a list; one that cannot be counted is listed without MACs."""
    from featherpress.budgets import count
    from featherpress.budgets.counting.inputs import make_inputs
    from featherpress.models import Detector, create_model, find_model, fuse

    model = create_model(name)
    params, fused = (sum(weight.numel() for weight in each.parameters()) for each in (model, fuse(model)))
    try:
        cost = count(model, *make_inputs([str(side)]).args)
    except FeatherpressError:
        cost = None
    macs = cost.macs if cost else None
    strides = model.anchors.strides if isinstance(model, Detector) else ()
    return replace(find_model(name), params=params, macs=macs, strides=strides, fused=fused), cost
