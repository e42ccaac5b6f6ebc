"""Counting a model: how long it takes and how much memory, against fvcore and thop, in one run.

    python benchmarks/counting.py [--rounds 5] [--skip-large] [NAME ...]
    python benchmarks/counting.py --commands [--rounds 8]

The tools take turns on one model, so that a change of the machine's speed falls on all. Each gets a copy of the
model that is made outside the timing (ours makes one more, of shapes only, inside). Times are the best of the rounds
in CPU time, on one thread: what other programs do then matters little. Ratios are to ours. Memory is how far a fresh
process grows beyond the imports, a first count of a small model and the model and image themselves.
"""

import argparse
import copy
import importlib
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.budgets import count

PRESETS = (
    "featherface_v1",
    "featherface_v1_ssh",
    "featherface_v1_ssh_plain",
    "featherface_paper",
    "featherface_v2",
    "retinaface_mnet025",
)
OTHERS = ("resnet18", "mobilenet_v3_small", "vit_b_16", "swin_t")
LARGE = ("featherface_v1", 4000)
LAYERS = 20_000
TOOLS = ("ours", "fvcore", "thop")


def make(name: str, side: int) -> tuple[nn.Module, Tensor]:
    """Make a model in eval mode and an image for it."""
    if name in PRESETS:
        model = importlib.import_module("featherpress.models").create_model(name)
    else:
        model = getattr(importlib.import_module("torchvision.models"), name)()
    return model.eval(), torch.zeros(1, 3, side, side)


def ask(tool: str, model: nn.Module, image: Tensor) -> None:
    if tool == "ours":
        count(model, image)
        return
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if tool == "thop":
            importlib.import_module("thop").profile(model, (image,), verbose=False)
        else:
            analysis = importlib.import_module("fvcore.nn").FlopCountAnalysis(model, image)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none").total()


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(name: str, side: int, rounds: int, tools: Sequence[str] = TOOLS) -> dict[str, float]:
    """Let the tools take turns after one warm-up; return the least that each took."""
    model, image = make(name, side)
    took: dict[str, list[float]] = {tool: [] for tool in tools}
    for turn in range(rounds + 1):
        for tool in tools:
            replica = copy.deepcopy(model)
            began = time.process_time()
            ask(tool, replica, image)
            if turn or rounds == 1:
                took[tool].append(time.process_time() - began)
    return {tool: min(times) for tool, times in took.items()}


def status_kilobytes(key: str) -> int:
    """Read a line of this process's status, such as VmHWM, the most memory it has held."""
    with open("/proc/self/status", encoding="ascii") as lines:  # noqa: PTH123 - a pseudo-file
        return next(int(line.split()[1]) for line in lines if line.startswith(key))


def grown(tool: str, name: str, side: int) -> None:
    """Print by how many MB this process grew at the most while it counted."""
    ask(tool, nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval(), torch.zeros(1, 3, 32, 32))
    model, image = make(name, side)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as switch:  # noqa: PTH123
        switch.write("5")  # the high-water mark begins anew
    before = status_kilobytes("VmRSS")
    ask(tool, model, image)
    print((status_kilobytes("VmHWM") - before) / 1024)


def memory(tool: str, name: str, side: int) -> float:
    command = [sys.executable, __file__, "--grown", tool, name, str(side)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])  # noqa: S603


def report(name: str, side: int, rounds: int) -> None:
    best = compare(name, side, rounds)
    held = [memory(tool, name, side) for tool in TOOLS]
    print(
        f"{name:<26}{side:>5}"
        + "".join(f"{1000 * best[tool]:>9.0f}" for tool in TOOLS)
        + "".join(f"{best[tool] / best['ours']:>8.1f}" for tool in TOOLS[1:])
        + "".join(f"{amount:>9.1f}" for amount in held),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--grown", nargs=3)
    parser.add_argument("--commands", action="store_true", help="time whole commands alone")
    options = parser.parse_args()
    if options.grown:
        tool, name, side = options.grown
        return grown(tool, name, int(side))
    if options.commands:
        return time_commands(options.rounds)
    torch.set_num_threads(1)
    head = ("ms ours", "fvcore", "thop", "x fvc.", "x thop", "MB ours", "fvcore", "thop")
    widths = (9, 9, 9, 8, 8, 9, 9, 9)
    print(f"{'model':<26}{'side':>5}" + "".join(f"{text:>{w}}" for text, w in zip(head, widths, strict=True)))
    for name in options.names or (*PRESETS, *OTHERS):
        report(name, 640 if name in PRESETS else 224, options.rounds)
    if not options.skip_large and not options.names:
        name, side = LARGE
        report(name, side, 1)
        turns = [[compare(name, at, 3, ["ours"])["ours"] for at in (640, side)] for _ in range(3)]
        small, large = (min(column) for column in zip(*turns, strict=True))
        print(f"ours at {side} against 640: {large / small:.2f} times as long")
    if not options.names:
        time_commands(options.rounds)
    return None


def time_commands(rounds: int) -> None:
    """Print the CPU time of whole commands, imports included: a small audit beside importing torch, and large ones."""
    torch_alone, audit = ["-c", "import torch"], ["-m", "featherpress.cli", "audit", "featherface_v2"]
    turns = [(child_seconds(torch_alone), child_seconds(audit)) for _ in range(rounds)]
    base, whole = map(min, zip(*turns, strict=True))
    print(f"importing torch: {base:.2f} s of CPU time, audit featherface_v2: {whole:.2f}, {whole - base:.2f} more")
    for block in (200, 1):
        print(f"audit of {LAYERS:,} layers in {LAYERS // block:,} rows: {audit_many(block):.1f} s of CPU time")


def child_seconds(words: Sequence[str]) -> float:
    """CPU time of a process of Python's, which finds this file's models."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=Path(__file__).parent)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def many(block: int = 1) -> nn.Module:
    """Make a model of many layers in blocks of so many."""
    layers = [nn.Linear(4, 4) for _ in range(LAYERS)]
    blocks = [nn.Sequential(*layers[first : first + block]) for first in range(0, LAYERS, block)]
    return nn.Sequential(*(blocks if block > 1 else layers))


def audit_many(block: int) -> float:
    """CPU time of the command that audits such a model."""
    model = f"{Path(__file__).stem}:many"
    return child_seconds(["-m", "featherpress.cli", "audit", model, "--set", f"block={block}", "--input", "1x4"])


if __name__ == "__main__":
    main()
