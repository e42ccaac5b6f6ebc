"""The interface of a task to the trainer and to experiments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor, nn

from featherpress.compress.data import Crops
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.verdicts import Scores

Split: TypeAlias = Literal["train", "holdout", "val"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoss:
    """The supervised terms, weighted, each a scalar; and what distillation losses ask for by name, as the labels."""

    terms: Mapping[str, Tensor]
    context: Mapping[str, Any]


def format_metric(metric: str) -> str:
    """Return a metric's name as it is printed: AP, accuracy."""
    return metric.upper() if metric == "ap" else metric


class Task(Protocol):
    """One kind of problem: its models and images, its losses, its score.

    `terms` names the supervised terms, `metric` the score. A teacher that scores less than
    `min_teacher_score` cannot teach.
    """

    terms: tuple[str, ...]
    metric: str
    min_teacher_score: float

    def build(self, target: str, settings: Mapping[str, Any]) -> nn.Module:
        """Build a model of the zoo, or anyone's, with fresh weights."""

    def open(self, split: Split) -> Any:
        """Open a split of the data."""

    def crops(self, dataset: Any, seed: int) -> Crops[Any]:
        """Cut training images."""

    def images(self, batch: Any) -> Tensor:
        """Return a batch's images as models take them."""

    def name_outputs(self, raw: Any) -> Outputs:
        """Return a model's raw outputs by name."""

    def assign_targets(self, batch: Any, model: nn.Module) -> Any:
        """Return what a model should predict for a batch."""

    def normalizers(self, targets: Any) -> Tensor:
        """Return what the terms are divided by, (K,); the trainer averages it over a step's batches and processes."""

    def compute_loss(self, outputs: Outputs, batch: Any, targets: Any, normalizers: Tensor) -> TaskLoss:
        """Compare a model's outputs with its targets."""

    def evaluate(
        self,
        model: nn.Module,
        dataset: Any,
        *,
        label: str,
        split: str = "val",
        about: Mapping[str, Any] | None = None,
        images: int = 0,
    ) -> EvaluationResult:
        """Score a model on a data set, or on its first images; the record starts with `about` and names the split."""

    def load(self, path: Path, /) -> Any:
        """Read saved predictions."""

    def scores(self, predictions: Sequence[Any], /) -> Scores:
        """Return the score of what models of several seeds predicted, for resampling."""

    def show(self, folder: Path, dataset: Any, predictions: Mapping[str, Any]) -> None:
        """Save a gallery of a few images with each model's predictions, if the task has pictures to show."""
