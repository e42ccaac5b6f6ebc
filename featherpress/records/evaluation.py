"""How good one set of weights is, by whatever metric."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from featherpress.records.record import Part, Record, read_kind

#: The record in the folder that `evaluate --out` leaves.
SCORED = "evaluation.json"


class Metric(Part):
    """A score of which more is better: its key in records, its name as it is printed, and its unit.

    Errors: ValidationError for anything else, as a direction, since whoever passed over that would judge wrongly.
    """

    model_config = ConfigDict(extra="forbid")

    key: str
    name: str
    unit: str = ""

    def read(self, record: Mapping[str, Any]) -> Any:
        """Return the score in the record of an evaluation; those of face detectors have it under the metric's key."""
        return record["score"] if "score" in record else record[self.key]


AP = Metric(key="ap", name="AP")
ACCURACY = Metric(key="accuracy", name="accuracy")


def known_metric(key: str) -> Metric:
    """Return the metric of a key; one that is not ours is called by its key."""
    return {metric.key: metric for metric in (AP, ACCURACY)}.get(key, Metric(key=key, name=key))


class Data(Part):
    """What a model was evaluated on; photographs that nobody labelled have no split."""

    name: str
    split: str = ""
    images: int = Field(ge=0)

    @property
    def place(self) -> str:
        """Its name, and its split where it has one."""
        return ", ".join(filter(None, (self.name, self.split)))


class ClassData(Data):
    """Images of which each is of one class."""

    classes: int


class FaceData(Data):
    """Images with labelled faces."""

    skipped: int
    faces: int
    ignored: int


class Protocol(Part):
    """How detections were made and matched."""

    iou: float
    test_scale: str
    flip: bool = False
    score_threshold: float
    nms_iou: float
    candidates: int | None = None
    top_k: int


class Bucket(Part):
    """AP over the faces of low <= height < high; None where there is no such face.

    Units: pixels, `high` None when the range is open.
    """

    name: str
    low: int | float = 0
    high: int | float | None = None
    faces: int
    ap: float | None = None


class WorkingPoint(Part):
    """Detections from a score on: the share that are hits, the share of faces found, and their harmonic mean."""

    threshold: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


class Curve(Part):
    """Precision over recall, point by point."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if len(self.recall) != len(self.precision):
            raise ValueError(f"expected as many precisions as recalls, {len(self.recall)}, got {len(self.precision)}")
        return self


class Evaluation(Record):
    """The score of one set of weights, as far as others read it.

    Units: parameters, bytes.
    """

    model: str
    params: int = Field(ge=0)
    file_bytes: int | None = Field(default=None, ge=0)
    data: Data


class ClassifierEvaluation(Evaluation):
    """The accuracy of a classifier."""

    SCHEMA: ClassVar[str] = "featherpress.classification/1"

    data: ClassData
    accuracy: float = Field(ge=0, le=1 + 1e-6)

    @property
    def metric(self) -> Metric:
        """What it is scored by."""
        return ACCURACY

    @property
    def score(self) -> float:
        """The accuracy."""
        return self.accuracy


class DetectorEvaluation(Evaluation):
    """The AP of a detector of faces, with what lies behind it; `best_f1` is where F1 is best."""

    SCHEMA: ClassVar[str] = "featherpress.evaluation/1"

    data: FaceData
    protocol: Protocol
    ap: float | None = Field(default=None, ge=0, le=1 + 1e-6)
    recall: float | None = None
    working_point: WorkingPoint | None = None
    best_f1: WorkingPoint | None = None
    curve: Curve
    by_height: tuple[Bucket, ...]

    @property
    def metric(self) -> Metric:
        """What it is scored by."""
        return AP

    @property
    def score(self) -> float | None:
        """The AP over all faces."""
        return self.ap


class ClassScore(Part):
    """The score of one class, and how many examples of it there are: images, objects or pixels."""

    name: str
    examples: int
    score: float | None = None


class TaskEvaluation(Evaluation):
    """The score of a model on any task, by the metric that the task names, and by class where it has classes.

    `further` are other scores by their names; a row of `confusion` is what one class was taken for, in the order of
    `by_class`.
    """

    SCHEMA: ClassVar[str] = "featherpress.score/1"

    metric: Metric
    score: float | None = None
    further: dict[str, float | None] = Field(default_factory=dict)
    by_class: tuple[ClassScore, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    curve: Curve | None = None

    @model_validator(mode="after")
    def _square(self) -> Self:
        lengths = {len(row) for row in self.confusion} | ({len(self.confusion)} if self.confusion else set())
        if self.confusion and lengths != {len(self.by_class)}:
            raise ValueError(f"expected a row and a column of `confusion` per class, {len(self.by_class)}")
        return self


class SubsetScores(Record):
    """The APs of predictions on WIDER FACE's subsets; None where a subset has no faces."""

    SCHEMA: ClassVar[str] = "featherpress.widerface/1"

    easy: float | None
    medium: float | None
    hard: float | None


AnyEvaluation: TypeAlias = DetectorEvaluation | ClassifierEvaluation | TaskEvaluation

EVALUATIONS: tuple[type[AnyEvaluation], ...] = (DetectorEvaluation, ClassifierEvaluation, TaskEvaluation)


def find_evaluation(file: Path) -> AnyEvaluation | None:
    """Read an evaluation of any kind, None where there is no such file.

    Errors: `FileError` as `Record.load`.
    """
    return read_kind(file, EVALUATIONS).load(file) if file.exists() else None
