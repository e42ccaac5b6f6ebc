"""What others saved, as plain values: costs, scores, comparison, environment, gallery, metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One quantity of a component against its limit; None where the limit leaves a side open.

    Units: those of `quantity`, whole numbers; `target` may be None when only bounds are set.
    """

    quantity: str
    actual: int
    target: int | None
    low: int | None
    high: int | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One row of an audit: what a part costs, and how it stands against its limits.

    Units: parameters and multiply-accumulates, whole numbers.
    """

    name: str
    params: int
    macs: int
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a document says of a component, what was counted, and why they differ."""

    component: str
    quantity: str
    claimed: int
    measured: int
    why: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The costs of one model; `components` sum to `total`, exactly.

    `settings` are what it was built from, as text; empty where the record does not say. `file` is where it was read.
    """

    file: Path
    model: str
    inputs: tuple[tuple[int, ...], ...]
    convention: str
    verdict: str
    failures: tuple[str, ...]
    total: Component
    components: tuple[Component, ...]
    claims: tuple[Claim, ...]
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The audits of student and teacher, and the weights of the adapters that belong to neither."""

    teacher: Audit | None
    student: Audit
    adapters: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What models are scored by, from 0 to 1: its key in records, its name, and what it is taken over."""

    key: str
    name: str
    over: str

    @property
    def title(self) -> str:
        """The name as a sentence begins with it."""
        return f"{self.name[0].upper()}{self.name[1:]}"

    @property
    def whole(self) -> str:
        """The name of the score of everything: "AP, all faces"."""
        return f"{self.name}, {self.over}"


AP = Metric(key="ap", name="AP", over="all faces")
ACCURACY = Metric(key="accuracy", name="accuracy", over="all images")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a model was evaluated on."""

    name: str
    split: str
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassData(Data):
    """Images of which each is of one class."""

    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceData(Data):
    """Images with labelled faces."""

    skipped: int
    faces: int
    ignored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How detections were made and matched."""

    iou: float
    test_scale: str
    nms_iou: float
    score_threshold: float
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """AP over the faces of one range of heights; None where the range holds no face.

    Units: pixels, `high` None when the range is open.
    """

    name: str
    faces: int
    ap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The score of one set of weights, by the run's metric; None where nothing could be scored.

    Units: parameters, multiply-accumulates, bytes.
    """

    model: str
    role: str
    params: int
    macs: int | None
    file_bytes: int | None
    data: Data
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierEvaluation(Evaluation):
    """The accuracy of a classifier."""

    data: ClassData


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorEvaluation(Evaluation):
    """The AP of a detector of faces, with what lies behind it."""

    data: FaceData
    protocol: Protocol
    recall: float | None
    buckets: tuple[Bucket, ...]
    curve_recall: tuple[float, ...]
    curve_precision: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side of the comparison: a score a seed, their mean, and their deviation when there are several."""

    scores: tuple[float, ...]
    mean: float
    std: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Distilled minus control, with a bootstrap interval."""

    mean: float
    low: float
    high: float
    confidence: float
    resamples: int
    method: str

    @property
    def verdict(self) -> str:
        """What the interval allows to say: better, worse, or not shown when it holds 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether distillation helped, as the run that trained both arms recorded it."""

    metric: Metric
    seeds: tuple[int, ...]
    control: Arm
    distilled: Arm
    difference: Difference
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine and the command of a run, in the order they were recorded."""

    facts: Mapping[str, str]
    command: tuple[str, ...]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A labelled face in pixels of the saved picture."""

    box: Box
    ignored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A detection in pixels of the saved picture, and whether the protocol counts it as a hit."""

    box: Box
    score: float
    hit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture of the gallery with what each role found in it.

    Units: pixels.
    """

    file: Path
    width: int
    height: int
    truth: tuple[Truth, ...]
    found: Mapping[str, tuple[Found, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Pictures to look at; detections below `threshold` are not drawn."""

    threshold: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The logged steps of one training, a column an array; NaN where a step has no value.

    `score` is what was measured on validation images, by the run's metric.

    Shapes: every column (steps,).
    """

    columns: Mapping[str, FloatArray]

    def series(self, x: str, y: str) -> tuple[FloatArray, FloatArray]:
        """Return the columns `x` and `y` where `y` has a value; empty when the column is absent."""
        if y not in self.columns:
            return np.empty(0), np.empty(0)
        known = np.isfinite(self.columns[y])
        return self.columns[x][known], self.columns[y][known]
