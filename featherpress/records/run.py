"""What a run keeps beside its weights: machine and command, pictures to look at, and how near the features came."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from featherpress.records.record import Part, Record

Box = tuple[float, float, float, float]
PROVENANCE = "provenance.json"


class Provenance(Record):
    """What a run belongs to, as it began; `changed` says what was other when it was told to go on all the same.

    `settings` are those of its command line, `recipe` its values as JSON by dotted keys. `parts` are its command,
    version, data, code and first weights, `teachers` by name; what begins with # is a hash. `machine` is what changes
    no more than the last digits of a result.
    """

    SCHEMA: ClassVar[str] = "featherpress.provenance/1"

    run: str
    settings: tuple[str, ...] = ()
    recipe: dict[str, str]
    parts: dict[str, str]
    machine: dict[str, str]
    teachers: dict[str, str] = Field(default_factory=dict)
    changed: dict[str, str] = Field(default_factory=dict)

    @property
    def unequal(self) -> tuple[str, ...]:
        """What changed that can make one arm better than another."""
        return tuple(sentence for key, sentence in self.changed.items() if key not in self.machine)


class Environment(Record):
    """The machine and the command of a run; facts are kept whatever their names."""

    model_config = ConfigDict(extra="allow")
    SCHEMA: ClassVar[str] = "featherpress.environment/1"

    command: tuple[str, ...]
    seconds: float

    @property
    def facts(self) -> dict[str, str]:
        """The machine and the versions by name, as they were recorded."""
        return {key: str(value) for key, value in (self.model_extra or {}).items() if key != "schema"}


class Truth(Part):
    """A labelled face in pixels of the saved picture."""

    box: Box
    ignored: bool


class DetectedFace(Part):
    """A detection in pixels of its image: box as corners, and landmarks as five x, y pairs in a row."""

    box: Box
    score: float
    landmarks: tuple[float, ...] = ()


class DetectedImage(Part):
    """An image with the faces that a model found in it; `searched_at` is the size that it was scaled down to.

    Units: pixels.
    """

    file: str
    width: int | None = None
    height: int | None = None
    searched_at: tuple[int, int] | None = None
    faces: tuple[DetectedFace, ...]


class DetectedFaces(Record):
    """What `featherpress detect --json` prints; `threshold` is the score from which on faces are in it.

    `skipped` is how many photographs could not be read, `passed_over` names those in a format that is not read.
    """

    SCHEMA: ClassVar[str] = "featherpress.detections/1"

    model: str = ""
    weights: str = ""
    weights_sha256: str = ""
    threshold: float
    protocol: dict[str, Any] | None = None
    tile: int = 0
    overlap: int = 0
    skipped: int = 0
    passed_over: tuple[str, ...] = ()
    images: tuple[DetectedImage, ...]


class Prediction(DetectedFace):
    """A detection in the saved picture, and whether the protocol counts it as a hit."""

    hit: bool


class Picture(Part):
    """One picture of the gallery with what each role found in it; the file lies beside the record.

    Units: pixels.
    """

    file: str
    width: int
    height: int
    truth: tuple[Truth, ...]
    teacher: tuple[Prediction, ...] | None = None
    control: tuple[Prediction, ...] | None = None
    student: tuple[Prediction, ...] | None = None

    @property
    def predictions(self) -> dict[str, tuple[Prediction, ...]]:
        """What was found, by role."""
        found = {"teacher": self.teacher, "control": self.control, "student": self.student}
        return {role: each for role, each in found.items() if each is not None}

    @model_validator(mode="after")
    def _hold_something(self) -> Self:
        if not self.predictions:
            raise ValueError("expected what teacher, control or student found, got none")
        return self


class Gallery(Record):
    """Pictures to look at; `thresholds` are the scores from which on each role's detections are shown."""

    SCHEMA: ClassVar[str] = "featherpress.gallery/1"

    thresholds: dict[str, float]
    images: tuple[Picture, ...]


class Panel(Part):
    """One of the pictures side by side: `image`, `truth`, or the role whose answer it shows; the file beside.

    `text` stands below it, or in its place where there is no file.
    """

    name: str
    file: str = ""
    text: str = ""


class PanelRow(Part):
    """One image with its panels; `file` names the image in its data set."""

    file: str
    panels: Annotated[tuple[Panel, ...], Field(min_length=1)]


class LegendEntry(Part):
    """What a colour stands for; `colour` is `#rrggbb`."""

    name: str
    colour: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class Pictures(Record):
    """Images to look at side by side: each with its truth and what each role answered, drawn by the task.

    `caption` says which images they are, as whole sentences. The first panel of each has a file.
    """

    SCHEMA: ClassVar[str] = "featherpress.pictures/1"

    images: tuple[PanelRow, ...]
    legend: tuple[LegendEntry, ...] = ()
    caption: str = ""


class Level(Part):
    """Linear CKA of each role's features with the teacher's at one level of the pyramid; None where nothing varies."""

    stride: int
    cka: dict[str, Annotated[float, Field(ge=0, le=1 + 1e-6)] | None]


class Correlation(Record):
    """How similar the students' features are to the teacher's, level by level."""

    SCHEMA: ClassVar[str] = "featherpress.correlation/1"

    images: int
    taps: dict[str, str] | None = None
    levels: tuple[Level, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that were measured, the control first."""
        return tuple(role for role in ("control", "student") if any(role in level.cka for level in self.levels))
