"""The schema of a distillation term in a recipe: a table for each registered loss."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

from pydantic import AfterValidator, ConfigDict, Field, create_model

from featherpress.compress.distillation.losses.bounds import Fraction
from featherpress.compress.distillation.losses.registry import find_loss, list_losses
from featherpress.compress.recipes.tables import Strict

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=0, le=100_000_000)]
Tap = Annotated[str, Field(min_length=1)]


def _check_name(name: str) -> str:
    if name == "ratio":
        raise ValueError("a term cannot be named ratio: the log's column kd_ratio is taken")
    return name


TermName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_check_name)]


class _Term(Strict):
    """One loss between student and teacher, logged as `kd_NAME`.

    `weight` scales it, 0 for never. It begins after the fraction `start` of the steps, grows from 0 over `ramp_steps`,
    and is off for the last fraction `stop` of them; where the last two are not given, `[distillation]` says them.
    """

    model_config = ConfigDict(allow_inf_nan=False)

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
    """A loss between the outputs of student and teacher; `output` says which, where a loss is for several."""


def _describe(name: str) -> type[FeatureTerm | OutputTerm]:
    """Build the table of a registered loss: its options are keys, within the bounds that the loss declares."""
    entry = find_loss(name)
    base: type[FeatureTerm | OutputTerm] = FeatureTerm if entry.kind == "features" else OutputTerm
    fields: dict[str, Any] = {key: (each.annotation, each.default) for key, each in entry.options.items()}
    if len(entry.outputs) > 1:
        fields["output"] = (Literal[entry.outputs], ...)
    return create_model(
        f"{name.title().replace('_', '')}Term",
        __base__=base,
        __doc__=(entry.function.__doc__ or "").partition("\n")[0] or name,
        loss=(Literal[name], ...),  # type: ignore[arg-type]
        **fields,
    )


if TYPE_CHECKING:
    Term: TypeAlias = FeatureTerm | OutputTerm
else:
    Term = Annotated[Union[tuple(map(_describe, list_losses()))], Field(discriminator="loss")]  # noqa: UP007

#: What a detector learns unless a recipe says otherwise.
DEFAULT_LOSSES: Mapping[str, Mapping[str, Any]] = {
    "feature": {"loss": "pkd", "weight": 4.0, "student": "shuffle", "teacher": "shuffle"},
    "class": {"loss": "margin", "weight": 1.0},
    "box": {"loss": "regression", "output": "boxes", "weight": 0.5},
    "landmark": {"loss": "regression", "output": "landmarks", "weight": 0.25},
}

_KEPT = ("weight", "student", "teacher")  # by a default term whose loss is another


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
    return isinstance(term, OutputTerm) and output_of(term) == "logits"


def output_of(term: OutputTerm) -> str:
    """Return which output a term compares: what it says, or else the first that its loss is for."""
    outputs = find_loss(term.loss).outputs or ("logits",)
    return str(getattr(term, "output", outputs[0]))


_BETWEEN_FEATURES = 'or between features, as losses.body = { loss = "pkd", student = "PATH", teacher = "PATH" }'
#: What a recipe may add that has a teacher and no term, by the layout of its task's logits.
TERMS_TO_ADD = {
    "classes": f'add one between logits, as losses.class = {{ loss = "kl" }}, {_BETWEEN_FEATURES}',
    "priors": f'leave default_losses out, or add one, as losses.class = {{ loss = "margin" }}, {_BETWEEN_FEATURES}',
}


def why_unfit(term: Term, task: Any) -> str:
    """Return why a loss does not fit a task, and which one does; nothing where it fits."""
    loss = find_loss(term.loss)
    if loss.name == "dkd" and task.layout == "priors":
        return (
            "dkd is refused for two classes, face and background: with only one class beside the label its non-target "
            "term is always 0; use margin"
        )
    if loss.layout and loss.layout != task.layout:
        if task.layout == "priors":
            return (
                f"{loss.name} compares a classifier's logits; for a detector of faces use margin, and for one of other "
                "objects give `data.categories`"
            )
        return (
            f"{loss.name} compares the priors or boxes of a detector of faces, which {task.__name__} has not; use kl, "
            "and leave default_losses out"
        )
    unknown = sorted(loss.required - {"outputs", *task.context})
    if unknown:
        return f"{loss.name} asks for {unknown[0]!r}, which {task.__name__} does not give it"
    if isinstance(term, OutputTerm) and output_of(term) not in task.outputs:
        return f"{loss.name} compares {output_of(term)}; {task.__name__} has {', '.join(task.outputs)}"
    return ""
