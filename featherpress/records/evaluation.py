"""How good one set of weights is: the AP of a detector, the accuracy of a classifier."""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from featherpress.errors import FileError
from featherpress.records.record import Part, Record, read_schema


class Data(Part):
    """What a model was evaluated on."""

    name: str
    split: str
    images: int


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
    """The score of one set of weights.

    Units: parameters, multiply-accumulates, bytes.
    """

    model: str
    role: str
    weights: str = ""
    weights_sha256: str = ""
    params: int
    macs: int | None = None
    file_bytes: int | None = None
    data: Data

    @property
    def score(self) -> float | None:
        """The score by the model's metric; None where nothing could be scored."""
        raise NotImplementedError

    @staticmethod
    def find_any(path: Path) -> "Evaluation | None":
        """Read the evaluation of a detector or a classifier where there is one.

        Errors: `FileError` as `Record.load`.
        """
        if not path.exists():
            return None
        kinds = {kind.SCHEMA: kind for kind in (DetectorEvaluation, ClassifierEvaluation)}
        kind = kinds.get(read_schema(path) or "")
        if kind is None:
            raise FileError(f"{path}: expected the schema {' or '.join(map(repr, kinds))}, got another.")
        return kind.load(path)


class ClassifierEvaluation(Evaluation):
    """The accuracy of a classifier."""

    SCHEMA: ClassVar[str] = "featherpress.classification/1"

    data: ClassData
    accuracy: float
    seconds: float = 0.0

    @property
    def score(self) -> float | None:
        """The accuracy."""
        return self.accuracy


class DetectorEvaluation(Evaluation):
    """The AP of a detector of faces, with what lies behind it."""

    SCHEMA: ClassVar[str] = "featherpress.evaluation/1"

    data: FaceData
    protocol: Protocol
    ap: float | None = None
    recall: float | None = None
    curve: Curve
    by_height: tuple[Bucket, ...]
    seconds: float = 0.0
    coco: dict[str, Any] | None = None
    easy: float | None = None
    medium: float | None = None
    hard: float | None = None

    @property
    def score(self) -> float | None:
        """The AP over all faces."""
        return self.ap
