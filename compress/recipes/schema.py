"""The schema of a recipe."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from featherpress.compress.distillation.losses.registry import find_loss
from featherpress.compress.recipes.terms import (
    FeatureTerm,
    Fraction,
    OutputTerm,
    Steps,
    Strict,
    Task,
    Term,
    TermName,
    Weight,
    compares_logits,
    lay_over_defaults,
)
from featherpress.errors import UsageError


def check_long_side(value: int) -> int:
    """Refuse a test scale that is too small or too large for an image."""
    if value and not 32 <= value <= 16384:
        raise ValueError(f"a long side is 0 (as it is) or 32 to 16384 pixels, got {value}")
    return value


def _name_cache(value: bool | str) -> bool | str:
    return "fp16" if value is True else value


T = TypeVar("T")

Settings = dict[str, bool | int | float | str]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
LongSide = Annotated[int, AfterValidator(check_long_side)]
Side = Annotated[int, Field(ge=64, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Root = str | Annotated[tuple[str, ...], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    return value if isinstance(value, tuple) else (value,)


Placebo = Literal["shuffled", "smoothing", "compute"]


class StudentRecipe(Strict):
    """The model to train: one of the zoo, or `package.module:factory`, built with `settings`.

    `weights` is a file, or `shipped` for those that come with the package; `backbone` says where its backbone's weights
    come from: the teacher, a file, or nothing. `run` is the folder of an earlier run to go on from: the student from
    its student's weights, the control from its control's. `public_backbone` is a file of weights that the teacher
    had no part in: where student and control start from the teacher's backbone, a third arm starts from that one.
    """

    model: str
    settings: Settings = Field(default_factory=dict)
    weights: str = ""
    run: str = ""
    backbone: str = ""
    public_backbone: str = ""


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
    save_every: Annotated[float, Field(ge=0)] = 60.0

    @model_validator(mode="after")
    def _patience_counts_evaluations(self) -> Self:
        if self.patience and not self.evaluate_every:
            raise ValueError("`patience` counts evaluations, so that it needs `evaluate_every` above 0")
        return self


class TeacherRecipe(Strict):
    """The model to learn from: trained weights, or a schedule to train it first.

    `model`, `settings` and `weights` are as the student's. `cache` keeps its outputs on disk, as `fp32` or `fp16`,
    which true means, so that each crop is paid once; it needs `data.variants`. `weight` is its share among several
    teachers.
    """

    model: str
    settings: Settings = Field(default_factory=dict)
    weights: str = ""
    schedule: ScheduleRecipe | None = None
    cache: Annotated[bool | Literal["fp16", "fp32"], AfterValidator(_name_cache)] = False
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _weights_or_schedule(self) -> Self:
        if not self.weights and self.schedule is None:
            raise ValueError("a teacher needs `weights`, or a `schedule` to train it by")
        return self


_DRAWN = ("synthetic", "shapes")


class UnlabelledRecipe(Strict):
    """Photographs without labels, which the teacher labels before the student's training.

    `root` is a folder, or a list of them, which give crops in turns. `per_batch` crops come on top of every batch. What
    the teacher scores from `positive_threshold` on is a face; between `ignore_threshold` and that it is ignored; below
    it is background. `square = false` leaves out images with equal sides, which are often squashed; `images` is how
    many of a folder are taken, 0 for all. `long_side` is the scale at which the teacher looks, the longer side in
    pixels, 0 for the photograph as it is: enlarged, it finds smaller faces. Several scales are a list; of what they
    find twice the surer stays. The control never sees them.
    """

    root: Root
    per_batch: Positive = 8
    images: Count = 0
    square: bool = True
    positive_threshold: Fraction = 0.6
    ignore_threshold: Fraction = 0.2
    long_side: LongSide | Annotated[tuple[LongSide, ...], Field(min_length=1)] = 0

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders, one or several."""
        return _several(self.root)

    @property
    def long_sides(self) -> tuple[int, ...]:
        """The scales, one or several."""
        return _several(self.long_side)


Zoom = Annotated[float, Field(ge=0.05, le=8)]


class CropsRecipe(Strict):
    """How large a part of an image a training crop shows, which decides how large its faces are.

    A crop's side is drawn from `zoom_in` times the image's short side or, with probability `zoom_out_probability`, from
    `zoom_out` times its long side: the further out, the smaller the faces. With probability `native_probability` it is
    `native` times the crop's own side, so that at 1 faces are as large as in the image, and a crop of 320 pixels is a
    window of 320. No window is smaller than the face that it aims at. What lies beyond the image is mean colour.
    """

    zoom_in: tuple[Zoom, Zoom] = (0.3, 1.0)
    zoom_out: tuple[Zoom, Zoom] = (1.0, 1.5)
    zoom_out_probability: Fraction = 0.25
    native: tuple[Zoom, Zoom] = (0.8, 1.25)
    native_probability: Fraction = 0.0

    def needed_side(self, size: int) -> int:
        """Return the short side an image may be reduced to for crops of `size` pixels; 0 where it may not be.

        Whatever is cut, a window is no smaller than this part of an image's short side.
        """
        return 0 if self.native_probability else math.ceil(size / min(self.zoom_in[0], self.zoom_out[0]))

    @model_validator(mode="after")
    def _low_to_high(self) -> Self:
        if self.zoom_out_probability + self.native_probability > 1:
            raise ValueError("`zoom_out_probability` and `native_probability` come to more than 1")
        for name in ("zoom_in", "zoom_out", "native"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"`{name}` goes from {low} to {high}: put the lower one first")
        return self


class DataRecipe(Strict):
    """Where pictures come from, and how they are cut.

    `kind` is `widerface`, read from `root`; `coco`, read from the `annotations.json` in `root/train` and in `root/val`,
    where `category` holds the faces; `synthetic`, faces drawn from `seed`; or `shapes`, drawn too, of `classes` kinds,
    which are to be told apart rather than found. `root` may be a list; an epoch then holds as many crops of each, or by
    `shares`, and in each all events, which are the folders of its images, come equally often; `balance` does so by the
    events of one. `validation_root` is where the validation split lies, the first root unless given.

    `size` is the side of a training crop in pixels, or a list of them, each batch of one; `batch_size` is that of the
    first, and of the others so many fewer that a step has as many pixels. `variants` how many different crops an image
    has, 0 for ever new ones. The limits shorten the sets. `holdout` training images are kept back, and what is chosen
    on the way is chosen on them: scores between epochs, the best weights, an early stop, the table of an ablation.
    Without them that is done on the validation images. By `image` they are spread evenly, by `event` they are whole
    events of each root, `holdout` images at most.
    `long_side` is the scale at test: the longer side of an image in pixels, 0 for the image as it is.
    `cache` keeps decoded images in memory, on disk in the run's folder while it trains, or not at all; `cache_bytes` is
    what a process keeps in memory at most, decoded images and crops together.
    """

    kind: Literal["widerface", "coco", "synthetic", "shapes"]
    root: Root = ""
    validation_root: str = ""
    shares: tuple[Share, ...] = ()
    balance: bool = False
    category: str = ""
    size: Side | Annotated[tuple[Side, ...], Field(min_length=1)] = 320
    variants: Annotated[int, Field(ge=0, le=1000)] = 0
    train_images: Count = 0
    validation_images: Count = 0
    image_size: Side = 320
    long_side: LongSide = 0
    seed: Seed = 0
    holdout: Count = 0
    holdout_by: Literal["image", "event"] = "image"
    cache: Literal["ram", "disk", "none"] = "ram"
    cache_bytes: Annotated[int, Field(ge=0)] = 4 << 30
    classes: Annotated[int, Field(ge=2, le=6)] = 6
    crops: CropsRecipe = CropsRecipe()
    unlabelled: UnlabelledRecipe | None = None

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders, one or several; none where pictures are drawn."""
        return _several(self.root) if self.root else ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sides of crops, one or several."""
        return _several(self.size)

    @property
    def root_shares(self) -> tuple[float, ...]:
        """What each root gives of an epoch; nothing where an epoch is every image once."""
        if len(self.roots) < 2 and not self.balance:
            return ()
        return self.shares or (1.0,) * len(self.roots)

    @property
    def task(self) -> Task:
        """The task that such data are for."""
        return "classification" if self.kind == "shapes" else "detection"

    @model_validator(mode="after")
    def _enough_said(self) -> Self:
        if self.kind not in _DRAWN and not self.root:
            raise ValueError(f"{self.kind} data needs a `root`")
        if self.shares and len(self.shares) != len(self.roots):
            raise ValueError(f"`shares` has {len(self.shares)} numbers for {len(self.roots)} roots")
        if self.kind in _DRAWN and (self.balance or len(self.roots) > 1):
            raise ValueError(f"{self.kind} data has neither roots nor events to `balance`")
        if self.category and self.kind != "coco":
            raise ValueError("only coco data has a `category`")
        if self.kind in _DRAWN and not (self.train_images and self.validation_images):
            raise ValueError(f"{self.kind} data needs `train_images` and `validation_images`")
        if self.kind == "shapes" and (self.unlabelled or self.holdout or self.crops != CropsRecipe()):
            raise ValueError("shapes data has neither `unlabelled` photographs nor a `holdout` nor `crops`")
        return self


class LossRecipe(Strict):
    """Weights of the supervised terms, and the mining of hard negatives.

    `mining` is `batch`, the hardest of all processes' images at once, or `image`, the hardest of each image.
    """

    mining: Literal["batch", "image"] = "batch"

    classification: Weight = 1.0
    box: Weight = 2.0
    landmark: Weight = 1.0


class DistillationRecipe(Strict):
    """What the student learns from the teacher, and when.

    `losses` are the terms by name. Unless `default_losses` is false, four are there already: `feature`, `class`, `box`
    and `landmark`; a table of such a name changes only the keys that it gives. Terms grow from 0 over `ramp_steps`, and
    stop for the last fraction `stop` of the steps. Several teachers are `averaged`, their losses by their weights, or
    teach `sequential`, each for the share of the steps that its weight is of all.
    """

    teaching: Literal["averaged", "sequential"] = "averaged"

    ramp_steps: Steps = 1000
    stop: Fraction = 0.1
    default_losses: bool = True
    losses: dict[TermName, Term] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        losses = content.get("losses", {})
        if content.get("default_losses", True) is not True or not isinstance(losses, Mapping):
            return content
        return {**content, "losses": lay_over_defaults(losses)}


class Recipe(Strict):
    """One experiment. Without a teacher it is plain training; `teachers` are several.

    `placebos` are trained beside student and control: with a teacher whose outputs are `shuffled` over the batch, with
    labels smoothed to its mean confidence (`smoothing`), or without it for the `compute` that its lessons cost.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)] = (0,)
    control: bool = True
    placebos: tuple[Placebo, ...] = ()
    budget: str = ""
    student: StudentRecipe
    teacher: TeacherRecipe | None = None
    teachers: tuple[TeacherRecipe, ...] = ()
    data: DataRecipe
    schedule: ScheduleRecipe
    losses: LossRecipe = LossRecipe()
    distillation: DistillationRecipe = Field(default_factory=DistillationRecipe)

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
        if self.student.backbone == "teacher" and not self.all_teachers:
            raise ValueError("`student.backbone` is the teacher's, but there is no teacher")
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
        for name, term in self.distillation.losses.items() if self.all_teachers else ():
            if self.data.task not in term.tasks:
                raise ValueError(f"`distillation.losses.{name}`: {_unfit(term.loss, self.data.task)}")
            check, shape = find_loss(term.loss).check, (1, self.data.classes)
            if check is not None and isinstance(term, OutputTerm):
                try:
                    check(shape, shape)
                except UsageError as error:
                    raise ValueError(f"`distillation.losses.{name}`: {error}") from error
            if isinstance(term, FeatureTerm) and not isinstance(term.teacher, str):
                taps, teachers = len(term.teacher), len(self.all_teachers)
                if taps != teachers:
                    raise ValueError(f"`distillation.losses.{name}.teacher` names {taps} taps for {teachers} teachers")
        return self

    @property
    def all_teachers(self) -> tuple[TeacherRecipe, ...]:
        """All teachers, whether one or several."""
        return (self.teacher,) if self.teacher else self.teachers


def _unfit(loss: str, task: Task) -> str:
    """Return why a loss does not fit a task, and which one does."""
    if loss == "dkd":
        return (
            "dkd is refused for two classes, face and background: with only one class beside the label its non-target "
            "term is always 0; use margin"
        )
    if task == "detection":
        return f"{loss} compares a classifier's logits; for a detector use margin"
    return f"{loss} compares a detector's priors or boxes; for a classifier set default_losses = false, and use kl"
