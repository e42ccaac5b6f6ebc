"""What a schedule may ask for besides steps: accumulation, frozen parts, an early stop, mixed precision."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from torch import Tensor

from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.training.freezing import freeze
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import RecipeError, TrainingError, UsageError
from featherpress.models import create_detector
from tests.recipes import DRAWN_FACES

MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def _forget_precision() -> Iterator[None]:
    """Let each test have a precision of its own, of which accelerate knows one a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def with_schedule(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=changes)})


def stop_before(trainer: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a trainer and press Ctrl-C when it is about to take a step."""
    take = trainer._step

    def interrupt(*arguments: Any, **keywords: Any) -> dict[str, float]:
        if trainer.position.step + 1 == step:
            raise KeyboardInterrupt
        return take(*arguments, **keywords)

    monkeypatch.setattr(trainer, "_step", interrupt)
    with pytest.raises(TrainingError, match="--resume"):
        trainer.run()


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.plain.state_dict().items()}


def test_accumulated_batches_equal_one(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """Two batches of 3 accumulated are one of 6, statistics frozen and negatives mined by image, to 2e-4."""
    mined = recipe.model_copy(update={"losses": recipe.losses.model_copy(update={"mining": "image"})})
    large = with_schedule(mined, batch_size=6, freeze_statistics=True, learning_rate=1e-3)
    small = with_schedule(large, batch_size=3, accumulate=2)
    one, two = make_trainer("one", used=large), make_trainer("two", used=small)
    before = weights(one)
    one.run()
    two.run()
    assert one.total == two.total == one.position.step == two.position.step == 4
    for name, value in weights(one).items():
        torch.testing.assert_close(two.plain.state_dict()[name], value, atol=2e-4, rtol=0, msg=name)
    assert max(float((before[name] - value).abs().max()) for name, value in weights(one).items()) > 1e-3


@pytest.mark.parametrize("changes", [{"accumulate": 2, "batch_size": 2}, {"precision": "bf16"}, {"freeze": ("bifpn",)}])
def test_interrupted_run_ends_the_same(
    make_trainer: MakeTrainer, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Accumulated, in bfloat16 or partly frozen, a run stopped and resumed ends bit for bit like one left alone."""
    used = with_schedule(recipe, **changes)
    expected = fingerprint(make_trainer("whole", used=used).run())
    stop_before(make_trainer("stopped", used=used), 4, monkeypatch)
    assert fingerprint(make_trainer("stopped", used=used, seed=99).run()) == expected


def test_frozen_parts_stand_still(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """Frozen weights and statistics do not change by a bit, averaged ones neither; all others do."""
    trainer = make_trainer("frozen", used=with_schedule(recipe, freeze=("backbone.*", "heads.*.boxes.bias")))
    before = weights(trainer)
    averaged = trainer.run().state_dict()
    frozen = {name for name in before if name.startswith("backbone.") or name.endswith("boxes.bias")}
    assert frozen
    for name in frozen:
        assert torch.equal(trainer.plain.state_dict()[name], before[name]), name
        assert torch.equal(averaged[name], before[name]), name
    learned = {name for name, _ in trainer.plain.named_parameters()} - frozen
    assert all(not torch.equal(trainer.plain.state_dict()[name], before[name]) for name in learned)
    assert not any(module.training for name, module in trainer.plain.named_modules() if name.startswith("backbone."))


def test_patterns_must_match() -> None:
    """A pattern that names nothing, and patterns that name everything, are refused with what there is."""
    model = create_detector("featherface_v2")
    with pytest.raises(UsageError, match=r"'backbon\.\*', which matches no weight; at the top the model has backbone"):
        freeze(model, ["backbon.*"])
    with pytest.raises(UsageError, match="nothing is left to train"):
        freeze(model, ["*"])


def test_early_stop(make_trainer: MakeTrainer, recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    """Training stops after so many evaluations without a better score, says so, and stays stopped when resumed."""
    used = with_schedule(recipe, epochs=6, evaluate_every=1, patience=2)
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.9, 0.9])
    trainer = make_trainer("early", used=used, evaluate=lambda _model: next(scores))
    with caplog.at_level(logging.INFO, logger="featherpress"):
        trained = trainer.run()
    assert trainer.position.step == 12
    assert "stopped early after step 12 of 18: 2 evaluations without a score above 0.700" in caplog.text
    assert trainer.folder.last_weights.exists()
    again = make_trainer("early", used=used, evaluate=lambda _model: 1.0)
    assert fingerprint(again.run()) == fingerprint(trained)
    assert again.position.step == 12


def test_patience_needs_evaluations() -> None:
    """Patience without evaluations is a recipe that contradicts itself."""
    with pytest.raises(RecipeError, match="`patience` counts evaluations"):
        load_recipe(DRAWN_FACES, settings=["schedule.patience=2", "schedule.evaluate_every=0"])


def test_bfloat16_trains_near_float32(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """Under bfloat16 autocast weights stay float32 and finite, and the first loss is that of float32 to 2 %."""
    losses = []
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state()
        trainer = make_trainer(precision, used=with_schedule(recipe, precision=precision))
        trained = trainer.run()
        assert all(value.isfinite().all() for value in trained.state_dict().values())
        assert {value.dtype for value in trained.parameters()} == {torch.float32}
        losses.append(float((trainer.folder.path / "metrics.csv").read_text().splitlines()[1].split(",")[4]))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_float16_needs_a_gpu(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """Float16 without a GPU is refused in one sentence."""
    with pytest.raises(UsageError, match="fp16 needs a GPU, and there is none; use bf16 or no"):
        make_trainer("half", used=with_schedule(recipe, precision="fp16"))


def scaled(trainer: Trainer, scale: float) -> Trainer:
    """Scale a trainer's losses as float16 would, on the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    trainer.accelerator.scaler = scaler
    optimizer = trainer.optimizer.optimizer
    optimizer.param_groups[0]["fused"] = optimizer._step_supports_amp_scaling = False
    trainer.optimizer = AcceleratedOptimizer(optimizer, scaler=scaler)
    return trainer


def test_scaled_losses(make_trainer: MakeTrainer, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a scaler a step whose gradients overflow is skipped, others are plain steps, and resuming is exact."""
    used = with_schedule(recipe, clip=0.0)
    first = scaled(make_trainer("overflow", used=used), 2.0**127)
    before = weights(first)
    stop_before(first, 2, monkeypatch)
    assert all(torch.equal(value, before[name]) for name, value in first.plain.named_parameters())
    assert first.accelerator.scaler.get_scale() == 2.0**126

    defer_sigint = scaled(make_trainer("whole", used=used), 1024.0)
    expected = fingerprint(defer_sigint.run())
    assert defer_sigint.accelerator.scaler.get_scale() == 8192.0
    stop_before(scaled(make_trainer("stopped", used=used), 1024.0), 4, monkeypatch)
    resumed = scaled(make_trainer("stopped", used=used, seed=99), 2.0)
    assert fingerprint(resumed.run()) == expected
    assert resumed.accelerator.scaler.get_scale() == 8192.0


def test_whole_steps_under_ctrl_c(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a step waits for its end, so that what is saved can go on bit for bit."""
    expected = fingerprint(make_trainer("whole").run())
    trainer = make_trainer("pressed")
    update = trainer.average.update

    def press(model: Any) -> None:
        update(model)
        if trainer.position.step == 2:
            import signal

            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer.average, "update", press)
    with pytest.raises(TrainingError, match="stopped at step 3 of 6"):
        trainer.run()
    assert fingerprint(make_trainer("pressed", seed=99).run()) == expected


def test_the_gradients_norm_is_clipped(make_trainer: MakeTrainer, recipe: Recipe) -> None:
    """No step's gradient is longer than `clip`; with 0 it is as long as it is."""
    longest = {}
    for clip in (0.5, 0.0):
        trainer = make_trainer(f"clip-{clip}", used=with_schedule(recipe, clip=clip, epochs=1))
        step, norms = trainer.optimizer.step, list[float]()

        def note(trainer: Trainer = trainer, step: Any = step, norms: list[float] = norms) -> None:
            squares = [weight.grad.square().sum() for weight in trainer.plain.parameters() if weight.grad is not None]
            norms.append(float(torch.stack(squares).sum().sqrt()))
            step()

        trainer.optimizer.step = note
        trainer.run()
        longest[clip] = max(norms)
    assert longest[0.5] == pytest.approx(0.5, rel=1e-3)
    assert longest[0.0] > 1
