"""The schema of each distillation loss in a recipe."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=0, le=100_000_000)]
Temperature = Annotated[float, Field(gt=0, le=20)]
Tap = Annotated[str, Field(min_length=1)]


def _check_name(name: str) -> str:
    if name == "ratio":
        raise ValueError("a term cannot be named ratio: the log's column kd_ratio is taken")
    return name


TermName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_check_name)]
Task = Literal["detection", "classification"]


class Strict(BaseModel):
    """A table without unknown keys that does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Term(Strict):
    """One loss between student and teacher, logged as `kd_NAME`.

    `weight` scales it, 0 for never. It begins after the fraction `start` of the steps, grows from 0 over `ramp_steps`,
    and is off for the last fraction `stop` of them; where the last two are not given, `[distillation]` says them.
    """

    tasks: ClassVar[tuple[Task, ...]] = get_args(Task)

    loss: str
    weight: Weight = 1.0
    start: Fraction = 0.0
    ramp_steps: Steps | None = None
    stop: Fraction | None = None


class FeatureTerm(_Term):
    """A loss between features: the outputs of modules of the student and of the teacher.

    `student` and `teacher` are module paths, or patterns in which `*` and `?` stand for anything but a dot; several
    teachers may have one each. Every tensor that comes out is a level; `levels` weighs them. `adapter` is `auto`, a
    1x1 convolution (linear for features without places) where the loss wants one, or `none`.
    """

    student: Tap
    teacher: Tap | Annotated[tuple[Tap, ...], Field(min_length=1)]
    levels: tuple[Weight, ...] = ()
    adapter: Literal["auto", "none"] = "auto"


class OutputTerm(_Term):
    """A loss between the outputs of student and teacher."""


class PkdTerm(FeatureTerm):
    """The pattern of every channel, whatever its scale (Cao et al. 2022)."""

    loss: Literal["pkd"]


class CwdTerm(FeatureTerm):
    """Where each channel looks (Shu et al. 2021); the higher `temperature`, the wider."""

    loss: Literal["cwd"]
    temperature: Temperature = 4.0


class FitnetsTerm(FeatureTerm):
    """The values themselves (Romero et al. 2015)."""

    loss: Literal["fitnets"]


class AttentionTerm(FeatureTerm):
    """Where all channels together are strong (Zagoruyko and Komodakis 2017); without adapter."""

    loss: Literal["attention"]


class MgdTerm(FeatureTerm):
    """The teacher's values, generated from a student of which the fraction `masked` is hidden (Yang et al. 2022)."""

    loss: Literal["mgd"]
    masked: Annotated[float, Field(ge=0, lt=1)] = 0.65


class FgdTerm(FeatureTerm):
    """Values weighed by the teacher's attention, foreground and background apart (Yang et al. 2022, focal part).

    `temperature` sharpens the attention; `background` and `attention` weigh two parts against the foreground's 1.
    """

    tasks = ("detection",)

    loss: Literal["fgd"]
    temperature: Temperature = 0.5
    background: Weight = 0.5
    attention: Weight = 1.0


class MarginTerm(OutputTerm):
    """A detector's margin between face and background (after Hinton et al. 2015).

    Over positives, mined negatives and what the teacher scores above `teacher_score`.
    """

    tasks = ("detection",)

    loss: Literal["margin"]
    temperature: Temperature = 1.0
    teacher_score: Fraction = 0.05


class RegressionTerm(OutputTerm):
    """A detector's deltas, `boxes` or `landmarks`, on positives where the teacher's box is nearer to the label."""

    tasks = ("detection",)

    loss: Literal["regression"]
    output: Literal["boxes", "landmarks"]


class KlTerm(OutputTerm):
    """A classifier's distribution over classes (Hinton et al. 2015)."""

    tasks = ("classification",)

    loss: Literal["kl"]
    temperature: Temperature = 4.0


class DkdTerm(OutputTerm):
    """A classifier's certainty of the label, weighed by `target`, and its spread over the others, weighed by `rest`.

    For three classes or more (Zhao et al. 2022).
    """

    tasks = ("classification",)

    loss: Literal["dkd"]
    temperature: Temperature = 4.0
    target: Weight = 1.0
    rest: Weight = 8.0


Term = Annotated[
    PkdTerm
    | CwdTerm
    | FitnetsTerm
    | AttentionTerm
    | MgdTerm
    | FgdTerm
    | MarginTerm
    | RegressionTerm
    | KlTerm
    | DkdTerm,
    Field(discriminator="loss"),
]

#: What a detector learns unless a recipe says otherwise.
DEFAULT_LOSSES: Mapping[str, Mapping[str, Any]] = {
    "feature": {"loss": "pkd", "weight": 4.0, "student": "shuffle", "teacher": "shuffle"},
    "class": {"loss": "margin", "weight": 1.0},
    "box": {"loss": "regression", "output": "boxes", "weight": 0.5},
    "landmark": {"loss": "regression", "output": "landmarks", "weight": 0.25},
}

_KEPT = ("weight", "student", "teacher")  # by a default term whose loss is another


def loss_names() -> list[str]:
    """Return the names of all losses that a term may have."""
    return [get_args(kind.model_fields["loss"].annotation)[0] for kind in get_args(get_args(Term)[0])]


def lay_over_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Complete terms that bear the name of a default one with its keys, and add the default ones not named."""
    losses: dict[str, Any] = {name: dict(term) for name, term in DEFAULT_LOSSES.items()}
    for name, term in given.items():
        default = losses.get(name)
        if default is None or not isinstance(term, Mapping):
            losses[name] = term
        elif term.get("loss", default["loss"]) == default["loss"]:
            losses[name] = default | dict(term)
        else:
            kept = {key: default[key] for key in _KEPT if key in default}
            losses[name] = kept | dict(term)
    return losses


def compares_logits(term: Term) -> bool:
    """Tell whether a term is between logits, so that labels can stand in for the teacher."""
    return isinstance(term, MarginTerm | KlTerm | DkdTerm)
