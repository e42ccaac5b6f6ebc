"""Odd values for the options of commands: each is one sentence and exit code 2, at once."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NET = "small_net:net"
SOURCE = """
from torch import nn

def net(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 3))
"""
# What is no number, or none that a machine has room or time for; `٣` is a digit, though not ASCII's.
ODD = ("nan", "inf", "-1", "1e400", "1e99999999", "9" * 5000, "0x10", "٣", "[")
LARGE = str(10**30)
COMMANDS = {
    ("prune", NET, "--params", "900"): ("--params", "--macs", "--floor", "--multiple-of", "--input"),
    ("fit", NET, "--params", "900", "--input", "8"): ("--params", "--macs", "--knob", "--knob width=", "--input"),
    ("gate", "new.csv", "--baseline", "old.csv", "--margin", "1"): ("--margin", "--confidence"),
    ("bench", NET, "--backend", "eager"): ("--size", "--batch", "--rounds", "--threads"),
    ("detect", "photo.jpg"): ("--threshold", "--nms", "--long-side", "--tile", "--overlap", "--batch"),
    ("evaluate", "--data", "here"): (
        *("--limit", "--long-side", "--batch", "--threshold", "--at", "--nms", "--positive-threshold", "--set"),
    ),
    ("export", NET): ("--nms", "--threshold", "--opset", "--input", "--calibration-images", "--limit", "--set"),
    ("sweep", "digits", "--dry-run", "--params", "900"): ("--params", "--macs", "--knob", "--knob width=", "--set"),
    ("report", "here"): ("--format", "--figures"),
}
# What would take for ever, or overflows where it is used.
BOUNDED = {
    "bench": ("--size", "--batch", "--rounds", "--threads"),
    "detect": ("--long-side", "--tile", "--batch"),
    "evaluate": ("--long-side", "--batch"),
    "export": ("--opset", "--input", "--calibration-images", "--limit"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_odd_value_is_one_sentence(
    run_command: Callable[..., Any], tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Whatever is given to an option that takes a number or a name, the command ends with 2 and one line."""
    (tmp_path / "small_net.py").write_text(SOURCE)
    for name in ("old", "new"):
        (tmp_path / f"{name}.csv").write_text("example,score\na,0.5\nb,0.25\n")
    for option in COMMANDS[command]:
        large = [LARGE] if option in BOUNDED.get(command[0], ()) else []
        for value in (*ODD, *large):
            word, space, before = option.partition(" ")
            ending = run_command(*command, word, f"{before}{value}" if space else value)
            lines = [line for line in ending.err.splitlines() if line.startswith("featherpress: ")]
            assert (ending.code, len(lines)) == (2, 1), (option, value[:20], ending)
            assert len(ending.err) < 1000, (option, value[:20], ending)
            assert "Traceback" not in ending.err


def test_names_that_are_no_text(run_command: Callable[..., Any], tmp_path: Path, weights: Path) -> None:
    """Line ends, and bytes that are no UTF-8, in names of images and folders: a line each, and JSON that is read."""
    image = tmp_path / os.fsdecode(b"one\xff\ntwo.png")
    Image.linear_gradient("L").resize((96, 96)).save(image)
    drawn = run_command("detect", image, "--weights", weights, "--out", os.fsdecode(b"out\xff\n"))
    assert (drawn.code, len(drawn.out.splitlines())) == (0, 1), drawn
    record = json.loads(run_command("detect", image, "--weights", weights, "--json").out)
    assert record["images"][0]["file"].endswith("two.png")
