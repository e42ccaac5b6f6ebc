"""A run killed at any moment and resumed ends like one left alone."""

import random
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

SETTINGS = (
    "data.size=64",
    "data.image_size=64",
    "data.train_images=16",
    "data.validation_images=2",
    "schedule.epochs=5",
    "schedule.batch_size=4",
    "schedule.log_every=1",
    "schedule.evaluate_every=0",
    "schedule.save_every=0",
    "schedule.channels_last=false",
    'student.backbone=""',
)
STEPS = 20
KILLS = 3


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "featherpress.cli", "train", "demo", "--out", str(out), *options]


def fresh(out: Path) -> list[str]:
    return command(out, *(part for setting in SETTINGS for part in ("--set", setting)))


def steps_done(out: Path) -> int:
    states = sorted((out / "state").glob("step-*.pt"))
    return int(states[-1].stem.removeprefix("step-")) if states else 0


def kill_after(arguments: list[str], out: Path, step: int, delay: float) -> None:
    """Start a run and kill it, without a chance to clean up, a moment after it has passed a step."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and steps_done(out) < step:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()


def test_killed_runs_end_the_same(tmp_path: Path) -> None:
    """Killed three times at moments of chance and resumed, a run has the weights of one left alone, bit for bit."""
    chance = random.Random(7)  # noqa: S311
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(fresh(whole), check=True, capture_output=True)
    arguments = fresh(killed)
    for number in range(KILLS):
        kill_after(arguments, killed, step=1 + number * STEPS // (KILLS + 1), delay=chance.uniform(0, 0.2))
        arguments = command(killed, "--resume")
    assert 0 < steps_done(killed) < STEPS
    subprocess.run(arguments, check=True, capture_output=True)
    expected = load_file(whole / "weights" / "last.safetensors")
    found = load_file(killed / "weights" / "last.safetensors")
    assert expected.keys() == found.keys()
    assert all(expected[key].equal(found[key]) for key in expected)
    metrics = [(folder / "metrics.csv").read_text().splitlines() for folder in (whole, killed)]
    assert len(metrics[0]) == len(metrics[1]) == STEPS + 1
