"""What a step's terms come to, by hand: two terms, two teachers, two levels, each with a weight of its own."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.losses.features import (
    attention_transfer,
    cwd,
    fitnets,
    foreground_weights,
    pkd,
    weighted_fgd,
)
from featherpress.compress.distillation.losses.outputs import dkd, kl, margin_divergence
from featherpress.compress.experiments.recipe_distiller import RecipeDistiller, build_term, ramp_steps
from featherpress.compress.recipes import DistillationRecipe
from featherpress.compress.tasks.detection.assignment import Targets
from featherpress.compress.tasks.detection.loss import Nearer
from featherpress.models.priors import encode_boxes

FEATURE = {"loss": "fitnets", "student": "tap", "teacher": "tap", "levels": [1, 3], "adapter": "none", "weight": 3}
LOGITS = {"loss": "kl", "temperature": 1, "weight": 2}
ALONE = {"ramp_steps": 0, "stop": 0}
TERMS = {"feature": FEATURE, "logits": LOGITS}
INPUTS, KEYS = torch.zeros(1, 1), torch.zeros(1, 2)


class Says(nn.Module):
    """A model that returns what it holds, and whose tap gives the levels that it holds."""

    def __init__(self, outputs: Mapping[str, Tensor], levels: list[Tensor]) -> None:
        super().__init__()
        self.outputs, self.levels = outputs, levels
        self.tap = nn.Identity()
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, _inputs: Tensor) -> Mapping[str, Tensor]:
        for level in self.levels:
            self.tap(level + self.none)
        return {name: each + self.none for name, each in self.outputs.items()}


def level(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), float(value))


def teacher(odds: float, *levels: float) -> Says:
    """Return a teacher of two classes with odds to 1, and features of one number a level."""
    return Says({"logits": torch.tensor([[math.log(odds), 0.0]])}, [level(value) for value in levels])


def divergence(odds: float) -> float:
    """Return the divergence of odds to 1 from even ones."""
    p = odds / (1 + odds)
    return p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))


TEACHERS = {"one": teacher(3, 3, 2), "two": teacher(7, 2, 4)}
# The student's levels are 1, 1: squared differences 4 and 1 to the first teacher, 1 and 9 to the second; levels 1:3.
FEATURES = ((4 + 3 * 1) / 4, (1 + 3 * 9) / 4)
DIVERGENCES = (divergence(3), divergence(7))


def attach(
    student: nn.Module, teachers: Mapping[str, nn.Module], *, scale: float = 1.0, **settings: Any
) -> RecipeDistiller:
    """Attach teachers that weigh 1, 3, ... to a student by a recipe's settings."""
    recipe = DistillationRecipe.model_validate({**ALONE, **settings})
    terms = {name: build_term(term, taps=dict.fromkeys(teachers, "tap")) for name, term in recipe.losses.items()}
    kd = Distiller(
        student,
        teachers,
        terms,
        example=INPUTS,
        output=lambda raw: raw,
        teacher_weights={name: 2.0 * number + 1 for number, name in enumerate(teachers)},
        order="sequential" if recipe.teaching == "sequential" else "mean",
    )
    return RecipeDistiller(recipe, kd, scale=scale)


def taken(distiller: RecipeDistiller, student: nn.Module, context: Mapping[str, Any], *, step: int, total: int) -> Any:
    """Take one step, and return its terms and their sum."""
    with distiller.step(INPUTS, KEYS, step=step, total=total) as begun:
        outputs = student(INPUTS)
    whole = distiller.scale * begun.loss(outputs, **context)
    return {f"kd_{name}": value.item() for name, value in begun.parts.items()}, whole.item()


def compared(step: int, *, scale: float = 1.0, **recipe: Any) -> dict[str, float]:
    """Compare a student of features 1, 1 and even odds with teachers that weigh 1 and 3, ten steps in all."""
    student = Says({"logits": torch.zeros(1, 2)}, [level(1), level(1)])
    distiller = attach(student, TEACHERS, scale=scale, **{"losses": TERMS, **recipe})
    parts, whole = taken(distiller, student, {"labels": torch.tensor([0])}, step=step, total=10)
    distiller.kd.close()
    assert whole == pytest.approx(scale * sum(parts.values()))
    return parts


def test_two_teachers_two_terms_two_levels() -> None:
    """Each term is its weight times the mean over teachers by 1:3, of levels by 1:3; half that half way up the ramp."""
    feature = 3 * (FEATURES[0] / 4 + 3 * FEATURES[1] / 4)
    logits = 2 * (DIVERGENCES[0] / 4 + 3 * DIVERGENCES[1] / 4)
    assert compared(4) == pytest.approx({"kd_feature": feature, "kd_logits": logits})
    assert compared(0, ramp_steps=2) == pytest.approx({"kd_feature": feature / 2, "kd_logits": logits / 2})
    assert compared(4, scale=0.5) == pytest.approx({"kd_feature": feature, "kd_logits": logits})


@pytest.mark.parametrize(("step", "turn"), [(1, 0), (2, 1), (9, 1)])
def test_one_teacher_after_the_other(step: int, turn: int) -> None:
    """In sequence each teaches whole, for its weight's share of the ten steps: 2.5, which is 2, then the rest."""
    found = compared(step, teaching="sequential")
    assert found == pytest.approx({"kd_feature": 3 * FEATURES[turn], "kd_logits": 2 * DIVERGENCES[turn]})


def test_terms_have_times_of_their_own() -> None:
    """A term that starts at half is left out before and climbs a ramp of its own from there; one that stops is gone."""
    losses = {"feature": FEATURE | {"start": 0.5, "ramp_steps": 4}, "logits": LOGITS | {"stop": 0.3}}
    feature = 3 * (FEATURES[0] / 4 + 3 * FEATURES[1] / 4)
    assert set(compared(4, losses=losses)) == {"kd_logits"}
    assert compared(6, losses=losses)["kd_feature"] == pytest.approx(feature * 2 / 4)
    assert set(compared(7, losses=losses)) == {"kd_feature"}


def test_a_term_that_weighs_nothing_is_left_out() -> None:
    """It has no column, no value, and no tap on the student."""
    student = Says({"logits": torch.zeros(1, 2)}, [level(1), level(1)])
    distiller = attach(student, TEACHERS, losses={"feature": FEATURE | {"weight": 0}, "logits": LOGITS})
    assert distiller.columns == ("kd_logits",)
    assert not student.tap._forward_hooks
    assert set(compared(4, losses={"feature": FEATURE | {"weight": 0}, "logits": LOGITS})) == {"kd_logits"}


def test_teachers_are_asked_only_where_a_term_is_on() -> None:
    """A step at which all terms are off has no teacher's forward, and its loss is nothing."""
    student, asked = Says({"logits": torch.zeros(1, 2)}, []), list[int]()
    said = teacher(3)
    distiller = attach(student, {"one": said}, losses={"logits": LOGITS | {"start": 0.5}})
    said.register_forward_pre_hook(lambda *_: asked.append(1))
    for step, count in ((4, 0), (5, 1)):
        parts, whole = taken(distiller, student, {}, step=step, total=10)
        assert (len(asked), bool(parts), whole > 0) == (count, bool(count), bool(count))


PRIORS = torch.tensor([[20.0, 20, 16, 16], [40, 40, 16, 16], [52, 52, 16, 16]])
FACES = torch.tensor([[12.0, 12, 28, 28], [32, 32, 48, 48]])


def detector_context(positive: list[bool], negative: list[bool], mined: list[bool]) -> dict[str, Any]:
    """Return three priors, of which the first two lie on a face each."""
    targets = Targets(
        priors=PRIORS,
        positive=torch.tensor([positive]),
        negative=torch.tensor([negative]),
        has_landmarks=torch.tensor([positive]),
        face=torch.tensor([[0, 1, 0]]),
        boxes=torch.zeros(1, 3, 4),
        landmarks=torch.zeros(1, 3, 10),
    )
    return {
        "positive": targets.positive,
        "negative": targets.negative,
        "mined": torch.tensor([mined]),
        "count": torch.tensor(2.0),
        "nearer": Nearer(targets),
        "boxes": FACES[None],
        "present": torch.ones(1, 2, dtype=torch.bool),
        "image": (64, 64),
    }


def of_one(
    term: dict[str, Any],
    student: tuple[Mapping[str, Tensor], list[Tensor]],
    teacher: tuple[Mapping[str, Tensor], list[Tensor]],
    context: Mapping[str, Any],
    *,
    step: int = 0,
) -> float:
    """Compare a student with one teacher by one term; each is its outputs and its levels."""
    model = Says(*student)
    distiller = attach(model, {"one": Says(*teacher)}, losses={"term": term})
    return float(taken(distiller, model, context, step=step, total=9)[1])


def shifted(*pixels: float) -> Tensor:
    """Return deltas of boxes as wide as their priors, moved to the right."""
    moved = torch.stack([PRIORS[:, 0] + torch.tensor(pixels), *PRIORS[:, 1:].unbind(1)], dim=1)
    corners = torch.cat([moved[:, :2] - moved[:, 2:] / 2, moved[:, :2] + moved[:, 2:] / 2], dim=1)
    return encode_boxes(corners, PRIORS)[None]


@pytest.mark.parametrize("output", ["boxes", "landmarks"])
def test_deltas_are_followed_where_the_teachers_box_is_nearer(output: str) -> None:
    """Labels lie on the priors. The teacher is off by 2 pixels, the student by 6, 1 and, where there is no face, 9."""
    context = detector_context([True, True, False], [False, False, True], [False, False, True])
    student = {"boxes": shifted(6, 1, 9), "landmarks": torch.zeros(1, 3, 10)}
    teacher = {"boxes": shifted(2, 2, 2), "landmarks": torch.tensor([2.0, 7, 7]).view(1, 3, 1).repeat(1, 1, 10)}
    # Deltas of boxes are in tenths of the side: 4 pixels of 16 are 2.5, whose smooth-L1 is 2. Ten landmarks cost 1.5.
    wanted = {"boxes": 2.5 - 0.5, "landmarks": 10 * 1.5}[output] / 2
    assert of_one({"loss": "regression", "output": output}, (student, []), (teacher, []), context) == pytest.approx(
        wanted, rel=1e-4
    )


@pytest.mark.parametrize(
    ("positive", "negative", "mined", "count"),
    [
        ([False] * 3, [True] * 3, [False] * 3, 1),  # the one that the teacher scores above `teacher_score`
        ([False] * 3, [False, True, True], [False] * 3, 0),  # which is ignored where it is neither
        ([False, True, False], [True, False, True], [False, False, True], 3),  # positives and mined ones, whatever
    ],
)
def test_margins_are_followed_where_the_teacher_sees_a_face(
    positive: list[bool], negative: list[bool], mined: list[bool], count: int
) -> None:
    """The teacher scores 3/4, 1/4 and 1/4, and `teacher_score` is 1/2; each margin costs the same against even odds."""
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(3), 0], [math.log(3), 0]]])
    student, context = {"logits": torch.zeros(1, 3, 2)}, detector_context(positive, negative, mined)
    value = of_one({"loss": "margin", "teacher_score": 0.5}, (student, []), ({"logits": logits}, []), context)
    assert value == pytest.approx(count * 0.25 * divergence(3) / 2, rel=1e-4)


MAPS = tuple(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
CLASSES = tuple(torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
ANSWERS = {"labels": torch.tensor([0, 3])}
DETECTED = tuple(torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
EVERYWHERE = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("options", "direct"),
    [
        ({"loss": "pkd"}, lambda: pkd(*MAPS)),
        ({"loss": "cwd", "temperature": 2}, lambda: cwd(*MAPS, temperature=2)),
        ({"loss": "fitnets"}, lambda: fitnets(*MAPS)),
        ({"loss": "attention"}, lambda: attention_transfer(*MAPS)),
        (
            {"loss": "fgd", "temperature": 2, "background": 0.25, "attention": 3},
            lambda: weighted_fgd(
                *MAPS,
                foreground=PLACES[0],
                background=PLACES[1],
                temperature=2,
                background_weight=0.25,
                attention_weight=3,
            ),
        ),
        ({"loss": "kl", "temperature": 2}, lambda: kl(*CLASSES, temperature=2)),
        (
            {"loss": "dkd", "temperature": 2, "target": 3, "rest": 5},
            lambda: dkd(*CLASSES, **ANSWERS, temperature=2, target=3, rest=5),
        ),
        (
            {"loss": "margin", "temperature": 2, "teacher_score": 0},
            lambda: margin_divergence(*DETECTED, EVERYWHERE, count=torch.tensor(2.0), temperature=2),
        ),
    ],
    ids=lambda value: value["loss"] if isinstance(value, dict) else "",
)
def test_a_terms_options_are_its_losses(options: dict[str, Any], direct: Any) -> None:
    """Each term is its loss with the options that the recipe gives it, by their names there."""
    maps = options["loss"] in {"pkd", "cwd", "fitnets", "attention", "fgd"}
    term = options | ({"student": "tap", "teacher": "tap", "adapter": "none"} if maps else {})
    context: Mapping[str, Any] = ANSWERS
    if options["loss"] in {"fgd", "margin"}:
        context = detector_context([False] * 3, [True] * 3, [False] * 3)
    if options["loss"] == "fgd":
        context |= {name: context[name].repeat(2, *[1] * (context[name].dim() - 1)) for name in ("boxes", "present")}
    logits = DETECTED if options["loss"] == "margin" else CLASSES
    sides = [({"logits": logits[side]}, [MAPS[side]] if maps else []) for side in (0, 1)]
    assert of_one(term, *sides, context) == pytest.approx(direct().item(), rel=1e-5)


PLACES = foreground_weights(FACES.repeat(2, 1, 1), torch.ones(2, 2, dtype=torch.bool), image=(64, 64), size=(4, 4))


def test_masks_are_drawn_anew_at_every_step() -> None:
    """What MGD hides depends on the step alone: the same again at the same step, something else at the next."""
    term = {"loss": "mgd", "student": "tap", "teacher": "tap", "masked": 0.5}
    sides = [({}, [MAPS[side]]) for side in (0, 1)]
    first, again, other = (of_one(term, *sides, {}, step=step) for step in (3, 3, 4))
    assert first == again != other


def test_terms_always_grow_to_their_weight() -> None:
    """Unless a recipe says over how many steps, it is a tenth of them, and 1000 at most."""
    recipe = DistillationRecipe.model_validate({})
    assert [ramp_steps(recipe, total) for total in (5, 300, 50_000)] == [0, 30, 1000]
    assert ramp_steps(recipe.model_copy(update={"ramp_steps": 7}), 300) == 7
