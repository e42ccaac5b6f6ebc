"""Distillation as the trainer runs it: every loss, whatever wraps the model, and a model left as it was found."""

import csv
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from featherpress.compress.experiments.teachers import make_distiller
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import UsageError
from featherpress.models import Detector, create_detector
from tests.recipes import DRAWN_FACES

from ..conftest import SETTINGS

MakeTrainer = Callable[..., Trainer]

FEATURE_LOSSES = ("pkd", "cwd", "fitnets", "attention", "mgd", "fgd")


def rows(trainer: Trainer) -> list[dict[str, str]]:
    with (trainer.folder.path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def with_settings(*settings: str) -> Recipe:
    return load_recipe(DRAWN_FACES, settings=[*SETTINGS, "schedule.epochs=1", *settings])


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


def run_and_check(trainer: Trainer) -> list[dict[str, str]]:
    """Train, and check that the taps fired, the adapters all moved, and no hook is left."""
    assert trainer.distiller is not None
    before = {key: value.clone() for key, value in trainer.distiller.kd.adapters.state_dict().items()}
    trainer.run()
    after = trainer.distiller.kd.adapters.state_dict()
    assert changed(before, after) == set(before)
    for module in trainer.plain.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    return rows(trainer)


def test_every_loss_trains(make_trainer: MakeTrainer) -> None:
    """All feature losses at once, at three kinds of taps, with level weights: each positive, finite, and logged."""
    taps = ("shuffle", "bifpn", "shuffle.*", "backbone.stage?", "pyramid_attention", "context.*")
    losses = [
        f'distillation.losses.{loss}={{loss="{loss}", student="{tap}", teacher="{tap}", levels=[1, 2, 0.5]}}'
        for loss, tap in zip(FEATURE_LOSSES, taps, strict=True)
    ]
    trainer = make_trainer("all", distil=True, used=with_settings(*losses, "distillation.losses.box.weight=0"))
    logged = run_and_check(trainer)
    assert "kd_box" not in logged[0]
    for name in (*FEATURE_LOSSES, "feature", "class"):
        assert 0 < float(logged[0][f"kd_{name}"]) < 1e4, name


@pytest.mark.usefixtures("own_precision")
@pytest.mark.parametrize(
    "settings", [("schedule.precision=bf16", "teacher.schedule.precision=bf16"), ("schedule.accumulate=3",)]
)
def test_distillation_under_mixed_precision_and_accumulation(
    make_trainer: MakeTrainer, settings: tuple[str, ...]
) -> None:
    """Taps fire and adapters move under autocast, and when a step sums several batches."""
    logged = run_and_check(make_trainer("run", distil=True, used=with_settings(*settings, "distillation.stop=0")))
    assert all(float(row["kd_feature"]) > 0 for row in logged)


def test_distillation_of_a_compiled_student(make_trainer: MakeTrainer) -> None:
    """Under torch.compile the taps catch the same as without, and the student learns the same."""
    plain = make_trainer("plain", distil=True, used=with_settings())
    expected = run_and_check(plain)
    compiled = make_trainer("compiled", distil=True, used=with_settings())
    torch._dynamo.reset()
    compiled.model = torch.compile(compiled.model, backend="eager")
    found = run_and_check(compiled)
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("kd_feature", "kd_class", "task"):
            assert float(ours[name] or 0) == pytest.approx(float(theirs[name] or 0), rel=1e-4)


def test_terms_off_at_different_times(make_trainer: MakeTrainer) -> None:
    """A term that begins later or ends earlier is logged only meanwhile; where all are off the teacher is not asked."""
    used = with_settings(
        "schedule.batch_size=2",
        "distillation.stop=0",
        "distillation.losses.feature.start=0.5",
        "distillation.losses.class.stop=0.25",
        "distillation.losses.box.weight=0",
        "distillation.losses.landmark.weight=0",
    )
    logged = run_and_check(make_trainer("times", distil=True, used=used))
    assert [bool(row["kd_feature"]) for row in logged] == [False] * 3 + [True] * 3
    assert [bool(row["kd_class"]) for row in logged] == [True] * 5 + [False]


def test_masks_are_the_same_when_resumed(make_trainer: MakeTrainer) -> None:
    """MGD's masks depend on the step alone, so that two runs are the same, bit for bit."""
    used = with_settings("distillation.losses.feature.loss=mgd", "distillation.losses.feature.weight=100")
    one, two = (make_trainer(name, distil=True, used=used).run() for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("feature.student=neck", "FeatherFace has no module 'neck'"),
        ('feature.teacher="shuffle.9"', "no module 'shuffle.9'"),
        ('feature.teacher="backbone.stage2"', "feature do not match: the student's has 3 levels, the teacher's 1"),
        ("feature.levels=[1, 1]", "feature: `levels` has 2 weights, expected 3"),
        ("feature.levels=[0, 0, 0]", "not all 0"),
        ('x={loss="cwd", student="flat", teacher="flat"}', "x: cwd compares positions.*use pkd or fitnets"),
    ],
)
def test_taps_are_checked_before_the_run(teacher: Detector, setting: str, words: str) -> None:
    """A path that is not there, other levels, and features that a loss cannot take are one sentence each."""
    recipe = with_settings(f"distillation.losses.{setting}")
    student = create_detector("featherface_v2")
    for model in (student, teacher):
        model.add_module("flat", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    hook = student.backbone.register_forward_hook(lambda _module, _inputs, levels: (student.flat(levels[0]), None)[1])  # type: ignore[operator]
    other = teacher.backbone.register_forward_hook(lambda _module, _inputs, levels: (teacher.flat(levels[0]), None)[1])  # type: ignore[operator]
    try:
        with pytest.raises(UsageError, match=words):
            make_distiller(recipe, {"teacher": teacher}, student, task=DetectionTask(recipe), seed=0)
    finally:
        hook.remove()
        other.remove()
        del teacher.flat
