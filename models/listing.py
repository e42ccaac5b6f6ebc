"""The zoo as a table of all models, or as a tree of each, printed or as JSON.

What a model costs is counted elsewhere and passed in, since models know nothing of counting.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from featherpress.files import hash_file
from featherpress.models.zoo import PUBLISHED, ModelEntry

if TYPE_CHECKING:
    from torch import nn

Format = Callable[[int], str]

_WIDTH = 80
_GUIDE = 4  # what rich's tree spends on one level


def tree_of(name: str, model: "nn.Module", costs: Mapping[str, tuple[int, int]], *, depth: int) -> dict[str, Any]:
    """Return a model's modules as a tree of this depth, 0 for the whole tree: records with their children inside.

    `costs` maps each module's path to the parameters and MACs of its subtree; the path "" is the model itself.
    """

    def node(name: str, path: str, module: "nn.Module", depth: int) -> dict[str, Any]:
        children = module.named_children() if depth else ()
        below = [node(child, f"{path}.{child}".lstrip("."), part, depth - 1) for child, part in children]
        params, macs = costs.get(path, (0, 0))
        return {"name": name, "kind": type(module).__name__, "params": params, "macs": macs, "children": below}

    return node(name, "", model, depth or -1)


def list_to_dict(entries: Sequence[ModelEntry], *, side: int) -> dict[str, Any]:
    """Return the list as a record for JSON."""
    return {"schema": "featherpress.models/1", "input": [1, 3, side, side], "models": [*map(_to_dict, entries)]}


def tree_to_dict(entry: ModelEntry, tree: Mapping[str, Any], *, side: int) -> dict[str, Any]:
    """Return one model and its tree as a record for JSON."""
    return {"schema": "featherpress.model/1", "input": [1, 3, side, side], **_to_dict(entry), "tree": tree}


def _to_dict(entry: ModelEntry) -> dict[str, Any]:
    declared = ("name", "year", "paper", "source", "summary", "params", "macs")
    return {
        **{key: getattr(entry, key) for key in declared},
        "strides": list(entry.strides),
        "weights": list(entry.weights),
        "published": [_published(file) for file in entry.weights],
        "shipped": entry.shipped is not None,
        "shipped_sha256": hash_file(entry.shipped) if entry.shipped else None,
        "settings": dict(entry.settings),
        "fused_params": entry.fused,
    }


def _published(file: str) -> dict[str, str | None]:
    """Return what is known of a published file by its name."""
    sha256, code = PUBLISHED.get(file, (None, None))
    return {"file": file, "sha256": sha256, "address": None, "code": code}


def render_list(entries: Sequence[ModelEntry], *, side: int, format_macs: Format) -> RenderableType:
    """Make a table of all models for eighty columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "year", "paper", "params", "MACs", "strides", "weights"):
        number = column in {"params", "MACs"}
        table.add_column(column, justify="right" if number else "left", no_wrap=column != "paper")
    for entry in entries:
        table.add_row(
            entry.name,
            str(entry.year),
            entry.paper,
            f"{entry.params:,}",
            "-" if entry.macs is None else format_macs(entry.macs),
            "/".join(map(str, entry.strides)) or "-",
            "shipped" if entry.shipped else "known" if entry.weights else "-",
        )
    notes = f"MACs of one image of {side}x{side}; strides in pixels, level by level."
    weights = "Weights: shipped ones come along (`pretrained=True`), known ones are public."
    more = "`featherpress models show NAME` draws one as a tree, and says what its weights are."
    return Group(table, Text(), Text(notes), Text(weights), Text(more))


def render_tree(entry: ModelEntry, tree: Mapping[str, Any], *, side: int, format_macs: Format) -> RenderableType:
    """Format a model as a tree with two columns of numbers, and a description above and below."""
    lines = [f"{entry.name}: {entry.summary}", f"{entry.source}"]
    after = [f"MACs of one image of {side}x{side}; each row is a module with all that it holds."]
    if entry.fused is not None:
        saved = f"{entry.params - entry.fused:,} fewer"
        after.append(f"Folded for inference by fuse(model): {entry.fused:,} parameters, {saved}.")
    after.append("Settings: " + ", ".join(f"{key}={value}" for key, value in entry.settings.items()))
    if entry.shipped is not None:
        after += [f"Trained weights shipped: {entry.shipped.name}", f"  sha256 {hash_file(entry.shipped)}"]
    for known in map(_published, entry.weights):
        after.append(f"Trained weights known: {known['file']}")
        after += [f"  sha256 {known['sha256']}"] if known["sha256"] else []
        after += ["  file: no address known", *([f"  code: {known['code']}"] if known["code"] else [])]
    if not (entry.shipped or entry.weights):
        after.append("Trained weights known: none")
    heading = Text(_line("module", "params", "MACs", depth=0), style="bold")
    return Group(*map(Text, lines), Text(), heading, _branch(tree, 0, format_macs), Text(), *map(Text, after))


def _branch(node: Mapping[str, Any], depth: int, format_macs: Format) -> Tree:
    title = node["name"] if node["kind"] == node["name"] else f"{node['name']} {node['kind']}"
    tree = Tree(Text(_line(title, f"{node['params']:,}", format_macs(node["macs"]), depth=depth)), guide_style="dim")
    tree.children = [_branch(child, depth + 1, format_macs) for child in node["children"]]
    return tree


def _line(title: str, params: str, macs: str, *, depth: int) -> str:
    """Lay a row out so that its numbers end where those of every other depth end."""
    numbers = f"{params:>10}  {macs:>9}"
    room = _WIDTH - _GUIDE * depth - len(numbers) - 1
    return f"{title if len(title) <= room else title[: room - 1] + '…':<{room}} {numbers}"
