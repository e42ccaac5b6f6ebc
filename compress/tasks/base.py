"""What a task is: the interface to the trainer and to experiments, with defaults for a task of one's own."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from featherpress.compress.data import Crops
from featherpress.compress.data.crops.base import WholeImages
from featherpress.compress.data.crops.sampling import Sampler
from featherpress.compress.data.sources.unlabelled import open_photographs
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.compress.evaluation.metrics.values import ExampleValues
from featherpress.compress.evaluation.saved_scores import value_scores
from featherpress.compress.recipes import DataRecipe, Recipe
from featherpress.compress.recipes.required_files import Need
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import UsageError
from featherpress.models.factories import load_factory
from featherpress.models.inputs import ModelInput, input_of, normalization_of, remember_input
from featherpress.records.evaluation import Metric, TaskEvaluation
from featherpress.verdicts import Scores

_EVALUATED_AT_ONCE = 64

Split: TypeAlias = Literal["train", "holdout", "val"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoss:
    """The supervised terms, weighted, each a scalar; and what distillation losses ask for by name, as the labels."""

    terms: Mapping[str, Tensor]
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a model was found to do: its predictions, its score, and what the record says of them.

    `data` is said of the images, `fields` beside the score; a score is None where there is nothing to find.
    """

    predictions: Any
    score: float | None
    data: Mapping[str, Any]
    fields: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """One kind of problem: its options and images, its models, its losses, its score.

    `Data` is the model of its `[data]` table. `terms` names the supervised terms, `metric` the score, of which more is
    better; a teacher that scores less than `min_teacher_score` cannot teach. `outputs` are what `name_outputs` names,
    `context` what its losses give distillation losses by name, and `layout` how its logits lie: `classes` is
    (N, C, ...), `priors` (N, P, 2).
    """

    Data: ClassVar[type[DataRecipe]] = DataRecipe
    terms: ClassVar[tuple[str, ...]] = ("class",)
    metric: ClassVar[Metric]
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    context: ClassVar[tuple[str, ...]] = ()
    layout: ClassVar[Literal["classes", "priors"]] = "classes"
    min_teacher_score: float = 0.0

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.data = recipe, recipe.data

    @classmethod
    def needs(cls, data: Any) -> Iterator[Need]:
        """List the files and folders that data of these options need; drawn data need none."""
        yield from ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the classes; none where a model's outputs have no names."""
        return ()

    def build(self, target: str, settings: Mapping[str, Any], *, normalize: Any = "", size: int = 0) -> nn.Module:
        """Build a model of the zoo, or anyone's, with fresh weights, and note what images it takes.

        `normalize` is a mean and a deviation, or nothing for the model's own; `size` the side of its images, or 0 for
        the task's.

        Errors: `UsageError` for a model that does not fit the task.
        """
        model = load_factory(target, settings)
        mean, std = (normalize.mean, normalize.std) if normalize else self.normalization(model)
        side = size or self.data.sizes[0]
        noted = ModelInput(mean=mean, std=std, size=side, classes=self.classes, target=target, settings=dict(settings))
        remember_input(model, noted)
        return model

    def check_logit_losses(self, target: str, *, sigmoids: bool) -> None:
        """Refuse losses by softmax for a head of `sigmoids`, as they do not see how likely a class is, and the reverse.

        Errors: `UsageError`, which names the term.
        """
        for name, term in self.recipe.distillation.losses.items() if self.recipe.all_teachers else ():
            if term.loss in (("kl", "dist") if sigmoids else ("binary",)):
                has, wanted = ("a sigmoid for each class", "binary") if sigmoids else ("a softmax over classes", "kl")
                raise UsageError(f"`distillation.losses.{name}`: the head of {target} has {has}; use {wanted}")

    def normalization(self, model: nn.Module) -> tuple[Any, Any]:
        """Return the mean and deviation of a model's images where the recipe names none."""
        return normalization_of(model)

    def takes(self, model: nn.Module) -> ModelInput:
        """Return what images a model takes, by what `build` noted."""
        noted = input_of(model)
        if noted is not None:
            return noted
        mean, std = self.normalization(model)
        return ModelInput(mean=mean, std=std)

    def example(self) -> Tensor:
        """Return an image to learn shapes from, (1, 3, S, S)."""
        return torch.zeros(1, 3, self.data.sizes[0], self.data.sizes[0])

    @abstractmethod
    def open(self, split: Split) -> Any:
        """Open a split of the data: it has a length, and `name(index)`."""

    def unlabelled_images(self) -> list[Any]:
        """Open the images without labels: the folders of `data.unlabelled`, none where it is not given."""
        return [*open_photographs(self.data.unlabelled)] if self.data.unlabelled else []

    def teacher_images(self, training: Any) -> Any:
        """Return what a teacher that is trained first learns from: the training images."""
        return training

    def check(self, dataset: Any) -> None:  # noqa: B027
        """Look at all of a data set before any work is spent on it.

        Errors: `DataError` that names the first file that cannot be used.
        """

    def batch(self, dataset: Any, indices: Sequence[int]) -> Any:
        """Return some images of a data set as they are, with their labels: an `ImageBatch`."""
        raise NotImplementedError(f"{type(self).__name__} makes no batches")

    def crops(self, dataset: Any, seed: int) -> Crops[Any]:
        """Cut training images; here they are the images as they are."""
        sampler = Sampler(len(dataset), sizes=self.data.sizes[:1], seed=seed, variants=self.data.variants)
        return WholeImages(dataset, sampler, lambda indices: self.batch(dataset, indices))

    def unlabelled_crops(self, dataset: Any, seed: int, *, teacher: nn.Module | None, out: Path) -> Crops[Any]:
        """Cut training images, and on top of each batch images without labels, which the teacher labels.

        Without a teacher they are further ones of the labelled images. Labels are kept in the folder `out`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not label images")

    def images(self, batch: Any, model: nn.Module) -> Tensor:
        """Return a batch's images as a model takes them; it is the student, or a teacher that is trained first."""
        return self.takes(model).normalize(batch.images)

    def view(self, dataset: Any, index: int, model: nn.Module) -> Tensor:
        """Read one image of a data set as a model takes it, (1, 3, H, W).

        Errors: `DataError` for an image that cannot be read.
        """
        return self.images(self.batch(dataset, [index]), model)

    def teacher_inputs(self, student: nn.Module, teacher: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return what turns a student's images into a teacher's."""
        own, theirs = self.takes(student), self.takes(teacher)

        def convert(images: Tensor) -> Tensor:
            # The layout in which CPUs and GPUs alike convolve without reordering.
            return theirs.from_normalized(images, own).contiguous(memory_format=torch.channels_last)

        return convert

    def forward(self, model: Any, images: Tensor, batch: Any, targets: Any) -> Outputs:
        """Run a model in training; one that computes its own losses takes its targets with the images."""
        return self.name_outputs(model(images))

    def name_outputs(self, raw: Any) -> Outputs:
        """Return a model's raw outputs by name."""
        return {"logits": raw}

    @abstractmethod
    def assign_targets(self, batch: Any, model: nn.Module) -> Any:
        """Return what a model should predict for a batch."""

    def normalizers(self, targets: Any) -> Tensor:
        """Return what the terms are divided by, (K,); the trainer averages it over a step's batches and processes."""
        return torch.tensor([len(targets)], device=getattr(targets, "device", None))

    def class_weights(self) -> Tensor | None:
        """Return the weight of each class in the supervised loss, (C,); None where all weigh the same."""
        return None

    @cached_property
    def _weights(self) -> Tensor | None:
        return self.class_weights()

    def weights_on(self, device: torch.device) -> Tensor | None:
        """Return the classes' weights, computed once, on a device."""
        return None if self._weights is None else self._weights.to(device)

    @abstractmethod
    def compute_loss(self, outputs: Outputs, batch: Any, targets: Any, normalizers: Tensor) -> TaskLoss:
        """Compare a model's outputs with its targets."""

    def score_examples(self, outputs: Outputs, batch: Any, targets: Any) -> Tensor:
        """Return the score of each image, (N,), whose mean is the metric."""
        raise NotImplementedError(f"{type(self).__name__} scores no examples")

    def measure(self, model: nn.Module, dataset: Any, *, label: str, split: str, images: int) -> Measured:
        """Look at what a model says of all images of a data set, or of so many of them; here the first ones."""
        count, device = min(images or len(dataset), len(dataset)), next(model.parameters()).device
        values: list[Tensor] = []
        with evaluating(model), Progress(label, total=count) as progress:
            for start in range(0, count, _EVALUATED_AT_ONCE):
                indices = range(start, min(start + _EVALUATED_AT_ONCE, count))
                batch = self.batch(dataset, indices).to(device)
                outputs = self.name_outputs(model(self.images(batch, model)))
                values.append(self.score_examples(outputs, batch, self.assign_targets(batch, model)).double().cpu())
                for _ in indices:
                    progress.advance()
        names = tuple(str(dataset.name(index)) for index in range(count))
        predictions = ExampleValues(metric=self.metric.name, names=names, values=torch.cat(values).numpy())
        return Measured(predictions=predictions, score=predictions.mean, data={"images": count})

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
        """Score a model on a data set or on some images of it; the record begins with `about`, and names the split."""
        began = time.monotonic()
        found = self.measure(model, dataset, label=label, split=split, images=images)
        record = {
            "schema": TaskEvaluation.SCHEMA,
            **(about or {}),
            "data": {"name": self.data.kind, "split": split, **found.data},
            "metric": self.metric.to_dict(),
            "score": found.score,
            **found.fields,
            "seconds": round(time.monotonic() - began, 3),
        }
        return EvaluationResult(predictions=found.predictions, score=found.score or 0.0, record=record)

    def runnable(self, exported: nn.Module, model: nn.Module) -> nn.Module:
        """Return a file that a model was exported to as `measure` takes it; it gives what the graph gives."""
        return exported

    def load(self, path: Path, /) -> Any:
        """Read saved predictions."""
        return ExampleValues.load(path)

    def scores(self, predictions: Sequence[Any], /) -> Scores:
        """Return the score of what models of several seeds predicted, for resampling."""
        return value_scores(predictions)

    def show(self, folder: Path, dataset: Any, predictions: Mapping[str, Any]) -> None:  # noqa: B027
        """Save a gallery of a few images with each model's predictions, if the task has pictures to show."""
