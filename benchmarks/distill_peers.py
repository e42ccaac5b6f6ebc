"""What a distillation step costs between models that are not ours, beside a plain step, forty lines by hand, and peers.

    python benchmarks/distill_peers.py
    python benchmarks/distill_peers.py --size 32 --batch 2 --rounds 30

torchvision's resnet50 teaches its resnet18: the divergence of logits at temperature 4, and the mean squared difference
at layer3 behind a 1x1 convolution, half of each beside the cross-entropy. Every arm starts from the same weights and
must give the same loss. They are built several times, and take turns in every round in an order that is drawn; ratios
are medians over rounds, quarters beside. Times are CPU seconds of this process, which other programs disturb less;
those on the wall are in brackets. Small images show what is paid whatever the models cost. Model-Optimizer
(`nvidia-modelopt`) and torchdistill are left out where they are not installed.
"""

import argparse
import importlib.util
import logging
import random
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from operator import truediv

import torch
from distill_arms import LAYER, Setting, Step, by_hand, featherpress, model_optimizer, plain, torchdistill
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.distillation.taps import Tap

Times = tuple[float, float]
"""Seconds of the CPU, and on the wall."""

PEERS = ("by hand", "Model-Optimizer", "torchdistill")


def others(given: Setting) -> dict[str, Step]:
    """The teacher, and one student's forward and backward with and without hooks that no step opens."""
    student, teacher, _ = given.models()

    def run() -> Tensor:
        student.zero_grad()
        loss = F.cross_entropy(student(given.images), given.labels)
        loss.backward()
        return loss

    def run_hooked() -> Tensor:
        tap = Tap(student, LAYER)
        loss = run()
        tap.close()
        return loss

    def ask() -> Tensor:
        with torch.no_grad():
            return teacher(given.images).sum()

    return {"teacher": ask, "no hooks": run, "hooks, no step": run_hooked}


PACKAGES = (("Model-Optimizer", "modelopt", model_optimizer), ("torchdistill", "torchdistill", torchdistill))


def build_arms(given: Setting) -> dict[str, Step]:
    """Build what is timed, without the peers that are not installed."""
    arms = {"plain step": plain(given), "Distiller": featherpress(given), "by hand": by_hand(given)}
    for name, package, make in PACKAGES:
        if importlib.util.find_spec(package) is None:
            print(f"{name} is not installed, and is left out")
        else:
            arms[name] = make(given)
    return arms | others(given)


def timed(call: Step) -> Times:
    began = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - began[0], time.perf_counter() - began[1]


def check(calls: Mapping[str, Step]) -> None:
    """Compare the arms' losses at the first step, and warm up."""
    losses = {name: float(call().detach()) for name, call in calls.items()}
    arms = {
        name: losses[name] for name in ("Distiller", "by hand", "Model-Optimizer", "torchdistill") if name in losses
    }
    if any(abs(loss - arms["by hand"]) > 1e-4 * arms["by hand"] for loss in arms.values()):
        raise SystemExit(f"the arms do not do the same: {arms}")
    print("the same loss in the first step: " + ", ".join(f"{name} {loss:.5f}" for name, loss in arms.items()))


def show(what: str, ratios: list[Times]) -> None:
    cpu, wall = zip(*ratios, strict=True)
    low, middle, high = statistics.quantiles(cpu, n=4)
    print(f"{what:<46}{middle:8.3f}  ({low:.3f} to {high:.3f})   [{statistics.median(wall):.3f}]")


def report(times: Mapping[str, list[Times]]) -> None:
    for name, values in times.items():
        show(f"{name}, ms", [(1000 * cpu, 1000 * wall) for cpu, wall in values])

    def combined(function: Callable[..., float], *names: str) -> list[Times]:
        rounds = zip(*(times[name] for name in names), strict=True)
        return [(function(*(each[0] for each in row)), function(*(each[1] for each in row))) for row in rounds]

    overhead = combined(lambda ours, teacher, step: (ours - teacher) / step, "Distiller", "teacher", "plain step")
    show("(Distiller - teacher) / plain step", overhead)
    for name in PEERS:
        if name in times:
            show(f"Distiller / {name}", combined(truediv, "Distiller", name))
    show("hooks without a step / no hooks", combined(truediv, "hooks, no step", "no hooks"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--builds", type=int, default=3, help="each with all rounds, as where memory lies counts")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    given = Setting(options.batch, options.size)
    times: dict[str, list[Times]] = defaultdict(list)
    order = random.Random(0)  # noqa: S311 (no secret)
    for _ in range(options.builds):
        arms = build_arms(given)
        check(arms)
        for _ in range(options.rounds):
            for name in order.sample(list(arms), len(arms)):
                times[name].append(timed(arms[name]))
    print(f"resnet50 to resnet18, batch {options.batch}, {options.size}x{options.size}, {len(times['teacher'])} rounds")
    report(times)


if __name__ == "__main__":
    main()
