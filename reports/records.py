"""What others saved, as plain values: costs, accuracy, comparison, environment, gallery, metrics.

Every `read_*` returns None for a record that is not there and raises `FileError` for one that is broken.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featherpress.errors import FileError
from featherpress.reports.reading import Fields, read_json

__all__ = [
    "Arm",
    "Audit",
    "Box",
    "Bucket",
    "Budget",
    "Claim",
    "Comparison",
    "Component",
    "Data",
    "Difference",
    "Environment",
    "Evaluation",
    "FloatArray",
    "Found",
    "Gallery",
    "Metrics",
    "Picture",
    "Protocol",
    "Truth",
    "read_budget",
    "read_comparison",
    "read_environment",
    "read_evaluation",
    "read_gallery",
    "read_metrics",
]

FloatArray: TypeAlias = NDArray[np.float64]
Box: TypeAlias = tuple[float, float, float, float]

# What a record may have rounded away before it contradicts itself.
TOLERANCE = 5e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One row of an audit: what a part costs and what it may cost.

    Units: parameters and multiply-accumulates, whole numbers; `difference` is parameters minus target.
    """

    name: str
    params: int
    macs: int
    verdict: str
    target: int | None
    difference: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a document says of a component, what was counted, and why they differ."""

    component: str
    claimed: int
    measured: int
    why: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The costs of one model; `components` sum to `total`, exactly."""

    model: str
    input: tuple[int, ...]
    convention: str
    verdict: str
    total: Component
    components: tuple[Component, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The audits of student and teacher, and the weights of the adapters that belong to neither."""

    teacher: Audit | None
    student: Audit
    adapters: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a model was evaluated on."""

    name: str
    split: str
    images: int
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
    """The accuracy of one set of weights."""

    model: str
    role: str
    params: int
    macs: int | None
    file_bytes: int | None
    data: Data
    protocol: Protocol
    ap: float | None
    recall: float | None
    buckets: tuple[Bucket, ...]
    curve_recall: tuple[float, ...]
    curve_precision: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side of the comparison: AP per seed, their mean, and their deviation when there are several."""

    ap: tuple[float, ...]
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

    metric: str
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
    """One picture of the gallery with what each role found in it."""

    file: Path
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

    Shapes: every column (steps,).
    """

    columns: Mapping[str, FloatArray]

    def series(self, x: str, y: str) -> tuple[FloatArray, FloatArray]:
        """Return the columns `x` and `y` where `y` has a value; empty when the column is absent."""
        if y not in self.columns:
            return np.empty(0), np.empty(0)
        known = np.isfinite(self.columns[y])
        return self.columns[x][known], self.columns[y][known]


def read_budget(file: Path) -> Budget | None:
    """Read budget.json."""
    fields = read_json(file, "budget")
    if fields is None:
        return None
    adapters = fields.optional("adapters", fields.child)
    return Budget(
        teacher=_audit(fields.child("teacher")) if fields.values.get("teacher") is not None else None,
        student=_audit(fields.child("student")),
        adapters=adapters.integer("params") if adapters is not None else None,
    )


def _audit(fields: Fields) -> Audit:
    total = _component(fields.child("total"), name="total")
    components = tuple(_component(row, name=row.text("name")) for row in fields.children("components"))
    for unit, whole, parts in (
        ("params", total.params, sum(c.params for c in components)),
        ("macs", total.macs, sum(c.macs for c in components)),
    ):
        if whole != parts:
            raise FileError(
                f"{fields.file}: expected the components' {unit} at `{fields.place}` to sum to the total {whole:,}, "
                f"got {parts:,}; count the model again."
            )
    return Audit(
        model=fields.text("model"),
        input=fields.integers("input"),
        convention=fields.optional("convention", fields.text) or "",
        verdict=fields.text("verdict"),
        total=total,
        components=components,
        claims=tuple(_claim(row) for row in fields.optional("claims", fields.children) or ()),
    )


def _component(fields: Fields, *, name: str) -> Component:
    params = fields.integer("params")
    target = fields.optional("target", fields.integer)
    return Component(
        name=name,
        params=params,
        macs=fields.integer("macs"),
        verdict=fields.optional("verdict", fields.text) or "unchecked",
        target=target,
        difference=None if target is None else params - target,
    )


def _claim(fields: Fields) -> Claim:
    return Claim(
        component=fields.text("component"),
        claimed=fields.integer("claimed"),
        measured=fields.integer("measured"),
        why=fields.optional("why", fields.text) or "",
        source=fields.optional("source", fields.text) or "",
    )


def read_evaluation(file: Path) -> Evaluation | None:
    """Read eval/validation.json or eval/teacher.json."""
    fields = read_json(file, "evaluation")
    if fields is None:
        return None
    curve = fields.child("curve")
    recall, precision = curve.numbers("recall"), curve.numbers("precision")
    if len(recall) != len(precision):
        raise FileError(
            f"{file}: expected as many precisions as recalls in `curve`, got {len(precision)} and {len(recall)}."
        )
    return Evaluation(
        model=fields.text("model"),
        role=fields.text("role"),
        params=fields.integer("params"),
        macs=fields.optional("macs", fields.integer),
        file_bytes=fields.optional("file_bytes", fields.integer),
        data=_data(fields.child("data")),
        protocol=_protocol(fields.child("protocol")),
        ap=fields.optional("ap", fields.number),
        recall=fields.optional("recall", fields.number),
        buckets=tuple(
            Bucket(name=row.text("name"), faces=row.integer("faces"), ap=row.optional("ap", row.number))
            for row in fields.children("by_height")
        ),
        curve_recall=recall,
        curve_precision=precision,
    )


def _data(fields: Fields) -> Data:
    return Data(
        name=fields.text("name"),
        split=fields.text("split"),
        images=fields.integer("images"),
        skipped=fields.integer("skipped"),
        faces=fields.integer("faces"),
        ignored=fields.integer("ignored"),
    )


def _protocol(fields: Fields) -> Protocol:
    return Protocol(
        iou=fields.number("iou"),
        test_scale=fields.text("test_scale"),
        nms_iou=fields.number("nms_iou"),
        score_threshold=fields.number("score_threshold"),
        top_k=fields.integer("top_k"),
    )


def read_comparison(file: Path) -> Comparison | None:
    """Read eval/comparison.json.

    Errors: `FileError` also when its verdict is not what its own interval allows.
    """
    fields = read_json(file, "comparison")
    if fields is None:
        return None
    seeds = fields.integers("seeds")
    comparison = Comparison(
        metric=fields.text("metric"),
        seeds=seeds,
        control=_arm(fields.child("control"), seeds=len(seeds)),
        distilled=_arm(fields.child("distilled"), seeds=len(seeds)),
        difference=_difference(fields.child("difference")),
        sentence=fields.text("sentence"),
    )
    verdict, allowed = fields.text("verdict"), comparison.difference.verdict
    if verdict != allowed:
        raise FileError(f"{file}: expected the verdict {allowed!r} from its interval, got {verdict!r}; compare again.")
    return comparison


def _arm(fields: Fields, *, seeds: int) -> Arm:
    ap = fields.numbers("ap", seeds)
    arm = Arm(ap=ap, mean=fields.number("mean"), std=fields.optional("std", fields.number))
    mean = math.fsum(ap) / len(ap) if ap else math.nan
    if not abs(mean - arm.mean) <= TOLERANCE:
        raise FileError(f"{fields.file}: expected `{fields.place}.mean` to be {mean:.6f}, got {arm.mean:.6f}.")
    return arm


def _difference(fields: Fields) -> Difference:
    return Difference(
        mean=fields.number("mean"),
        low=fields.number("low"),
        high=fields.number("high"),
        confidence=fields.number("confidence"),
        resamples=fields.integer("resamples"),
        method=fields.text("method"),
    )


def read_environment(file: Path) -> Environment | None:
    """Read environment.json; facts are kept whatever their names."""
    fields = read_json(file, "environment")
    if fields is None:
        return None
    apart = ("schema", "command", "seconds")
    return Environment(
        facts={key: str(value) for key, value in fields.values.items() if key not in apart and value is not None},
        command=fields.optional("command", fields.texts) or (),
        seconds=fields.optional("seconds", fields.number),
    )


def read_gallery(file: Path) -> Gallery | None:
    """Read eval/gallery/gallery.json; the pictures lie beside it."""
    fields = read_json(file, "gallery")
    if fields is None:
        return None
    return Gallery(
        threshold=fields.number("threshold"),
        pictures=tuple(_picture(row) for row in fields.children("images")),
    )


def _picture(fields: Fields) -> Picture:
    roles = [role for role in ("teacher", "control", "student") if fields.values.get(role) is not None]
    return Picture(
        file=fields.file.parent / fields.text("file"),
        truth=tuple(Truth(box=_box(row), ignored=row.flag("ignored")) for row in fields.children("truth")),
        found={
            role: tuple(
                Found(box=_box(row), score=row.number("score"), hit=row.flag("hit")) for row in fields.children(role)
            )
            for role in roles
        },
    )


def _box(fields: Fields) -> Box:
    x1, y1, x2, y2 = fields.numbers("box", 4)
    return x1, y1, x2, y2


def read_metrics(file: Path) -> Metrics | None:
    """Read metrics.csv; a step logged twice, before and after a resume, counts once, as logged last."""
    if not file.exists():
        return None
    needed = ["step", "epoch", "task", "val_ap"]
    try:
        frame = pd.read_csv(file)
        missing = [name for name in needed if name not in frame.columns]
        if missing:
            raise FileError(f"{file}: expected the columns {', '.join(needed)}, got none named {', '.join(missing)}.")
        frame = frame.astype(np.float64)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FileError(f"{file}: expected a table of numbers, got something else ({error}).") from error
    # A run that was killed can leave a last row half written.
    frame = frame.dropna(subset=["step", "epoch", "task"]).drop_duplicates("step", keep="last").sort_values("step")
    if frame.empty:
        return None
    return Metrics(columns={str(name): frame[name].to_numpy(dtype=np.float64) for name in frame.columns})
