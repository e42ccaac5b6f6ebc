"""Two processes train like one with the doubled batch."""

import csv
import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from featherpress.compress.recipes import Recipe
from featherpress.errors import UsageError
from featherpress.models import create_detector

SCRIPT = Path(__file__).with_name("spread_training.py")
STEPS = 4
#: Weights move by up to 3e-3; Adam makes much of the rounding where a gradient is almost zero.
TOLERANCE = 2e-4


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "state" / f"step-{STEPS:08d}.pt", weights_only=True)
    return state


def logged(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: float(value) for key, value in row.items() if value and key != "images_per_second"} for row in rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Train with one process and with two, the same batches: 4 images at once, or 2 in each."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    runpy.run_path(str(SCRIPT))["main"](one)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    around = os.environ | {"PYTHONPATH": str(SCRIPT.parents[3])}  # where `tests` lies
    ended = subprocess.run([*torchrun, str(SCRIPT), str(two)], check=False, capture_output=True, text=True, env=around)
    assert ended.returncode == 0, ended.stderr
    return one, two


@pytest.mark.parametrize("name", ["plain", "taught"])
def test_two_processes_equal_the_doubled_batch(runs: tuple[Path, Path], name: str) -> None:
    """Statistics frozen, two processes end with the weights of one, averaged ones and adapters too, to 2e-4."""
    one, two = (state_of(run / name) for run in runs)
    for state in (one, two):
        state["adapters"] = state["distiller"].get("adapters", {})
    for part in ("model", "average", "adapters"):
        assert one[part].keys() == two[part].keys()
        for key, value in one[part].items():
            # A feature loss that standardises does not see an adapter's bias, whose gradient is rounding alone.
            if not (part == "adapters" and key.endswith("bias")):
                torch.testing.assert_close(two[part][key], value, atol=TOLERANCE, rtol=0, msg=f"{part}: {key}")
    torch.manual_seed(0)
    fresh = create_detector("featherface_v2").state_dict()
    moved = [float((one["model"][key] - value).abs().max()) for key, value in fresh.items()]
    assert max(moved) > 5 * TOLERANCE
    assert bool(one["adapters"]) == (name == "taught")


@pytest.mark.parametrize("name", ["plain", "taught"])
def test_one_process_writes_what_all_did(runs: tuple[Path, Path], name: str) -> None:
    """Every step and evaluation has one row, and its terms are those of the doubled batch."""
    one, two = (logged(run / name) for run in runs)
    assert len(one) == STEPS + 2
    for without_teachers, spread in zip(one, two, strict=True):
        assert spread == pytest.approx(without_teachers, rel=1e-3, abs=1e-5)


def test_batch_that_cannot_be_spread(make_trainer: Any, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that the processes cannot share evenly is refused before anything runs."""
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 3)
    with pytest.raises(UsageError, match="batch of 4 cannot be spread evenly over 3 processes"):
        make_trainer("odd", used=recipe)


def test_processes_look_at_a_folder_together(tmp_path: Path) -> None:
    """The others wait for the first, are refused by its words, and one that is killed ends them in a sentence."""
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "provenance.json").write_text("{}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT.with_name("ranks_together.py")), str(tmp_path)],
            env={**os.environ, **group, "RANK": number, "LOCAL_RANK": number},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in "01"
    ]
    first, second = (json.loads(each.communicate(timeout=120)[0]) for each in started)
    assert first == second | {"lost": "another process of this run ended; the same command with --resume goes on"}
    assert second == {
        "fresh": True,
        "gradients": [[2.5, 2.5], [0.5, 0.5], None],
        "filled": "OUT/filled is not empty; add --resume to go on with it or --overwrite to start again",
        "filled/control": "OUT/filled/control lies in the run OUT/filled, whose files these would be; "
        "choose another --out",
    }
