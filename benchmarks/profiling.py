"""Where the time of a training step and of an inference goes, by torch.profiler.

    python benchmarks/profiling.py
    python benchmarks/profiling.py --models featherface_v2 --steps 5 --threads 1
    python benchmarks/profiling.py --rounds 9    # images a second, not where the time goes

A training step is the trainer's: cut crops, forward, loss, backward, clip, AdamW, the moving average. Every operator's
own time is counted once, under the part of the step it ran for and, in forward and backward, under what it is. Shares
of a profiled run are somewhat too large for what consists of many small operators, since noting each takes time.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from featherpress.compress.data import SyntheticFaces, TrainingCrops
from featherpress.compress.tasks.detection.assignment import match_priors
from featherpress.compress.tasks.detection.loss import detection_loss
from featherpress.compress.training.ema import MovingAverage
from featherpress.models import Detector, create_detector, normalize

PARTS = ("data", "loss", "clip", "optimizer", "average")
KINDS = {
    "convolution backward": ("convolution_backward",),
    "convolution forward": ("convolution", "conv2d"),
    "batch norm backward": ("batch_norm_backward",),
    "batch norm forward": ("batch_norm",),
    "sampling": ("grid_sampler", "deform", "gather", "bmm", "matmul", "mm"),
    "interpolation": ("upsample", "interpolate"),
    "activations": ("relu", "sigmoid", "hardswish", "silu", "softmax", "tanh"),
    "pooling": ("pool",),
    "shuffles and layout": ("copy_", "clone", "contiguous", "cat", "permute", "view", "stack", "index"),
    "sums and products": ("add", "mul", "div", "sub", "sum", "mean", "fill_", "zero_", "max", "min", "pow", "sqrt"),
}


@dataclass(slots=True)
class Spent:
    """Microseconds by part of a step or kind of operator."""

    by: Counter[str] = field(default_factory=Counter)

    def add(self, events: list[torch.autograd.profiler_util.FunctionEvent]) -> None:
        """Count every operator's own time once."""
        for event in events:
            own = max(event.self_cpu_time_total, 0)
            if event.name.startswith("Profiler"):
                continue
            self.by[part_of(event) or kind_of(event.name)] += own

    def shares(self) -> dict[str, float]:
        """Return fractions of all, the largest first."""
        total = sum(self.by.values())
        return {name: value / total for name, value in self.by.most_common()}


def part_of(event: torch.autograd.profiler_util.FunctionEvent) -> str:
    """Find the marked part of a step that an operator ran in."""
    while event is not None:
        if event.name in PARTS:
            return event.name
        event = event.cpu_parent
    return ""


def kind_of(name: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in name.lower() for word in words)), "other")


def trainer(model: Detector, *, size: int, batch: int) -> Callable[[], None]:
    """Prepare steps as the engine takes them, their parts marked."""
    model = model.to(memory_format=torch.channels_last).train()
    average = MovingAverage(model, 0.998)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    crops = TrainingCrops(SyntheticFaces(length=batch, seed=0, size=(size, size)), size=size, seed=0)
    crops.preload()
    priors, variants = model.priors(size, size), iter(range(10**6))

    def step() -> None:
        with record_function("data"):
            variant = next(variants)
            cut = crops.batch([(index, variant) for index in range(batch)])
            images = normalize(cut.images).contiguous(memory_format=torch.channels_last)
        outputs = model(images)
        with record_function("loss"):
            targets = match_priors(priors, cut)
            counts = targets.counts.clamp(min=1)
            loss = detection_loss(*outputs, targets, counts)
            total = 2 * loss.box + loss.classification + loss.landmark
        total.backward()
        with record_function("clip"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        with record_function("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        with record_function("average"):
            average.update(model)

    return step


def inference(model: Detector, *, size: int) -> Callable[[], None]:
    model = model.to(memory_format=torch.channels_last).eval()
    images = torch.randn(1, 3, size, size).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.no_grad():
            model(images)

    return run


def measure(work: Callable[[], None], steps: int) -> dict[str, float]:
    work()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        for _ in range(steps):
            work()
    spent = Spent()
    spent.add(list(found.events()))
    return spent.shares()


def throughput(works: dict[str, tuple[int, Callable[[], None]]], rounds: int) -> dict[str, list[float]]:
    """Time each work once a round, all taking turns; images a second, ordered."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _, work in works.values():
        work()
    for _ in range(rounds):
        for name, (images, work) in works.items():
            began = time.perf_counter()
            work()
            found[name].append(images / (time.perf_counter() - began))
    return {name: sorted(speeds) for name, speeds in found.items()}


def print_throughput(options: argparse.Namespace) -> None:
    works = {}
    for name in options.models:
        torch.manual_seed(0)
        step = trainer(create_detector(name), size=options.size, batch=options.batch)
        works[f"{name}, training"] = (options.batch, step)
        works[f"{name}, inference"] = (1, inference(create_detector(name), size=options.size))
    for title, speeds in throughput(works, options.rounds).items():
        low, middle, high = (speeds[len(speeds) * part // 4] for part in (1, 2, 3))
        print(f"{title:<36} {middle:6.1f} images/s ({low:.1f} to {high:.1f})")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["featherface_v1", "featherface_v2"])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=0, help="measure throughput instead, this many times in turns")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.rounds:
        print(f"torch {torch.__version__}, {options.threads} threads, {options.size}x{options.size}")
        print_throughput(options)
        return
    shares = {}
    for name in options.models:
        torch.manual_seed(0)
        train = trainer(create_detector(name), size=options.size, batch=options.batch)
        shares[f"{name}, training"] = measure(train, options.steps)
        shares[f"{name}, inference"] = measure(inference(create_detector(name), size=options.size), 4 * options.steps)
    if options.json:
        print(json.dumps(shares, indent=2))
        return
    print(f"torch {torch.__version__}, {options.threads} threads, {options.size}x{options.size}, batch {options.batch}")
    for title, found in shares.items():
        print(f"\n{title}")
        for name, share in found.items():
            print(f"  {name:<22} {100 * share:5.1f} %")


if __name__ == "__main__":
    main()
