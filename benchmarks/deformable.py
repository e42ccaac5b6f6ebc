"""How much faster the sampled deformable convolution is on this CPU than torchvision's, in one run.

    python benchmarks/deformable.py

Prints the median time of each at the shapes of V1's and the published model's finest level, and their ratio; then the
same for a training step of whole models. The two take turns, so that a change of the machine's speed falls on both.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from featherpress.models import create_model
from featherpress.models.layers.deformable import sampled_convolution

RUNS = 5
SHAPES = (  # batch, channels in, out, groups, side
    ("V1 at 128, batch 16", 16, 74, 74, 2, 16),
    ("V1 at 320, batch 4", 4, 74, 74, 2, 40),
    ("paper SSH at 320, batch 4", 4, 64, 32, 1, 40),
    ("its stems at 320, batch 4", 4, 64, 16, 1, 40),
)
STEPS = (("featherface_v1", 16, 128), ("featherface_paper", 16, 128))  # model, batch, side


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def theirs(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    y: Tensor = deform_conv2d(x, offset, weight, padding=1, mask=mask)
    return y


def compare(name: str, step: str, reference: Callable[[], object], ours: Callable[[], object]) -> None:
    reference(), ours()
    pairs = [(timed(reference), timed(ours)) for _ in range(RUNS)]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:<26} {step:<21} torchvision {slow:7.4f} s  ours {fast:7.4f} s  ratio {ratio:5.1f}", flush=True)


def compare_operators() -> None:
    for name, batch, channels, out, groups, side in SHAPES:
        inputs = (
            torch.randn(batch, channels, side, side, requires_grad=True),
            torch.randn(batch, 18, side, side, requires_grad=True),
            torch.randn(out, channels // groups, 3, 3, requires_grad=True),
            torch.rand(batch, 9, side, side, requires_grad=True),
        )
        reference, ours = partial(theirs, *inputs), partial(sampled_convolution, *inputs)
        compare(name, "forward", reference, ours)
        compare(name, "forward and backward", lambda: reference().sum().backward(), lambda: ours().sum().backward())  # noqa: B023


def compare_steps() -> None:
    for name, batch, side in STEPS:
        model, images = create_model(name), torch.randn(batch, 3, side, side)

        def step(model: nn.Module = model, images: Tensor = images) -> None:
            torch.stack([output.square().mean() for output in model(images)]).sum().backward()

        def reference(step: Callable[[], None] = step) -> None:
            with patch("featherpress.models.layers.deformable.sampled_convolution", theirs):
                step()

        compare(f"{name} at {side}", f"step of {batch}", reference, step)


def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {RUNS} pairs")
    compare_operators()
    compare_steps()


if __name__ == "__main__":
    main()
