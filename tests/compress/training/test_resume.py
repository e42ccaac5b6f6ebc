"""A run killed at any moment and resumed ends like one left alone, and a full disk costs no run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("forked_runs.py")
SEED, STEPS = 3, 40


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Let the script do all its runs, in one process that has imported what takes long."""
    out = tmp_path_factory.mktemp("forked")
    around = os.environ | {"PYTHONPATH": str(SCRIPT.parents[3])}  # where `tests` lies
    command = [sys.executable, str(SCRIPT), str(out), str(SEED)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=around)
    assert ended.returncode == 0, ended.stderr
    return out, json.loads(ended.stdout)


def require_equal(one: Path, other: Path) -> None:
    expected, found = (load_file(run / "weights" / "last.safetensors") for run in (one, other))
    assert expected.keys() == found.keys()
    assert all(expected[key].equal(found[key]) for key in expected)


def test_ten_kills(runs: tuple[Path, dict[str, Any]]) -> None:
    """Killed ten times, at moments of chance and while it saved, a run ends with the same weights, bit for bit."""
    out, found = runs
    assert found["whole"] == found["finished"] == 0
    assert found["killed"] == [-9] * 10
    assert found["places"] == sorted(found["places"])
    assert 0 < found["places"][-1] < STEPS
    require_equal(out / "whole", out / "killed")
    metrics = [(out / name / "metrics.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert len(metrics[0]) == len(metrics[1]) == 1 + STEPS + 2


def test_full_disk(runs: tuple[Path, dict[str, Any]]) -> None:
    """A disk that is full ends a run in one sentence, keeps the last good state, and then goes on."""
    out, found = runs
    assert found["full"] == 2
    (sentence,) = [line for line in found["said"].splitlines() if line.startswith("featherpress:")]
    assert found["said"].splitlines()[-1] == sentence
    assert f"could not save the state after step {found['kept'] + 1}" in sentence
    assert "File too large; the state before it is kept" in sentence
    assert found["kept"] >= 5
    assert found["left"] == []
    assert found["resumed"] == 0
    require_equal(out / "whole", out / "full")
