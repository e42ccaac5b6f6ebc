"""What a step's terms come to, by hand: two terms, two teachers, two levels, each with a weight of its own."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from featherpress.compress.distillation.adapters import build_adapters
from featherpress.compress.distillation.losses.features import (
    attention_transfer,
    cwd,
    fgd,
    fitnets,
    foreground_weights,
    pkd,
)
from featherpress.compress.distillation.losses.outputs import dkd, kl, margin
from featherpress.compress.experiments.lessons import Lessons, Tutor
from featherpress.compress.experiments.teacher_outputs import Lesson
from featherpress.compress.recipes import DistillationRecipe
from featherpress.compress.tasks.base import LabelContext, PriorContext
from featherpress.compress.tasks.detection.assignment import Targets
from featherpress.models.priors import encode_boxes

FEATURE = {"loss": "fitnets", "student": "tap", "teacher": "tap", "levels": [1, 3], "adapter": "none", "weight": 3}
LOGITS = {"loss": "kl", "temperature": 1, "weight": 2}
ALONE = {"default_losses": False}
TERMS = {"feature": FEATURE, "logits": LOGITS}
LABELS = LabelContext(labels=torch.tensor([0]))


class Silent:
    """A teacher that is never asked."""

    def teach(self, batch: Any) -> Lesson:
        raise AssertionError("asked")


def level(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), float(value))


def lesson(odds: float, *levels: float) -> Lesson:
    """Return a lesson of two classes with odds to 1, and features of one number a level."""
    logits = torch.tensor([[math.log(odds), 0.0]])
    return Lesson(outputs={"logits": logits}, features={"tap": [level(value) for value in levels]})


def divergence(odds: float) -> float:
    """Return the divergence of odds to 1 from even ones."""
    p = odds / (1 + odds)
    return p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))


LESSONS = {0: lesson(3, 3, 2), 1: lesson(7, 2, 4)}
# The student's levels are 1, 1: squared differences 4 and 1 to the first teacher, 1 and 9 to the second; levels 1:3.
FEATURES = ((4 + 3 * 1) / 4, (1 + 3 * 9) / 4)
DIVERGENCES = (divergence(3), divergence(7))


def compared(step: int, *, scale: float = 1.0, lessons: Any = None, **recipe: Any) -> dict[str, float]:
    """Compare a student of features 1, 1 and even odds with teachers that weigh 1 and 3, ten steps in all."""
    settings = {**ALONE, "losses": TERMS, "ramp_steps": 0, "stop": 0, **recipe}
    shape = [(1, 1, 1, 1)] * 2
    tutors = [
        Tutor(
            teacher=Silent(),
            weight=weight,
            taps={"feature": "tap"},
            adapters={"feature": build_adapters(shape, shape, name="feature", kind="none")},
        )
        for weight in (1.0, 3.0)
    ]
    student = {"logits": torch.zeros(1, 2)}
    terms = Lessons(DistillationRecipe.model_validate(settings), tutors, scale=scale).compare(
        student, {"tap": [level(1), level(1)]}, lessons or LESSONS, LABELS, step=step, total=10
    )
    return {name: value.item() for name, value in terms.items()}


def test_two_teachers_two_terms_two_levels() -> None:
    """Each term is its weight times the mean over teachers by 1:3, of levels by 1:3; half that half way up the ramp."""
    feature = 3 * (FEATURES[0] / 4 + 3 * FEATURES[1] / 4)
    logits = 2 * (DIVERGENCES[0] / 4 + 3 * DIVERGENCES[1] / 4)
    assert compared(4) == pytest.approx({"kd_feature": feature, "kd_logits": logits})
    assert compared(0, ramp_steps=2) == pytest.approx({"kd_feature": feature / 2, "kd_logits": logits / 2})
    assert compared(4, scale=0.5) == pytest.approx({"kd_feature": feature / 2, "kd_logits": logits / 2})


@pytest.mark.parametrize(("step", "turn"), [(1, 0), (2, 1), (9, 1)])
def test_one_teacher_after_the_other(step: int, turn: int) -> None:
    """In sequence each teaches whole, for its weight's share of the ten steps: 2.5, which is 2, then the rest."""
    found = compared(step, lessons={turn: LESSONS[turn]}, teaching="sequential")
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
    losses = {"feature": FEATURE | {"weight": 0}, "logits": LOGITS}
    lessons = Lessons(DistillationRecipe.model_validate({**ALONE, "losses": losses}), [])
    assert lessons.columns == ("kd_logits",)
    with lessons.open(torch.nn.Sequential()):
        assert lessons.take() == {}
    assert set(compared(4, losses=losses)) == {"kd_logits"}


def test_the_students_taps_are_taken_by_path() -> None:
    """While lessons are open each forward leaves its features; afterwards no hook is left."""
    student = torch.nn.ModuleDict({"tap": torch.nn.Identity()})
    lessons = Lessons(DistillationRecipe.model_validate({**ALONE, "losses": {"feature": FEATURE}}), [])
    with lessons.open(student):
        student["tap"](level(5))
        assert lessons.take()["tap"][0].item() == 5
    assert not student["tap"]._forward_hooks
    assert lessons.take() == {}


class Doubling:
    """An accelerator that wraps a module such that it says twice as much."""

    device = torch.device("cpu")

    def prepare(self, part: Any) -> Any:
        return lambda levels: [2 * level for level in part(levels)]


def test_adapters_are_called_through_what_wraps_them() -> None:
    """What is prepared is what is called, so that gradients are synchronised; what has no weights is not wrapped."""
    shape = [(1, 1, 1, 1)] * 2
    adapters = build_adapters(shape, shape, name="feature", kind="linear")
    for adapter in adapters:
        torch.nn.init.constant_(adapter.weight, 3.0)  # type: ignore[arg-type]
        torch.nn.init.constant_(adapter.bias, 0.0)  # type: ignore[arg-type]
    tutor = Tutor(teacher=Silent(), taps={"feature": "tap"}, adapters={"feature": adapters})
    recipe = DistillationRecipe.model_validate({**ALONE, "losses": {"feature": FEATURE}, "ramp_steps": 0, "stop": 0})
    lessons = Lessons(recipe, [tutor])
    assert len(lessons.prepare(Doubling())) == 1
    said = {0: lesson(1, 6, 5)}
    terms = lessons.compare({}, {"tap": [level(1), level(1)]}, said, LABELS, step=0, total=1)
    # 1 becomes 3, and 6 by the wrapper: equal to the first level, and 1 off the second, which weighs 3 of 4.
    assert terms["kd_feature"].item() == pytest.approx(3 * 3 / 4)
    bare = Tutor(teacher=Silent(), taps={}, adapters={"feature": build_adapters(shape, shape, name="x", kind="none")})
    assert Lessons(recipe, [bare]).prepare(Doubling()) == []


PRIORS = torch.tensor([[20.0, 20, 16, 16], [40, 40, 16, 16], [52, 52, 16, 16]])
FACES = torch.tensor([[12.0, 12, 28, 28], [32, 32, 48, 48]])


def detector_context(positive: list[bool], negative: list[bool], mined: list[bool]) -> PriorContext:
    """Return three priors, of which the first two lie on a face each."""
    boxes = torch.zeros(1, 3, 4)
    targets = Targets(
        priors=PRIORS,
        positive=torch.tensor([positive]),
        negative=torch.tensor([negative]),
        has_landmarks=torch.tensor([positive]),
        face=torch.tensor([[0, 1, 0]]),
        boxes=boxes,
        landmarks=torch.zeros(1, 3, 10),
    )
    return PriorContext(
        targets=targets,
        negatives=torch.tensor([mined]),
        count=torch.tensor(2.0),
        boxes=FACES[None],
        present=torch.ones(1, 2, dtype=torch.bool),
        image=(64, 64),
    )


def of_a_detector(term: dict[str, Any], student: Any, teacher: Any, context: PriorContext) -> float:
    """Compare a detector with one teacher by one term."""
    recipe = DistillationRecipe.model_validate({**ALONE, "losses": {"term": term}, "ramp_steps": 0, "stop": 0})
    lessons = Lessons(recipe, [Tutor(teacher=Silent(), taps={}, adapters={})])
    said = {0: Lesson(outputs=teacher, features={})}
    (value,) = lessons.compare(student, {}, said, context, step=0, total=1).values()
    return value.item()


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
    assert of_a_detector({"loss": "regression", "output": output}, student, teacher, context) == pytest.approx(
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
    outputs = {"logits": torch.zeros(1, 3, 2)}, {"logits": logits}
    context = detector_context(positive, negative, mined)
    value = of_a_detector({"loss": "margin", "teacher_score": 0.5}, *outputs, context)
    assert value == pytest.approx(count * 0.25 * divergence(3) / 2, rel=1e-4)


MAPS = tuple(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
CLASSES = tuple(torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
ANSWERS = LabelContext(labels=torch.tensor([0, 3]))
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
            lambda: fgd(
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
            lambda: dkd(*CLASSES, ANSWERS.labels, temperature=2, target=3, rest=5),
        ),
        (
            {"loss": "margin", "temperature": 2, "teacher_score": 0},
            lambda: margin(*DETECTED, EVERYWHERE, count=torch.tensor(2.0), temperature=2),
        ),
    ],
    ids=lambda value: value["loss"] if isinstance(value, dict) else "",
)
def test_a_terms_options_are_its_losses(options: dict[str, Any], direct: Any) -> None:
    """Each term is its loss with the options that the recipe gives it, by their names there."""
    maps = options["loss"] in {"pkd", "cwd", "fitnets", "attention", "fgd"}
    term = options | ({"student": "tap", "teacher": "tap", "adapter": "none"} if maps else {})
    recipe = DistillationRecipe.model_validate({**ALONE, "losses": {"term": term}, "ramp_steps": 0, "stop": 0})
    adapters = build_adapters([MAPS[0].shape], [MAPS[1].shape], name="term", kind="none")
    lessons = Lessons(recipe, [Tutor(teacher=Silent(), taps={"term": "tap"}, adapters={"term": adapters})])
    context: Any = ANSWERS
    if options["loss"] in {"fgd", "margin"}:
        context = detector_context([False] * 3, [True] * 3, [False] * 3)
    if options["loss"] == "fgd":
        context = replace(context, boxes=context.boxes.repeat(2, 1, 1), present=context.present.repeat(2, 1))
    logits = DETECTED if options["loss"] == "margin" else CLASSES
    said = {0: Lesson(outputs={"logits": logits[1]}, features={"tap": [MAPS[1]]})}
    (value,) = lessons.compare({"logits": logits[0]}, {"tap": [MAPS[0]]}, said, context, step=0, total=1).values()
    torch.testing.assert_close(value, direct())


PLACES = foreground_weights(FACES.repeat(2, 1, 1), torch.ones(2, 2, dtype=torch.bool), image=(64, 64), size=(4, 4))


def test_masks_are_drawn_anew_at_every_step() -> None:
    """What MGD hides depends on the step alone: the same again at the same step, something else at the next."""
    term = {"loss": "mgd", "student": "tap", "teacher": "tap", "masked": 0.5}
    recipe = DistillationRecipe.model_validate({**ALONE, "losses": {"term": term}, "ramp_steps": 0, "stop": 0})
    adapters = build_adapters([MAPS[0].shape], [MAPS[1].shape], name="term", kind="generation")
    lessons = Lessons(recipe, [Tutor(teacher=Silent(), taps={"term": "tap"}, adapters={"term": adapters})])
    said = {0: Lesson(outputs={}, features={"tap": [MAPS[1]]})}
    first, again, other = (
        lessons.compare({}, {"tap": [MAPS[0]]}, said, LABELS, step=step, total=9)["kd_term"].item()
        for step in (3, 3, 4)
    )
    assert first == again != other
