"""How much faster the sampled deformable convolution is on this CPU than torchvision's, in one run.

    python benchmarks/deformable.py

Prints the median time of each at the shapes of V1's and the published model's finest level, and their ratio. The two
take turns, so that a change of the machine's speed falls on both.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from featherpress.models.layers.deformable import sampled_convolution

RUNS = 5
SHAPES = (  # batch, channels in, out, groups, side
    ("V1 at 128, batch 16", 16, 74, 74, 2, 16),
    ("V1 at 320, batch 4", 4, 74, 74, 2, 40),
    ("paper SSH at 320, batch 4", 4, 64, 32, 1, 40),
)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {RUNS} pairs")
    for name, batch, channels, out, groups, side in SHAPES:
        inputs = (
            torch.randn(batch, channels, side, side, requires_grad=True),
            torch.randn(batch, 18, side, side, requires_grad=True),
            torch.randn(out, channels // groups, 3, 3, requires_grad=True),
            torch.rand(batch, 9, side, side, requires_grad=True),
        )

        def theirs(tensors: tuple[Tensor, ...] = inputs) -> Tensor:
            x, offset, weight, mask = tensors
            y: Tensor = deform_conv2d(x, offset, weight, padding=1, mask=mask)
            return y

        def ours(tensors: tuple[Tensor, ...] = inputs) -> Tensor:
            return sampled_convolution(*tensors)

        for step, run in (("forward", lambda f: f()), ("forward and backward", lambda f: f().sum().backward())):
            run(theirs), run(ours)
            pairs = [(timed(lambda: run(theirs)), timed(lambda: run(ours))) for _ in range(RUNS)]  # noqa: B023
            reference, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{name:<26} {step:<21} torchvision {reference:7.4f} s  ours {mine:7.4f} s  ratio {ratio:5.1f}")


if __name__ == "__main__":
    main()
