"""Weights that modules share are trained, cut, saved and counted once, in every file and by every command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from featherpress.compress.deployment.conversion import capture
from featherpress.compress.deployment.graphs import GraphOptions, find_subject
from featherpress.models.saving import load_named

HERE = Path(__file__).parent
MODEL = "tiny_models:tied"
RECIPE = f"""
name = "tied"
student = {{ model = "{MODEL}" }}
data = {{ kind = "shapes", image_size = 64, classes = 3, train_images = 8, validation_images = 4 }}
schedule = {{ epochs = 1, batch_size = 4, evaluate_every = 0 }}
"""


@pytest.mark.needs_torch("2.9", "exporting")
def test_counted_once_everywhere(run_command: Callable[..., Any], tmp_path: Path) -> None:
    """A block under three names: trained weights, a pruned model and a torch program hold what the model is."""
    shutil.copy(HERE / "compress" / "experiments" / "tiny_models.py", tmp_path)
    (tmp_path / "tied.toml").write_text(RECIPE)

    def params(*words: str | Path) -> int:
        ending = run_command("audit", *words, "--json")
        assert ending.code == 0, ending.err
        return int(json.loads(ending.out)["total"]["params"])

    assert run_command("train", "tied.toml", "--out", "run").code == 0
    trained = tmp_path / "run/weights/last.safetensors"
    whole = params(MODEL, "--input", "64", "--weights", trained)
    assert whole == sum(weight.numel() for weight in load_named(MODEL).parameters())
    assert (
        whole
        == params(trained)
        == sum(each.numel() for key, each in load_file(trained).items() if "num_" not in key and "running" not in key)
    )

    limit = ("--params", str(whole - 300), "--input", "64", "--weights", trained)
    assert run_command("prune", MODEL, *limit, "--out", "less.safetensors").code == 0
    assert whole - 500 < params(MODEL, "--input", "64", "--weights", "less.safetensors") <= whole - 300
    assert params("less.safetensors") <= whole - 300

    model = load_named(f"{MODEL}@less.safetensors").eval()
    program = capture(find_subject(MODEL, None, options=GraphOptions(fuse=False), side=64, model=model))
    torch.export.save(program, "less.pt2")
    assert params("less.pt2") == params("less.safetensors")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(torch.export.load("less.pt2").module()(images), model(images))
