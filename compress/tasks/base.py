"""What the engine asks of a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn

from featherpress.compress.losses.matching import Targets

__all__ = ["Evidence", "LabelEvidence", "Outputs", "PriorEvidence", "Supervision", "Task"]

Outputs: TypeAlias = Mapping[str, Tensor]
"""What a model says, by name: `boxes`, `logits` and `landmarks` of a detector, `logits` of a classifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorEvidence:
    """Where a detector and its teacher are compared.

    Shapes: `count` a scalar, the positives to divide by; negatives (N, P) bool, the mined ones; priors (P, 4); boxes
    (N, M, 4) in pixels of `image` (height, width), present (N, M) bool.
    """

    targets: Targets
    negatives: Tensor
    priors: Tensor
    count: Tensor
    boxes: Tensor
    present: Tensor
    image: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEvidence:
    """The labels of images, (N,) int64."""

    labels: Tensor


Evidence: TypeAlias = PriorEvidence | LabelEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """The supervised terms, weighted, each a scalar; and what distillation needs to know of the labels."""

    terms: Mapping[str, Tensor]
    evidence: Evidence


class Task(Protocol):
    """One kind of problem; `terms` names the supervised terms, `metric` the score."""

    terms: tuple[str, ...]
    metric: str

    def images(self, batch: Any) -> Tensor:
        """Give a batch's images as models take them."""
        ...

    def name_outputs(self, raw: Any) -> Outputs:
        """Name what a model returned."""
        ...

    def aim(self, batch: Any, model: nn.Module) -> Any:
        """Work out what a model should say of a batch."""
        ...

    def counts(self, targets: Any) -> Tensor:
        """Count what the terms are divided by, (K,); the engine averages it over a step's batches and processes."""
        ...

    def supervise(self, outputs: Outputs, batch: Any, targets: Any, counts: Tensor) -> Supervision:
        """Compare a model's outputs with its targets."""
        ...
