"""Models in use: latency, throughput and memory, and what exporting gave."""

from typing import Any, ClassVar, Self

from pydantic import AliasChoices, Field, model_validator

from featherpress.records.evaluation import AP, Metric
from featherpress.records.record import Part, Record


class Latency(Part):
    """How long one batch takes, over many of them: median, 10th and 90th percentile.

    Units: milliseconds.
    """

    median: float = Field(ge=0)
    p10: float = Field(ge=0)
    p90: float = Field(ge=0)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.p10 <= self.median <= self.p90:
            raise ValueError(f"expected p10, median and p90 in order, got {self.p10:g}, {self.median:g}, {self.p90:g}")
        return self


class Timing(Part):
    """One model on one backend at one size.

    Units: `size` in pixels a side, `peak_memory_bytes` in bytes.
    """

    model: str
    params: int | None = None
    macs: int | None = None
    size: int
    batch: int = 1
    backend: str
    latency_ms: Latency
    images_per_second: float = Field(ge=0)
    peak_memory_bytes: int | None = Field(default=None, ge=0)

    @property
    def setting(self) -> tuple[str, int, int]:
        """What has to be equal for two models to be compared."""
        return self.backend, self.size, self.batch


class LeftOut(Part):
    """A backend that could not run, and why."""

    backend: str
    reason: str


class Plan(Part):
    """Which convolutions are in eight bits, and why: `tried` are sets of them, `time` that of the file over float's.

    `quantized` names them; with `outputs` what comes out of them is in eight bits too.
    """

    by: str
    kind: str = ""
    quantized: tuple[str, ...] = ()
    outputs: bool = True
    time: float | None = None
    tried: tuple[dict[str, Any], ...] = ()


class Bench(Record):
    """One interleaved measurement of several models on one machine; `plan` is that of `onnx-int8`."""

    SCHEMA: ClassVar[str] = "featherpress.bench/1"

    featherpress: str = ""
    environment: dict[str, str | int | float]
    rounds: int
    warm_up: int = 0
    threads: int | None = None
    batch: int = 1
    memory: str = ""
    left_out: tuple[LeftOut, ...] = ()
    plan: Plan | None = None
    results: tuple[Timing, ...]

    @property
    def planned(self) -> str:
        """What is in eight bits in `onnx-int8`, as a sentence without its full stop; empty where that is not known."""
        if self.plan is None:
            return ""
        return (
            f"onnx-int8: plan {self.plan.by}, every convolution that eight bits do not hurt, with ranges of one random "
            "image; export --int8 measures which are faster here, and its file may be faster than this one"
        )


class ShapeDifference(Part):
    """The largest difference from torch of every output at one shape."""

    shape: tuple[int, ...] = ()
    difference: dict[str, float]


class Parity(Part):
    """How far an exported model may be from torch, and how far it is."""

    tolerance: float | None = None
    measure: str = ""
    checked: tuple[ShapeDifference, ...] = ()

    @property
    def largest(self) -> float | None:
        """The largest difference of any output at any shape; None where nothing was compared."""
        return max((each for shape in self.checked for each in shape.difference.values()), default=None)


class Exported(Part):
    """One file that was written; `suppression` is what was compared with torchvision's, and how many faces it kept.

    Units: bytes.
    """

    kind: str
    precision: str = ""
    bytes: int
    opset: int | None = None
    nodes: int | None = None
    kept_in_float: int | None = None
    calibration: str | None = None
    calibration_images: int | None = None
    plan: Plan | None = None
    parity: Parity | None = None
    suppression: dict[str, Any] | None = None
    file: str = ""


class Scored(Part):
    """What an exported model scores, once called `ap`; of face detectors by height, of others by class."""

    score: float | None = Field(default=None, validation_alias=AliasChoices("score", "ap"))
    by_height: tuple[dict[str, Any], ...] = ()
    by_class: tuple[dict[str, Any], ...] = ()


class ExportEvaluation(Part):
    """Both precisions on the same images."""

    data: dict[str, Any] | None = None
    protocol: dict[str, Any] | None = None
    metric: Metric = AP
    float32: Scored
    int8: Scored
    difference: float | None = None
    gate: str | None = None


class Export(Record):
    """The files of one export, and what float32 and int8 score where both were scored.

    `takes` are the normalisation, size and class names of a model that is no face detector, where they are known;
    `decoding` says how the raw outputs of one are decoded. Free axes of the input's shape are -1.
    """

    SCHEMA: ClassVar[str] = "featherpress.export/1"

    featherpress: str = ""
    model: str
    settings: dict[str, Any] | None = None
    params: int | None = None
    weights: dict[str, Any] | None = None
    input: dict[str, Any] | None = None
    preprocessing: str | None = None
    takes: dict[str, Any] | None = None
    outputs: tuple[str, ...] = ()
    decoded: bool = False
    decoding: dict[str, Any] | None = None
    suppression: dict[str, float] | None = None
    deformable: str = ""
    folded: bool = True
    environment: dict[str, Any] | None = None
    files: tuple[Exported, ...]
    evaluation: ExportEvaluation | None = None

    @property
    def scored(self) -> ExportEvaluation | None:
        """What both precisions score, where both scores are known."""
        known = self.evaluation is not None and None not in (self.evaluation.float32.score, self.evaluation.int8.score)
        return self.evaluation if known else None
