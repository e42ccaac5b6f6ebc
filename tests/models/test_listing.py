"""The list of models and the tree of one, as printed and as records."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console, RenderableType

from featherpress.budgets import count
from featherpress.budgets.views.layout import format_macs
from featherpress.files import hash_file
from featherpress.models import ModelEntry, create_model, find_model, list_models
from featherpress.models.listing import list_to_dict, render_list, render_tree, tree_of, tree_to_dict
from featherpress.models.zoo import PUBLISHED

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "models_show.txt"


def plain(renderable: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None, force_terminal=False).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def listed(name: str) -> ModelEntry:
    return replace(find_model(name), macs=None)


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    """V2 at 640x640, all of it."""
    model = create_model("featherface_v2")
    cost = count(model, torch.zeros(1, 3, 640, 640))
    parts = {path: cost.subtree(path) for path, _ in model.named_modules()}
    return tree_of("featherface_v2", model, {k: (part.params, part.macs) for k, part in parts.items()}, depth=0)


def cut(node: dict[str, Any], depth: int) -> dict[str, Any]:
    return node | {"children": [cut(child, depth - 1) for child in node["children"]] if depth else []}


def test_list_fits_eighty_columns() -> None:
    """Every model has one line with its year, exact parameters, strides, and whether weights are known."""
    text = plain(render_list([listed(name) for name in list_models()], side=640, format_macs=format_macs))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    line = next(line for line in text.splitlines() if line.startswith("featherface_v1_ssh_plain"))
    assert line.split() == ["featherface_v1_ssh_plain", "2025", "FeatherFace", "489,015", "-", "8/16/32", "known"]


def test_list_as_a_record() -> None:
    """The record names every model with numbers as numbers, and survives JSON."""
    record = json.loads(json.dumps(list_to_dict([listed(name) for name in list_models()], side=640)))
    assert [row["name"] for row in record["models"]] == list_models()
    v1 = next(row for row in record["models"] if row["name"] == "featherface_v1")
    assert (v1["params"], v1["year"], v1["strides"], v1["weights"]) == (485_599, 2025, [8, 16, 32], [])
    assert v1["settings"]["out_channels"] == 74
    assert v1["fused_params"] < v1["params"]


def test_known_weights_are_the_files_there_are(shared: Path) -> None:
    """Each file that an entry names exists among the public checkpoints, byte for byte, and each of these is named."""
    named = {file for name in list_models() for file in find_model(name).weights}
    assert named == {path.name for path in (shared / "weights").glob("*.pth")}
    for file in named:
        assert PUBLISHED[file][0] == hash_file(shared / "weights" / file)


def test_tree_sums_up(tree: dict[str, Any]) -> None:
    """A module costs at least what its children cost together, and the root exactly its components."""

    def check(node: dict[str, Any]) -> None:
        assert node["params"] >= sum(child["params"] for child in node["children"])
        assert node["macs"] >= sum(child["macs"] for child in node["children"])
        for child in node["children"]:
            check(child)

    check(tree)
    assert tree["params"] == sum(child["params"] for child in tree["children"]) == 256_812
    assert tree["macs"] == sum(child["macs"] for child in tree["children"])


def test_tree_is_cut_at_its_depth(tree: dict[str, Any]) -> None:
    """A depth of one shows the components and no module below them."""
    shallow = tree_of("v2", create_model("featherface_v2"), {}, depth=1)
    assert [child["name"] for child in shallow["children"]] == [child["name"] for child in tree["children"]]
    assert not any(child["children"] for child in shallow["children"])


def test_tree_as_a_record(tree: dict[str, Any]) -> None:
    """The record is the model's row with the whole tree inside, and survives JSON."""
    record = json.loads(json.dumps(tree_to_dict(listed("featherface_v2"), tree, side=640)))
    assert record["schema"] == "featherpress.model/1"
    assert record["tree"]["params"] == record["params"]
    assert record["tree"]["children"][0]["name"] == "backbone"


def test_tree_is_drawn_as_before(tree: dict[str, Any]) -> None:
    """The drawing is the golden file, and its numbers stand in columns that end at the eightieth."""
    text = plain(render_tree(listed("featherface_v2"), cut(tree, 2), side=640, format_macs=format_macs))
    drawn = text.split("\n\n")[1].splitlines()
    assert {len(line) for line in drawn} == {80}
    shipped = find_model("featherface_v2").shipped
    assert shipped is not None
    assert text.replace(hash_file(shipped), "SHA256") == GOLDEN.read_text(encoding="utf-8")


def test_known_weights_say_what_they_are(tree: dict[str, Any]) -> None:
    """Each public file is named with its sha256 and whose code it is of; what is not known is said, not made up."""
    text = plain(render_tree(listed("retinaface_mnet025"), tree, side=640, format_macs=format_macs))
    assert f"sha256 {PUBLISHED['retinaface_mnet025_426608.pth'][0]}\n" in text
    assert "file: no address known\n  code: https://github.com/biubug6/Pytorch_Retinaface\n" in text
    other = replace(listed("retinaface_mnet025"), weights=("anything.pth",))
    assert tree_to_dict(other, tree, side=640)["published"] == [
        {"file": "anything.pth", "sha256": None, "address": None, "code": None}
    ]
    text = plain(render_tree(other, tree, side=640, format_macs=format_macs))
    assert text.endswith("Trained weights known: anything.pth\n  file: no address known\n")
