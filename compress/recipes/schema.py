"""The schema of a recipe."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from featherpress.amounts import read_amount
from featherpress.compress.distillation.losses.bounds import Fraction
from featherpress.compress.distillation.placebos import Placebo
from featherpress.compress.recipes.data import AnyData, Count, Positive, Seed
from featherpress.compress.recipes.kinds import find_suited_task
from featherpress.compress.recipes.tables import Strict
from featherpress.compress.recipes.terms import (
    TERMS_TO_ADD,
    FeatureTerm,
    Steps,
    Term,
    TermName,
    Weight,
    compares_logits,
    lay_over_defaults,
    why_unfit,
)
from featherpress.errors import UsageError
from featherpress.models.inputs import IMAGENET


def _require_finite(settings: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
    for key, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected a finite number for {key[:60]!r}, got {value}")
    return settings


Settings = Annotated[dict[str, bool | int | float | str], AfterValidator(_require_finite)]


def _name_cache(value: bool | str) -> bool | str:
    return "fp16" if value is True else value


Channel = Annotated[float, Field(allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Normalization(Strict):
    """What a model's images are normalised by: mean and deviation of RGB from 0 to 1."""

    mean: tuple[Channel, Channel, Channel]
    std: tuple[Deviation, Deviation, Deviation]


def _read_normalization(value: Any) -> Any:
    return {"mean": IMAGENET[0], "std": IMAGENET[1]} if value == "imagenet" else value or None


Normalize = Annotated[Normalization | None, BeforeValidator(_read_normalization)]


def _read_amount(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return read_amount(value)
    except UsageError as error:
        raise ValueError(str(error)) from error


Amount = Annotated[int, BeforeValidator(_read_amount), Field(ge=1)]


class PruneRecipe(Strict):
    """What the student's model is cut to: `params` and `macs` at most, as 1_000_000 or "1M".

    Modules or tensors that a pattern of `keep` matches stay as they are. Channels are weighed by `importance`; of each
    axis the share `floor` stays at least, in a `multiple_of` so many.
    """

    params: Amount | None = None
    macs: Amount | None = None
    keep: tuple[str, ...] = ()
    importance: Literal["l2", "l1", "batchnorm"] = "l2"
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.1
    multiple_of: Positive = 1


class StudentRecipe(Strict):
    """The model to train: one of the zoo, or `package.module:factory`, built with `settings`.

    With `prune` it is that model, with these weights, cut to a budget; `pruned` is a file of one that is cut already.
    Every arm starts from the same pruned weights. `weights` is a file, or `shipped` for those that come with the
    package, or, to be pruned, `teacher` for those of the first teacher with its shapes; `backbone` says where its
    backbone's weights come from: the teacher, a file, or nothing. `run` is the folder of an earlier run to go on from:
    the student from its student's weights, the control from its control's. `public_backbone` is a file of weights that
    the teacher had no part in: where student and control start from the teacher's backbone, a third arm starts from
    that one.
    `normalize` is `imagenet`, or a table of `mean` and `std` for RGB from 0 to 1; unless given it is what timm's
    `pretrained_cfg` says, or else the task's.
    """

    model: str
    settings: Settings = Field(default_factory=dict)
    normalize: Normalize = None
    weights: str = ""
    prune: PruneRecipe | None = None
    pruned: str = ""
    run: str = ""
    backbone: str = ""
    public_backbone: str = ""

    @model_validator(mode="after")
    def _starts_from_one_thing(self) -> Self:
        if self.prune and self.pruned:
            raise ValueError("`prune` cuts the model and `pruned` is a file of one that is cut: give one of the two")
        if self.pruned and (self.weights or self.backbone or self.run):
            raise ValueError("`pruned` holds the student's weights: leave `weights`, `backbone` and `run` out")
        if self.prune and (self.run or self.public_backbone):
            raise ValueError(
                "`prune` starts every arm from the same weights, and `run` and `public_backbone` from others; a `run` "
                "whose student was pruned goes on with it as it is"
            )
        if self.weights == "teacher" and not self.prune:
            raise ValueError("`weights` are the teacher's only to be pruned: give `prune`, or a file")
        return self


class ScheduleRecipe(Strict):
    """The training schedule: AdamW with a one-cycle learning rate, and an exponential moving average of the weights.

    `learning_rate` is the cycle's peak, reached after `warmup` of the steps; `clip` bounds the gradient's norm, 0 for
    never; `evaluate_every` counts epochs, 0 for only at the end, `evaluate_images` how many images that is on, 0 for
    all; `save_every` counts seconds between saved states.

    `batch_size` images, over all processes, go through the model at once, and a step sums the gradients of
    `accumulate` such batches. `freeze` holds patterns over the paths of modules and weights that stay as they are, and
    `freeze_statistics` keeps every BatchNorm's running statistics. After `patience` evaluations without a better
    score training stops, 0 for never.
    """

    epochs: Positive
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    weight_decay: Weight = 5e-4
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.1
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    clip: Weight = 10.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = True
    accumulate: Annotated[int, Field(ge=1, le=10_000)] = 1
    freeze: tuple[str, ...] = ()
    freeze_statistics: bool = False
    patience: Count = 0
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    log_every: Positive = 10
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    evaluate_images: Annotated[int, Field(ge=0)] = 0
    save_every: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0

    @model_validator(mode="after")
    def _patience_counts_evaluations(self) -> Self:
        if self.patience and not self.evaluate_every:
            raise ValueError("`patience` counts evaluations, so that it needs `evaluate_every` above 0")
        return self


class TeacherRecipe(Strict):
    """The model to learn from: trained weights, or a schedule to train it first.

    `model`, `settings` and `weights` are as the student's. `cache` keeps its outputs on disk, as `fp32` or `fp16`,
    which true means, so that each crop is paid once; it needs `data.variants`. `weight` is its share among several
    teachers. `size` is the side of the images that it takes, 0 for the student's.
    """

    model: str
    settings: Settings = Field(default_factory=dict)
    normalize: Normalize = None
    size: Annotated[int, Field(ge=0, le=4096)] = 0
    weights: str = ""
    schedule: ScheduleRecipe | None = None
    cache: Annotated[bool | Literal["fp16", "fp32"], AfterValidator(_name_cache)] = False
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _weights_or_schedule(self) -> Self:
        if not self.weights and self.schedule is None:
            raise ValueError("a teacher needs `weights`, or a `schedule` to train it by")
        return self


class LossRecipe(Strict):
    """Weights of the supervised terms, and the mining of hard negatives.

    `mining` is `batch`, the hardest of all processes' images at once, or `image`, the hardest of each image.
    `auxiliary` is for the second output that some segmenters have in training.
    """

    mining: Literal["batch", "image"] = "batch"

    classification: Weight = 1.0
    box: Weight = 2.0
    landmark: Weight = 1.0
    auxiliary: Weight = 0.5


class DistillationRecipe(Strict):
    """What the student learns from the teacher, and when.

    `losses` are the terms by name. With `default_losses`, which a recipe for detectors of faces has unless it says
    otherwise, four are there already: `feature`, `class`, `box` and `landmark`; a table of such a name changes only the
    keys that it gives. Terms grow from 0 over `ramp_steps`, a
    tenth of the steps and 1000 at most unless given, and stop for the last fraction `stop` of the steps. Several
    teachers are `averaged`, their losses by their weights, or teach `sequential`, each for the share of the steps that
    its weight is of all. `balance` above 0 scales all terms together so that their gradient at the taps, once they have
    grown, is that share of the task's.
    """

    teaching: Literal["averaged", "sequential"] = "averaged"

    ramp_steps: Steps | None = None
    stop: Fraction = 0.1
    balance: Weight = 0.0
    default_losses: bool | None = None
    losses: dict[TermName, Term] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        losses = content.get("losses", {})
        if content.get("default_losses") is not True or not isinstance(losses, Mapping):
            return content
        return {**content, "losses": lay_over_defaults(losses)}


class Recipe(Strict):
    """One experiment. Without a teacher it is plain training; `teachers` are several.

    `placebos` are trained beside student and control: with a teacher whose outputs are `shuffled` over the batch, with
    labels smoothed to its mean confidence (`smoothing`), or without it for the `compute` that its teacher costs.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)] = (0,)
    control: bool = True
    placebos: tuple[Placebo, ...] = ()
    budget: str = ""
    student: StudentRecipe
    teacher: TeacherRecipe | None = None
    teachers: tuple[TeacherRecipe, ...] = ()
    data: AnyData
    schedule: ScheduleRecipe
    losses: LossRecipe = LossRecipe()
    distillation: DistillationRecipe = Field(default_factory=DistillationRecipe, validate_default=True)

    @field_validator("distillation", mode="before")
    @classmethod
    def _default_losses_fit_the_task(cls, content: Any, info: ValidationInfo) -> Any:
        if isinstance(content, DistillationRecipe):
            content = content.model_dump(exclude_unset=True)
        if not isinstance(content, Mapping) or not {"data", "student"} <= info.data.keys():
            return content
        task = find_suited_task(info.data["data"], info.data["student"].model)
        return {"default_losses": task.layout == "priors", **content}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("`seeds` holds a seed twice")
        if self.teacher and self.teachers:
            raise ValueError("`teacher` is one and `teachers` are several: give one of the two")
        if any(teacher.cache for teacher in self.all_teachers) and not self.data.variants:
            raise ValueError("`teacher.cache` needs `data.variants` above 0: crops that never repeat cannot be cached")
        if any(own.schedule and own.schedule.precision != self.schedule.precision for own in self.all_teachers):
            raise ValueError("`teacher.schedule.precision` and `schedule.precision` must be the same in one run")
        if "teacher" in (self.student.backbone, self.student.weights) and not self.all_teachers:
            which = "backbone" if self.student.backbone == "teacher" else "weights"
            raise ValueError(f"`student.{which}` is the teacher's, but there is no teacher")
        cut = self.student.prune
        if cut and not (cut.params or cut.macs or self.budget):
            raise ValueError("`student.prune` needs `params` or `macs`, or a `budget` of the recipe")
        return self

    @model_validator(mode="after")
    def _arms_can_be_trained(self) -> Self:
        if self.placebos and not (self.control and self.all_teachers):
            raise ValueError("`placebos` stand beside a control, and in for a teacher: the recipe needs both")
        if len(set(self.placebos)) != len(self.placebos):
            raise ValueError("`placebos` holds one twice")
        if "shuffled" in self.placebos and self.schedule.batch_size < 2:
            raise ValueError("a batch of one image has none to be shuffled with; set `schedule.batch_size`")
        logits = any(compares_logits(term) and term.weight for term in self.distillation.losses.values())
        if "smoothing" in self.placebos and not logits:
            raise ValueError("the placebo `smoothing` needs a loss between logits: margin, kl or dkd")
        if self.student.public_backbone and (self.student.backbone != "teacher" or self.student.run):
            raise ValueError("`student.public_backbone` is for students that start from the teacher's backbone")
        return self

    @model_validator(mode="after")
    def _losses_fit_the_task(self) -> Self:
        task = find_suited_task(self.data, self.student.model)
        if self.all_teachers and not any(term.weight for term in self.distillation.losses.values()):
            none = "all of them weigh 0" if self.distillation.losses else "there is none"
            raise ValueError(f"a teacher teaches by `distillation.losses`, and {none}: {TERMS_TO_ADD[task.layout]}")
        for name, term in self.distillation.losses.items() if self.all_teachers else ():
            reason = why_unfit(term, task)
            if reason:
                raise ValueError(f"`distillation.losses.{name}`: {reason}")
            if isinstance(term, FeatureTerm) and not isinstance(term.teacher, str):
                taps, teachers = len(term.teacher), len(self.all_teachers)
                if taps != teachers:
                    raise ValueError(f"`distillation.losses.{name}.teacher` names {taps} taps for {teachers} teachers")
        return self

    @property
    def all_teachers(self) -> tuple[TeacherRecipe, ...]:
        """All teachers, whether one or several."""
        return (self.teacher,) if self.teacher else self.teachers
