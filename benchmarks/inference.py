"""How many images a second the zoo's models take on this machine, beside two of torchvision's detectors in one run.

    python benchmarks/inference.py
    python benchmarks/inference.py --models featherface_v2 --sizes 320 --modes eager fused --rounds 5

Every model is run as it is, with channels last, with its BatchNorms folded, with both, and compiled from that. All take
turns, one forward of a batch each a round, so that a change of the machine's speed falls on all; the median is printed,
and ratios are medians over rounds. Weights are random, and every model is asked for its raw outputs: backbone, neck and
head, without decoding and suppression. Torchvision's two are built for one class and the same square input, and folded
by torch.fx, which knows them; ours are folded by `featherpress.models.fuse`. `featherpress bench` measures onnxruntime
and memory too; here are the peers, and every step between eager and compiled.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse as fuse_traced
from torchvision.models.detection import retinanet_resnet50_fpn, ssdlite320_mobilenet_v3_large

from featherpress.compress.deployment.backends import Work, why_not
from featherpress.compress.deployment.latency import interleave
from featherpress.models import create_model, fuse, list_models

PEERS = {
    "ssdlite320_mobilenet_v3_large": ssdlite320_mobilenet_v3_large,
    "retinanet_resnet50_fpn": retinanet_resnet50_fpn,
}
MODES = ("eager", "channels-last", "fused", "fused, last", "compiled")


class Raw(nn.Module):
    """A detector of torchvision's without what it does to images before and to boxes after."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Tensor) -> object:
        """Return what the head says of every level."""
        return self.head(list(self.backbone(images).values()))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in PEERS:
        return Raw(PEERS[name](weights=None, weights_backbone=None, num_classes=2)).eval()
    return create_model(name).eval()


def fold(model: nn.Module) -> nn.Module:
    return fuse_traced(model) if isinstance(model, Raw) else fuse(model)


def forward_in(mode: str, model: nn.Module, images: Tensor) -> Work:
    """Prepare a forward in a mode; what is prepared is not timed."""
    folded, last = mode in {"fused", "fused, last", "compiled"}, mode in {"channels-last", "fused, last", "compiled"}
    if folded:
        model = fold(model)
    if last:
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    return partial(torch.compile(model, dynamic=False) if mode == "compiled" else model, images)


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def measure(
    names: Sequence[str], modes: Sequence[str], *, size: int, batch: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of every round for each "model, mode"."""
    images = torch.randn(batch, 3, size, size)
    works = {f"{name}|{mode}": forward_in(mode, build(name), images) for name in names for mode in modes}
    for key, work in works.items():
        began = time.perf_counter()
        work()
        if key.endswith("compiled"):
            print(f"compiled {key.split('|')[0]} for {size} in {time.perf_counter() - began:.0f} s", flush=True)
            work()
    return interleave(works, rounds=rounds)


def show(seconds: dict[str, list[float]], names: Sequence[str], modes: Sequence[str], *, size: int, batch: int) -> None:
    print(f"\n{size}x{size}, batch {batch}: images/s, and in brackets how many times its own {modes[0]}")
    width = max(map(len, names))
    print(" " * width, *(f"{mode:>15}" for mode in modes))
    for name in names:
        own = seconds[f"{name}|{modes[0]}"]
        found = [seconds[f"{name}|{mode}"] for mode in modes]
        cells = [f"{batch / statistics.median(each):8.1f} ({ratio(own, each):4.2f})" for each in found]
        print(f"{name:<{width}}", *cells)
    peers = [name for name in names if name in PEERS]
    for peer in peers:
        print(f"times {peer}, both as fast as these modes make them:")
        for name in names:
            if name not in PEERS:
                best, other = (
                    min((seconds[f"{each}|{mode}"] for mode in modes), key=statistics.median) for each in (name, peer)
                )
                print(f"{name:<{width}} {ratio(other, best):8.2f}")


def usable(modes: Sequence[str]) -> list[str]:
    """Leave out compiling where nothing can compile, and say so."""
    if "compiled" in modes and why_not("compiled"):
        print("compiled: skipped, as there is no C++ compiler on this machine (looked for c++, g++ and clang++)")
        return [mode for mode in modes if mode != "compiled"]
    return list(modes)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", default=list_models(), help="models of the zoo; all of them unless given"
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[320, 640])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    modes, names = usable(options.modes), [*options.models, *options.peers]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    for name in names:
        before, after = (
            sum(weight.numel() for weight in each.parameters()) for each in (build(name), fold(build(name)))
        )
        print(f"{name:<30} {before:>11,} parameters, {after:>11,} fused ({before - after:,} fewer)")
    with torch.inference_mode():
        for size in options.sizes:
            seconds = measure(names, modes, size=size, batch=options.batch, rounds=options.rounds)
            show(seconds, names, modes, size=size, batch=options.batch)


if __name__ == "__main__":
    main()
