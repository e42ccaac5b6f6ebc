"""Parity: whether an exported file computes what the model computes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from featherpress.compress.deployment.graphs import Subject, flat_outputs
from featherpress.errors import ExportError
from featherpress.models.inputs import ModelInput, input_of
from featherpress.records.deployment import Parity, ShapeDifference

TOLERANCE = 1e-4
# A row is a box, the logits or the landmarks of one prior: its numbers come from one another, and round as the largest
# does.
MEASURE = "|exported - torch| / max(1, largest |torch| of the row)"

Forward = Callable[[Tensor], Sequence[Tensor]]


def example_images(shape: Sequence[int], *, seed: int = 0, takes: ModelInput | None = None) -> Tensor:
    """Draw images as a model takes them, or else around 0 with colours as large: coarse shapes, some noise on top."""
    generator = torch.Generator().manual_seed(seed)
    batch, channels, height, width = shape
    coarse = torch.randn(batch, channels, height // 8 + 1, width // 8 + 1, generator=generator)
    images = 50 * F.interpolate(coarse, size=(height, width), mode="bilinear")
    images = images + 5 * torch.randn(*shape, generator=generator)
    return takes.normalize((images + 128).clamp(0, 255).byte()) if takes else images


@torch.no_grad()
def check_parity(subject: Subject, exported: Forward, *, what: str) -> Parity:
    """Compare an exported model with the original at every shape.

    Errors: `ExportError` where an output differs by more than `TOLERANCE`, or has another shape.
    """
    checked = []
    for shape in subject.shapes:
        images = example_images(shape, takes=input_of(subject.original))
        expected, found = flat_outputs(subject.original(images)), exported(images)
        rows = {}
        for name, ours, theirs in zip(subject.outputs, expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise ExportError(
                    f"{what} gives {name} of {tuple(theirs.shape)}, torch {tuple(ours.shape)}, at {shape}"
                )
            rows[name] = _difference(ours, theirs)
            # Written so that a difference that is no number fails too.
            if not rows[name] <= TOLERANCE:
                raise ExportError(
                    f"{what} does not compute what {subject.name} does: {name} differs by {rows[name]:.2g} at {shape}, "
                    f"{TOLERANCE:g} allowed; nothing was written"
                )
        checked.append(ShapeDifference(shape=shape, difference=rows))
    return Parity(tolerance=TOLERANCE, measure=MEASURE, checked=tuple(checked))


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if not ours.numel():
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    scale = ours.abs().amax(dim=-1, keepdim=True) if ours.dim() else ours.abs()
    return float(((theirs - ours).abs() / scale.clamp(min=1)).max())
