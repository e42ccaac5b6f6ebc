"""The trainer: the same with and without distillation, and the same after an interruption."""

import copy
import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from featherpress.compress.data import Batch
from featherpress.compress.distillation.balance import gradient_ratio
from featherpress.compress.distillation.teachers import BoundTeacher, TeacherOutputs
from featherpress.compress.experiments.teacher_outputs import CachedTeacher
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import TrainingError
from featherpress.models import Detector, create_detector, load_weights, normalize
from tests.recipes import DRAWN_FACES

MakeTrainer = Callable[..., Trainer]


def rows(trainer: Trainer) -> list[dict[str, str]]:
    with (trainer.folder.path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_training_learns_and_leaves_its_files(make_trainer: MakeTrainer) -> None:
    """Weights move and stay finite, every step has its row, and the saved weights are the averaged ones."""
    trainer = make_trainer("plain")
    before = fingerprint(trainer.plain)
    trained = trainer.run()
    assert fingerprint(trainer.plain) != before
    assert all(value.isfinite().all() for value in trained.state_dict().values())
    logged = rows(trainer)
    assert [int(row["step"]) for row in logged] == [1, 2, 3, 4, 5, 6]
    for row in logged:
        parts = sum(float(row[name]) for name in ("class", "box", "landmark"))
        assert float(row["task"]) == pytest.approx(parts, rel=1e-4)
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-4)
    saved = create_detector("featherface_v2")
    load_weights(saved, trainer.folder.last_weights)
    assert fingerprint(saved) == fingerprint(trained)


def test_distillation_weighed_nothing_is_plain_training(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """With every distillation term at 0 the student ends bit for bit where plain training ends."""
    losses = {name: term.model_copy(update={"weight": 0.0}) for name, term in recipe.distillation.losses.items()}
    silent = recipe.distillation.model_copy(update={"losses": losses})
    off = recipe.model_copy(update={"distillation": silent})
    plain = fingerprint(make_trainer("plain").run())
    assert fingerprint(make_trainer("none", distil=True, used=off).run()) == plain
    assert fingerprint(make_trainer("scaled", distil=True, scale=0.0).run()) == plain


def test_distillation_teaches_and_leaves_the_teacher(make_trainer: MakeTrainer, teacher: Detector) -> None:
    """Every term is positive and finite, adapters move, the taps fire, the teacher stays; the end is without it."""
    before = fingerprint(teacher)
    trainer = make_trainer("taught", distil=True)
    assert trainer.distiller is not None
    adapters = [weight.clone() for weight in trainer.distiller.kd.parameters()]
    assert len(adapters) == 6
    trained = trainer.run()
    logged = rows(trainer)
    for row in logged[:5]:
        terms = [float(row[name]) for name in ("kd_feature", "kd_class")]
        assert min(terms) > 0
        assert float(row["loss"]) > float(row["task"])
        assert 0 < float(row["kd_ratio"]) < 100
    assert (logged[5]["kd_feature"], logged[5]["ramp"]) == ("", "0")
    moved = zip(adapters, trainer.distiller.kd.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)
    assert fingerprint(teacher) == before
    assert not teacher.training
    assert not any("adapter" in key for key in trained.state_dict())
    assert not trainer.plain.shuffle._forward_hooks


@pytest.mark.parametrize("distil", [False, True])
def test_interrupted_run_ends_the_same(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, *, distil: bool
) -> None:
    """A run stopped after three steps and resumed ends bit for bit like one left alone, metrics included."""
    defer_sigint = make_trainer("whole", distil=distil)
    expected = fingerprint(defer_sigint.run())
    stopped = make_trainer("stopped", distil=distil)
    step, done = stopped._step, []

    def stop_after_three(*arguments: object, **keywords: bool) -> dict[str, float]:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(stopped, "_step", stop_after_three)
    with pytest.raises(TrainingError, match=r"stopped at step 3 of 6.*--resume"):
        stopped.run()
    resumed = make_trainer("stopped", distil=distil, seed=99)
    assert fingerprint(resumed.run()) == expected
    timeless = [{**row, "images_per_second": ""} for row in rows(defer_sigint)]
    assert [{**row, "images_per_second": ""} for row in rows(resumed)] == timeless


def test_interrupted_evaluation_is_made_up_for(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """A run stopped while it evaluates evaluates again when resumed; the best weights are those of the best score."""
    used = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"evaluate_every": 1})})
    scores = iter([0.5, 0.25])

    def interrupt(_model: Detector) -> float:
        raise KeyboardInterrupt

    with pytest.raises(TrainingError, match="stopped at step 3"):
        make_trainer("run", used=used, evaluate=interrupt).run()
    resumed = make_trainer("run", used=used, evaluate=lambda _model: next(scores))
    trained = resumed.run()
    evaluated = [(row["step"], row["val_ap"]) for row in rows(resumed) if row["val_ap"]]
    assert evaluated == [("3", "0.5"), ("6", "0.25")]
    best = create_detector("featherface_v2")
    load_weights(best, resumed.folder.best_weights)
    assert fingerprint(best) != fingerprint(trained)


def test_infinite_loss_stops_with_its_name(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """A loss that is not finite stops the run, names term, step and images, and keeps the last good state."""
    make_trainer("bad").run()
    trainer = make_trainer("worse")
    with torch.no_grad():
        trainer.plain.heads[0].boxes.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the box term became nan at step 1 \(images .*last good state"):
        trainer.run()
    assert not trainer.folder.last_weights.exists()


def bound(teacher: Detector, *taps: str) -> BoundTeacher:
    """Tap a teacher at some paths."""
    made = BoundTeacher(copy.deepcopy(teacher), name_outputs=DetectionTask(load_recipe(DRAWN_FACES)).name_outputs)
    for path in taps:
        made.tap(path)
    return made


def ask(source: BoundTeacher | CachedTeacher, batch: Batch) -> TeacherOutputs:
    """Ask a teacher, or its cache, about a batch."""
    images = normalize(batch.images)
    return source.ask(images, batch.keys) if isinstance(source, CachedTeacher) else source.ask(images)


def test_cached_outputs_are_the_live_ones(make_trainer: MakeTrainer, teacher: Detector, tmp_path: Path) -> None:
    """Cached outputs are the live ones in half precision, asked for once a crop, and read again from disk."""
    live = bound(teacher, "shuffle")
    crops = make_trainer("unused").crops
    batch = crops.batch([(3, 0), (7, 1)])
    cached = CachedTeacher(live, tmp_path / "cache", images=12, variants=2)
    first = ask(cached, batch)
    for ours, theirs in zip(first.tensors(), ask(live, batch).tensors(), strict=True):
        assert torch.equal(ours, theirs.half().float())

    cached.teacher.model.register_forward_pre_hook(lambda *_: pytest.fail("asked again"))
    swapped = ask(cached, crops.batch([(7, 1), (3, 0)]))
    assert all(torch.equal(a[0], b[1]) for a, b in zip(first.tensors(), swapped.tensors(), strict=True))


def test_outputs_cached_whole_are_the_live_ones(make_trainer: MakeTrainer, teacher: Detector, tmp_path: Path) -> None:
    """In single precision cached outputs are the live ones to 1e-6; other taps or precisions lie apart on disk."""
    live = bound(teacher, "shuffle")
    batch = make_trainer("unused").crops.batch([(3, 0), (7, 1)])
    caches = [
        CachedTeacher(live, tmp_path, images=12, variants=2, precision="fp32"),
        CachedTeacher(live, tmp_path, images=12, variants=2),
        CachedTeacher(bound(teacher, "bifpn"), tmp_path, images=12, variants=2),
    ]
    for ours, theirs in zip(ask(caches[0], batch).tensors(), ask(live, batch).tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    ask(caches[1], batch)
    assert caches[0].bytes == 2 * caches[1].bytes > 0
    assert len({cache.folder for cache in caches}) == 3


def test_outputs_that_were_lost_are_asked_for_again(
    make_trainer: MakeTrainer, teacher: Detector, tmp_path: Path
) -> None:
    """Where a file of cached outputs is gone, none of the others is believed: zeros would be taught without a word."""
    live = bound(teacher, "shuffle")
    crops = make_trainer("unused").crops
    first, second = crops.batch([(3, 0)]), crops.batch([(7, 1)])
    before = CachedTeacher(live, tmp_path, images=12, variants=2, precision="fp32")
    for batch in (first, second):
        ask(before, batch)
    (before.folder / "2.cache").unlink()
    after = CachedTeacher(live, tmp_path, images=12, variants=2, precision="fp32")
    ask(after, first)
    for ours, theirs in zip(ask(after, second).tensors(), ask(live, second).tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_outputs_beyond_half_precision_are_refused(
    make_trainer: MakeTrainer, teacher: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that half precision would make infinite is named, and with it what to do; single precision holds it."""
    live = bound(teacher)
    batch = make_trainer("unused").crops.batch([(3, 0)])
    loud = TeacherOutputs(outputs={"logits": torch.full((1, 4), -7e4)}, features={})
    monkeypatch.setattr(BoundTeacher, "ask", lambda _self, _images: loud)
    with pytest.raises(TrainingError, match=r"the teacher's outputs reach 70000, .* cache to fp32"):
        ask(CachedTeacher(live, tmp_path, images=12, variants=2), batch)
    found = ask(CachedTeacher(live, tmp_path, images=12, variants=2, precision="fp32"), batch)
    assert torch.equal(found.outputs["logits"], loud.outputs["logits"])


def test_cache_without_room(
    make_trainer: MakeTrainer, teacher: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk too small for the outputs is found out before the first, in one sentence, and nothing stays."""

    class FullDisk(bytes):
        def __getitem__(self, _part: object) -> bytes:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("featherpress.compress.experiments.teacher_outputs._ZEROS", FullDisk(1))
    cached = CachedTeacher(bound(teacher, "shuffle"), tmp_path / "cache", images=12, variants=2)
    with pytest.raises(TrainingError, match=r"needs [\d,]+ bytes \(No space left on device\)"):
        ask(cached, make_trainer("unused").crops.batch([(3, 0)]))
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


@pytest.mark.parametrize("epochs", [1, 2])
def test_shortest_schedules_run(make_trainer: MakeTrainer, recipe: Recipe, epochs: int) -> None:
    """One step, or two, is a schedule too."""
    short = recipe.schedule.model_copy(update={"epochs": epochs, "batch_size": 12})
    trainer = make_trainer("short", used=recipe.model_copy(update={"schedule": short}))
    trainer.run()
    assert trainer.position.step == epochs


def test_too_few_images_for_a_batch(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """A batch that the images do not fill is refused before anything runs."""
    wide = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"batch_size": 16})})
    with pytest.raises(TrainingError, match="12 images do not fill one batch of 16"):
        make_trainer("wide", used=wide)


def test_recipe_balances(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """`balance` is what the logged ratio is, once terms have grown and while it was just measured."""
    own = recipe.distillation.model_copy(update={"balance": 0.7})
    trainer = make_trainer("balanced", distil=True, used=recipe.model_copy(update={"distillation": own}))
    trainer.run()
    assert float(next(iter(rows(trainer)))["kd_ratio"]) == pytest.approx(0.7, rel=1e-3)


def test_the_ratio_of_gradients_by_hand() -> None:
    """Distillation pulls with (3, 3) and (4), the task with (1, 1) and nothing at the second level: sqrt(34 / 2)."""
    one, other = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    ratio = gradient_ratio(3 * one.sum() + 4 * other.sum(), one.sum(), [one, other])
    assert ratio == pytest.approx((34 / 2) ** 0.5)
    assert gradient_ratio(other.sum(), one.sum(), [one]) == 0
