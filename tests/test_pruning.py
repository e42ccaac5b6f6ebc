"""`featherpress prune`, and what other commands make of its file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from featherpress.compress import load_pruned, prune
from featherpress.errors import CheckpointError
from featherpress.models import create_model, load_detector, load_weights, save_weights
from featherpress.models.factories import load_factory

Run = Callable[..., Any]
MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        inner = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(inner, nn.Conv2d(width, width, 3, padding=1))
        self.head = nn.Linear(width, classes)

    def forward(self, image):
        x = self.stem(image)
        return self.head((x + self.body(x)).mean((2, 3)))

def net(width=24, classes=5):
    return Net(width, classes)

def plain():
    return Net(24, 5)

def sorting():
    class Odd(Net):
        def forward(self, image):
            x = torch.sort(self.stem(image), dim=1).values
            return self.head(x.mean((2, 3)))
    return Odd(24, 5)

def gated():
    class Gated(Net):
        def forward(self, image):
            return super().forward(image if image.mean() > 0 else -image)
    return Gated(24, 5)
"""
WHOLE = 3 * 24 * 9 + 24 + 48 + 2 * (24 * 24 * 9 + 24) + 48 + 24 * 5 + 5
INPUT = ("--input", "16")


@pytest.fixture
def run(run_command: Run, tmp_path: Path) -> Run:
    """Run commands in a folder with a module of models."""
    (tmp_path / "nets.py").write_text(MODULE)
    return run_command


def test_what_fits_is_left_whole(run: Run) -> None:
    """Nothing is cut, and the uniform width beside it is the whole too."""
    found = json.loads(run("prune", "nets:plain", "--params", "1M", *INPUT, "--json").out)
    assert (found["slack"]["params"], found["uniform"]["params"]) == (1_000_000 - WHOLE, WHOLE)
    said = run("prune", "nets:plain", "--params", "1M", *INPUT).out
    assert "nothing was cut: the model is within every limit as it is" in said
    assert "what was cut" not in said


def test_the_command_that_counts_what_was_written_runs(run: Run) -> None:
    """It gives the inputs that pruning was given."""
    said = " ".join(run("prune", "nets:plain", "--params", "2K", *INPUT, "--out", "small.safetensors").out.split())
    assert "`featherpress audit nets:plain --weights small.safetensors --input 16` counts it" in said


def test_the_table_says_what_was_cut_and_what_is_locked(run: Run) -> None:
    """Components before and after, each limit with what is left, the locked axes with their reason; nothing written."""
    ending = run("prune", "nets:plain", "--params", "2K", "--macs", "400K", *INPUT)
    assert ending.code == 0, ending.err
    assert f"{WHOLE:,}" in ending.out
    limits = {
        row.split()[0]: row.split()[1:4] for row in ending.out.splitlines() if row.startswith(("params ", "macs "))
    }
    for name, (most, got, left) in limits.items():
        assert int(got.replace(",", "")) + int(left.replace(",", "")) == int(most.replace(",", "")), name
    assert limits["params"][0] == "2,000"
    assert "head.weight[0]" in ending.out
    assert "part of the output" in ending.out
    assert "what was cut rests on the weights that nets:plain begins with: --weights gives it trained ones" in " ".join(
        ending.out.split()
    )
    assert sorted(path.name for path in Path().iterdir() if path.suffix) == ["nets.py"]
    assert "featherpress fit" not in ending.out


def test_a_model_with_knobs_is_sent_to_fit_and_one_without_to_prune(run: Run) -> None:
    assert "nets:net has knobs (width)" in run("prune", "nets:net", "--params", "2K", *INPUT).out.replace("\n", " ")
    assert "`featherpress prune`" in run("fit", "nets:plain", "--params", "2000").err


@pytest.fixture
def small(run: Run) -> Path:
    """A net of width 30, cut to 2,000 parameters."""
    given = ("--set", "width=30", "--params", "2000", *INPUT)
    assert run("prune", "nets:net", *given, "--out", "small.safetensors").code == 0
    return Path("small.safetensors")


@pytest.mark.needs_torch("2.9", "exporting")
def test_audit_diff_and_export_read_the_pruned_file(run: Run, small: Path) -> None:
    """Its shape and its factory's arguments are what the file says; the audit counts what the promise was about."""
    counted = json.loads(run("audit", "nets:net", "--weights", small, *INPUT, "--json").out)["total"]["params"]
    assert 1_800 < counted <= 2_000
    compared = json.loads(run("diff", "nets:net", "--weights", small, *INPUT, "--json").out)
    assert compared["total"]["params"]["after"] == counted
    assert compared["total"]["params"]["before"] == WHOLE
    assert run("export", "nets:net", "--weights", small, "--input", "16", "--out", "small.onnx").code == 0
    total = json.loads(run("audit", "small.onnx", "--json").out)["total"]
    assert 0 < total["params"] <= counted


def test_a_benchmark_names_the_file_with_the_model(run: Run, small: Path) -> None:
    """Both stand in one table, each with what it costs."""
    own = ("--size", "64", "--backend", "eager", "--rounds", "1", "--no-memory", "--json")
    rows = json.loads(run("bench", "nets:net", f"nets:net@{small}", *own).out)["results"]
    assert [row["model"] for row in rows] == ["nets:net", "nets:net@small.safetensors"]
    assert rows[0]["params"] == WHOLE
    assert rows[1]["params"] <= 2_000


def test_audit_and_diff_take_a_model_with_a_file_as_bench_does(run: Run, small: Path) -> None:
    """`TARGET@FILE` is what --weights says, in the file's shape; weights named twice are refused."""
    pruned = f"nets:net@{small.name}"
    record = json.loads(run("audit", pruned, *INPUT, "--json").out)
    assert (record["model"], record["total"]["params"] <= 2_000) == (pruned, True)
    whole, params = json.loads(run("diff", "nets:net", pruned, *INPUT, "--json").out), record["total"]["params"]
    assert whole["total"]["params"]["after"] == params
    Path("nets@2").mkdir()
    Path("nets.py").rename("nets@2/mine.py")
    assert json.loads(run("audit", "nets@2/mine.py:net", *INPUT, "--json").out)["total"]["params"] == WHOLE
    of_folder = run("audit", f"nets@2/mine.py:net@{small.name}", "--set", "width=30", *INPUT, "--json")
    assert json.loads(of_folder.out)["total"]["params"] == params
    refused = run("audit", pruned, "--weights", small.name, *INPUT)
    assert (refused.code, "choose one" in refused.err) == (2, True)
    refused = run("prune", pruned, "--params", "1K", *INPUT)
    assert (refused.code, "--weights; got nets:net@" in refused.err) == (2, True)


def test_a_factory_of_fewer_channels_is_not_the_files(run: Run, small: Path) -> None:
    """What is left of a model is at no place more than the whole has."""
    with pytest.raises(CheckpointError, match=r"head.* give the factory the arguments it had"):
        load_pruned(lambda: load_factory("nets:net", {"width": 30, "classes": 3}), small)


def test_trained_weights_keep_the_shape(run: Run, small: Path, tmp_path: Path) -> None:
    """Built back, trained, saved: the file builds the same model, and fits a model of the same shape."""
    model = load_pruned(lambda: load_factory("nets:net", {"width": 30}), small)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.rand(4, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    save_weights(model, tmp_path / "trained.safetensors")
    again = load_pruned(lambda: load_factory("nets:net", {"width": 30}), tmp_path / "trained.safetensors")
    image = torch.rand(2, 3, 16, 16)
    assert torch.equal(again.eval()(image), model.eval()(image))
    load_weights(load_pruned(lambda: load_factory("nets:net", {"width": 30}), small), tmp_path / "trained.safetensors")
    given = ("--set", "width=30", "--weights", "trained.safetensors", *INPUT)
    assert json.loads(run("audit", "nets:net", *given, "--json").out)["total"]["params"] <= 2_000


def test_json_has_the_units_and_the_components(run: Run) -> None:
    ending = run("prune", "nets:plain", "--params", "4K", *INPUT, "--keep", "stem*", "--json", "--out", "a.safetensors")
    record = json.loads(ending.out)
    assert record["after"]["params"] + record["slack"]["params"] == record["limits"]["params"] == 4_000
    assert record["file"] == "a.safetensors"
    stem = [unit for unit in record["units"] if any("stem" in axis for axis in unit["axes"])]
    assert stem
    assert all(unit["before"] == unit["after"] for unit in stem)
    assert sum(row["params"]["after"] for row in record["components"]) == record["after"]["params"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nets:plain", "--params", "30"), 1, "the least that can be reached"),
        (("nets:plain",), 2, "needs a limit"),
        (("nets:plain", "--params", "2K", "--keep", "tail*"), 2, "matches no module"),
        (("nets:plain", "--params", "2K", "--input", "1x4x8x8"), 2, "fails on inputs 1x4x8x8"),
        (("nets:plain", "--params", "2K", "--out", "a.pth"), 2, "name --out so, as a.safetensors"),
        (("nets:plain", "--params", "2K", "--floor", "2"), 2, "floor"),
        (("net.onnx", "--params", "2K"), 2, "got net.onnx"),
        (("nets:none", "--params", "2K"), 2, "has no 'none'"),
        (("nets:gated", "--params", "400"), 2, "Gated cannot be followed on this example: its forward goes by values"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    ending = run("prune", *words, *(() if "--input" in words else INPUT))
    assert (ending.code, ending.out, ending.err.count("\n")) == (code, "", 1)
    assert said in ending.err


def test_what_is_not_followed_stays_and_is_named(run: Run) -> None:
    """Channels that are sorted mix: they are locked with a reason, and a limit that needs them cannot be reached."""
    ending = run("prune", "nets:sorting", "--params", "400", *INPUT)
    assert ending.code == 1
    assert "sort" in ending.err


def test_a_pruned_model_of_the_zoo_is_named_by_its_file(tmp_path: Path) -> None:
    """The file says which model it is of, and its shape: nothing else is needed to load it."""
    pruned = prune(create_model("retinaface_mnet025"), torch.zeros(1, 3, 64, 64), params=300_000)
    pruned.save(tmp_path / "small.safetensors")
    model = load_detector(tmp_path / "small.safetensors")
    assert sum(weight.numel() for weight in model.parameters()) == pruned.cost.params <= 300_000
    with pytest.raises(CheckpointError, match="wrongly shaped"):
        load_weights(create_model("retinaface_mnet025"), tmp_path / "small.safetensors")
