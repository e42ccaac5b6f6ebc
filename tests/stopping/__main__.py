"""Stop runs of five recipes by random signals at random moments, resume each, and compare with one left alone.

    python -m tests.stopping [--signals 100] [--seed 0]

Each run is a fork of this process, which has imported what takes long. Weights and metrics have to be equal; every stop
has to end in its own exit code and in one sentence. Exit code 1 where something is not so.
"""

import argparse
import csv
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from featherpress.compress.tasks.classification import base
from tests.compress.training.forked_runs import ended, start
from tests.recipes import DRAWN_FACES

SMALL = ("schedule.log_every=1", "schedule.save_every=0.3", "schedule.evaluate_every=1")
CLASSES = ("data.train_images=32", "data.validation_images=16", "schedule.batch_size=8", "schedule.epochs=4")
TAUGHT = ("teacher.schedule.epochs=1", "teacher.schedule.batch_size=8", "teacher.schedule.log_every=1")
FACES = (
    *("data.size=64", "data.image_size=64", "data.train_images=8", "data.validation_images=2"),
    *("schedule.epochs=5", "schedule.batch_size=2", 'student.backbone=""', "schedule.evaluate_images=1"),
)
DIGITS = ("data.unlabelled.per_batch=4", "data.train_images=16", "schedule.epochs=8", "schedule.batch_size=8")
RECIPES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "faces": ("train", DRAWN_FACES, FACES),
    "classifier": ("distill", "classifier", (*CLASSES, *TAUGHT)),
    "accumulated": ("train", DRAWN_FACES, (*FACES, "schedule.accumulate=2", "schedule.batch_size=1")),
    "digits": ("distill", "digits", ("seeds=[0]", *DIGITS, "data.validation_images=20", *TAUGHT)),
    "bfloat16": ("train", DRAWN_FACES, (*FACES, "schedule.precision=bf16", "teacher.schedule.precision=bf16")),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


def arguments(name: str, out: Path) -> list[str]:
    command, recipe, settings = RECIPES[name]
    given = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    skipped = ["--no-preflight"] if command == "distill" else []
    return [command, recipe, "--out", str(out), *skipped, *given]


def files(out: Path, name: str) -> dict[str, Path]:
    return {str(path.relative_to(out)): path for path in sorted(out.rglob(name))}


def require_equal(whole: Path, stopped: Path) -> list[str]:
    """Return in what two runs differ: in a weight, or in a metric but for the time that a step took."""
    problems = []
    for name, path in files(whole, "*.safetensors").items():
        one, other = load_file(path), load_file(stopped / name)
        problems += [f"{name}: {key}" for key, value in one.items() if not value.equal(other[key])]
    for name, path in files(whole, "metrics.csv").items():
        one, other = ([*csv.DictReader(each.open())] for each in (path, stopped / name))
        timeless = [[{**row, "images_per_second": ""} for row in rows] for rows in (one, other)]
        problems += [] if timeless[0] == timeless[1] else [f"{name}: {len(one)} and {len(other)} rows, or values"]
    left = [str(path) for path in stopped.rglob("*.partial")]
    return problems + left


def stop_once(child: int, chance: random.Random, pace: float) -> tuple[list[signal.Signals], int] | None:
    """Send a signal, or one and another, at a random moment; None where the run ended before."""
    time.sleep(chance.uniform(0, pace))
    sent = [chance.choice(SIGNALS)]
    try:
        os.kill(child, sent[0])
        if chance.random() < 0.4:
            time.sleep(chance.uniform(0, 0.2))
            sent.append(chance.choice(SIGNALS[:3]))
            os.kill(child, sent[1])
    except ProcessLookupError:
        return None
    return sent, ended(child)


def stop_until_done(name: str, out: Path, chance: random.Random, *, signals: int, pace: float) -> tuple[int, list[str]]:
    """Stop a run again and again, then let it end; return how often it was stopped, and what was not right."""
    problems, sent = [], 0
    errors, run = out / f"{name}.err", out / name
    while sent < signals:
        resumed = ["--resume"] if (run / "recipe.toml").is_file() else []
        if run.is_dir() and not resumed:
            resumed = ["--overwrite"] if any(run.iterdir()) else []
        child = start([*arguments(name, run), *resumed], errors)
        stopped = stop_once(child, chance, pace)
        if stopped is None:
            ended(child)
            break
        numbers, code = stopped
        sent += 1
        said = [line for line in errors.read_text().splitlines() if line.startswith("featherpress: ")]
        # Two that arrive together are taken in the order of their numbers.
        if code not in {0, *(128 + number for number in numbers), *(-number for number in numbers)}:
            problems.append(f"{name}: {numbers} ended with {code}: {said}")
        if "Traceback" in errors.read_text() or (code > 128 and len(said) != 1):
            problems.append(f"{name}: after {numbers}: {errors.read_text()[-500:]}")
        if code == 0:
            break
    code = ended(start([*arguments(name, run), *(["--resume"] if (run / "recipe.toml").is_file() else [])], errors))
    return sent, problems + ([f"{name}: ended with {code}: {errors.read_text()[-500:]}"] if code else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=RECIPES)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    base._BETTER_THAN_CHANCE = 0.0  # teachers need not be good
    chance, problems, total, told = random.Random(asked.seed), [], 0, 0  # noqa: S311 - to be the same again
    names = [asked.only] if asked.only else [*RECIPES]
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        whole.mkdir()
        for name in names:
            began = time.monotonic()
            code = ended(start(arguments(name, whole / name), whole / f"{name}.err"))
            pace = time.monotonic() - began
            if code:
                problems.append(
                    f"{name}: left alone it ended with {code}: {(whole / f'{name}.err').read_text()[-500:]}"
                )
                continue
            wanted, round_number = -(-asked.signals // len(names)), 0
            while wanted > 0:
                out = Path(folder, f"stopped-{round_number}")
                out.mkdir(exist_ok=True)
                sent, found = stop_until_done(name, out, chance, signals=min(wanted, 8), pace=pace)
                wanted, total, round_number = wanted - max(sent, 1), total + sent, round_number + 1
                problems += found + [f"{name}: {each}" for each in require_equal(whole / name, out / name)]
                print(f"{name}: {total} signals so far, {len(problems)} faults", *problems[told:], sep="\n", flush=True)
                told = len(problems)
    print(*problems[told:], sep="\n")
    print(f"{total} signals over {len(names)} recipes, {len(problems)} faults")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
