"""Train by the command line in forked processes: left alone, killed ten times, and on a disk that fills up.

    python tests/compress/training/forked_runs.py OUT SEED

What takes seconds is imported once, and each run is a fork of this process. Prints what happened as JSON.
"""

import json
import os
import random
import resource
import sys
import threading
import time
from pathlib import Path

import torch

from featherpress import cli
from featherpress.compress.experiments import distill  # noqa: F401 - imported before the forks
from tests.recipes import DRAWN_FACES

KILLS, FULL_AFTER = 10, 5
SETTINGS = (
    "data.size=64",
    "data.image_size=64",
    "data.train_images=8",
    "data.validation_images=2",
    "schedule.epochs=10",
    "schedule.batch_size=2",
    "schedule.log_every=1",
    "schedule.evaluate_every=5",
    "schedule.evaluate_images=1",
    "schedule.save_every=0",
    'student.backbone=""',
)


def steps_done(out: Path) -> int:
    return max((int(path.stem.removeprefix("step-")) for path in (out / "state").glob("step-*.pt")), default=0)


def fresh(out: Path) -> list[str]:
    return ["train", DRAWN_FACES, "--out", str(out), *(part for setting in SETTINGS for part in ("--set", setting))]


def resumed(out: Path) -> list[str]:
    return ["train", DRAWN_FACES, "--out", str(out), "--resume"]


def fill_disk(out: Path) -> None:
    """Let no file grow beyond 100 kB from a step on, as if the disk were full for what is large."""
    while steps_done(out) < FULL_AFTER:
        time.sleep(0.002)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def start(arguments: list[str], errors: Path, *, full: Path | None = None) -> int:
    """Fork a process that runs a command, and return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for stream, path in ((1, os.devnull), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        if full is not None:
            threading.Thread(target=fill_disk, args=(full,), daemon=True).start()
        sys.argv = ["featherpress", *arguments]
        cli.main()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_random(arguments: list[str], out: Path, chance: random.Random, *, saving: bool, pace: float) -> int:
    """Start a run and kill it soon after its next step or, if `saving`, while a state is being written."""
    child = start(arguments, out.with_suffix(".err"))
    first = steps_done(out) + chance.randint(0, 2)
    while steps_done(out) <= first:
        time.sleep(0.0005)
    delay = time.monotonic() + chance.uniform(0, 1.5 * pace)
    while time.monotonic() < delay or (saving and not list((out / "state").glob("*.partial"))):
        time.sleep(0.0001)
    os.kill(child, 9)
    return ended(child)


def main(out: Path, seed: int) -> None:
    torch.set_num_threads(1)
    chance = random.Random(seed)  # noqa: S311
    defer_sigint, killed, full = out / "whole", out / "killed", out / "full"
    found: dict[str, object] = {"whole": ended(start(fresh(defer_sigint), out / "whole.err"))}
    times = [path.stat().st_mtime for path in sorted((defer_sigint / "state").glob("step-*.pt"))]
    pace = times[-1] - times[0]
    endings, places = [], []
    for number in range(KILLS):
        arguments = resumed(killed) if number else fresh(killed)
        endings.append(kill_at_random(arguments, killed, chance, saving=number % 3 == 2, pace=pace))
        places.append(steps_done(killed))
    found |= {"killed": endings, "places": places, "finished": ended(start(resumed(killed), out / "killed.err"))}
    found["full"] = ended(start(fresh(full), out / "full.err", full=full))
    found["kept"] = steps_done(full)
    found["left"] = sorted(path.name for path in (full / "state").iterdir() if path.suffix != ".pt")
    found["said"] = (out / "full.err").read_text()
    found["resumed"] = ended(start(resumed(full), out / "resumed.err"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
