"""Whether distillation helped: both arms seed by seed, and the interval of their difference."""

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from featherpress.records.evaluation import Metric, known_metric
from featherpress.records.record import Part, Record

Verdict = Literal["better", "worse", "not shown", "undecided"]
MIN_SEEDS = 3
"""A claim about a method takes as many; `verdicts` decides by the same number."""
# What a record may have rounded away before it contradicts itself.
TOLERANCE = 5e-4


class Arm(Part):
    """One side of the comparison: a score a seed, their mean, and their deviation; once named by their metric."""

    scores: tuple[float, ...] = Field(validation_alias=AliasChoices("scores", "ap", "accuracy"))
    mean: float
    std: float | None = None


class TeacherScore(Part):
    """What a teacher scores; once named by the metric."""

    model: str
    score: float | None = Field(default=None, validation_alias=AliasChoices("score", "ap", "accuracy"))


class Difference(Part):
    """One side less the other, with an interval, and what that covers; `v_` are variances of the mean."""

    mean: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)
    resamples: int
    method: str
    covers: tuple[Literal["seeds", "examples"], ...] = ("examples",)
    seeds: int = 1
    examples: int = 0
    v_seeds: float | None = None
    v_examples: float | None = None
    df: float | None = None

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected the lower end of an interval first, got {self.low:g} and {self.high:g}")
        return self

    @property
    def verdict(self) -> Verdict:
        """What the interval allows to say of a method: nothing where it does not cover three seeds or more."""
        if "seeds" not in self.covers or self.seeds < MIN_SEEDS:
            return "undecided"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not shown"


class Steps(Part):
    """How many steps each seed of either arm trained."""

    control: tuple[int, ...]
    distilled: tuple[int, ...]


class OtherArm(Part):
    """A further arm beside the control: its scores, its difference to the control, and its verdict after Holm.

    How many steps it trained is not known of a loop that is not ours.
    """

    name: str
    scores: Arm
    steps: tuple[int, ...] = ()
    difference: Difference
    verdict: Verdict
    p: float


class Knowledge(Part):
    """What remains to the teacher's knowledge: distilled less the best of the placebos."""

    placebo: str
    difference: Difference
    verdict: Verdict
    sentence: str


class Leak(Part):
    """How many validation images lie in the training split too, and how many have a near copy there."""

    same: int
    near: int


class Comparison(Record):
    """Whether distillation helped, as the run that trained both arms recorded it, or `compare_arms` in anyone's loop.

    `metric` may be its key alone; `unit` is what the scores are over; `others` are placebos and the arm from the public
    backbone; `changed` is what became other while the run went on.
    """

    SCHEMA: ClassVar[str] = "featherpress.comparison/1"

    metric: Metric | str
    unit: str = "images"
    data: dict[str, Any] | None = None
    seeds: tuple[int, ...]
    teacher: TeacherScore | None = None
    teachers: tuple[TeacherScore, ...] | None = None
    control: Arm
    distilled: Arm
    difference: Difference
    verdict: Verdict
    sentence: str
    steps: Steps | None = None
    others: tuple[OtherArm, ...] = ()
    knowledge: Knowledge | None = None
    beside_teacher: str = ""
    leak: Leak | None = None
    changed: tuple[str, ...] = ()

    @property
    def scored_by(self) -> Metric:
        """The metric of both arms."""
        return self.metric if isinstance(self.metric, Metric) else known_metric(self.metric)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse arms without a score a seed, a mean that is not theirs, and a verdict that its interval denies."""
        for name, arm in (("control", self.control), ("distilled", self.distilled)):
            scores = arm.scores
            if not scores or len(scores) != len(self.seeds):
                raise ValueError(f"expected {len(self.seeds)} numbers at `{name}.scores`, got {len(scores)}")
            mean = math.fsum(scores) / len(scores)
            if abs(mean - arm.mean) > TOLERANCE:
                raise ValueError(f"expected `{name}.mean` to be {mean:.6f}, got {arm.mean:.6f}")
        if abs(self.distilled.mean - self.control.mean - self.difference.mean) > 2 * TOLERANCE:
            gap = self.distilled.mean - self.control.mean
            raise ValueError(f"expected `difference.mean` to be {gap:.6f}, got {self.difference.mean:.6f}")
        allowed = self.difference.verdict
        if self.verdict not in {allowed, "undecided"}:
            raise ValueError(f"expected the verdict {allowed!r} from its interval, got {self.verdict!r}")
        return self
