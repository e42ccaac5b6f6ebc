"""A budget curve: a student for each budget, distilled alike, and what each scores."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from featherpress.records.comparison import Arm, Difference, TeacherScore, Verdict
from featherpress.records.evaluation import Metric
from featherpress.records.record import Part, Record

Quantity = Literal["params", "macs"]
UNITS: dict[Quantity, str] = {"params": "parameters", "macs": "MACs"}
"""What sentences call a quantity."""

MadeBy = Literal["fit", "prune"]
SWEEP = "sweep.json"
"""Where a sweep's record lies in its folder."""


class SweepTeacher(TeacherScore):
    """The teacher's score and what it costs; a cost that is not known is None."""

    params: int | None = None
    macs: int | None = None

    def cost(self, quantity: Quantity) -> int | None:
        """Return what the teacher costs, None where that is not known."""
        return self.params if quantity == "params" else self.macs


class SweepTarget(Part):
    """What the recipe's budget file allows of the quantity that was swept."""

    budget: str
    amount: int


class SweepPoint(Part):
    """One budget: the student that was made for it, and its scores.

    `score` is its own with an interval, `control` that of the same student without a teacher; `beside_teacher` is the
    student less the first teacher, `gain` the student less its control.
    """

    budget: int
    folder: str
    made_by: MadeBy
    settings: dict[str, Any] = Field(default_factory=dict)
    params: int
    macs: int | None = None
    student: Arm
    score: Difference
    control: Arm | None = None
    control_score: Difference | None = None
    beside_teacher: Difference
    gain: Difference | None = None
    verdict: Verdict | None = None

    def cost(self, quantity: Quantity) -> int:
        """Return what the student costs, the budget where that is not known."""
        return self.params if quantity == "params" else self.macs or self.budget


class Sweep(Record):
    """A sweep over budgets: what was asked, the budgets that are done, and what they are set against.

    `settings` are those that commands gave over the recipe's. `limits` are all budgets asked for, smallest first;
    `points` those that are done. The teacher and the metric are known from the first one on.
    """

    SCHEMA: ClassVar[str] = "featherpress.sweep/1"

    recipe: str
    model: str
    quantity: Quantity
    made_by: MadeBy
    knobs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    limits: Annotated[tuple[int, ...], Field(min_length=1)]
    seeds: tuple[int, ...]
    target: SweepTarget | None = None
    metric: Metric | None = None
    teacher: SweepTeacher | None = None
    points: tuple[SweepPoint, ...] = ()

    @property
    def left(self) -> tuple[int, ...]:
        """The budgets that are not done yet."""
        done = {point.budget for point in self.points}
        return tuple(limit for limit in self.limits if limit not in done)
