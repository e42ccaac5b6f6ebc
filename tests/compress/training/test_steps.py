"""The trainer by hand: a model of one number, w, and images of one, x; the loss is the mean of (w x)^2."""

import csv
import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from featherpress.compress.distillation.balance import gradient_ratio
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks.base import TaskLoss
from featherpress.compress.training.checkpoints import latest_state, save_state
from featherpress.compress.training.freezing import freeze, normalisations
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import StoppedError, TrainingError
from featherpress.records.evaluation import Metric
from featherpress.stopping import SIGNALS, stop_on_signals
from tests.recipes import DRAWN_FACES


@pytest.fixture
def stoppable(_handlers_put_back: None) -> None:
    """Signals as the command line takes them."""
    stop_on_signals()


@dataclass
class Batch:
    images: Tensor
    keys: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, _device: object, *, non_blocking: bool = False) -> "Batch":
        return self


class Crops:
    """Images 1, 2, 3, 4 in this order."""

    labelled, sizes, broken = 4, (1,), set[int]()
    dataset = SimpleNamespace(name=lambda index: f"number {index + 1}")

    def __len__(self) -> int:
        return self.labelled

    @property
    def sampler(self) -> "Crops":
        return self

    def batch_lengths(self, batch_size: int) -> list[int]:
        return [batch_size]

    def epoch_batches(self, _epoch: int, batch_size: int) -> list[list[tuple[int, int]]]:
        keys = [(index, 0) for index in range(self.labelled)]
        return [keys[start : start + batch_size] for start in range(0, self.labelled, batch_size)]

    def batch(self, keys: Sequence[tuple[int, int]]) -> Batch:
        numbers = torch.tensor([float(index + 1) for index, _ in keys]).view(-1, 1, 1, 1)
        return Batch(images=numbers, keys=torch.tensor(keys))


class Task:
    """The mean of squares as two terms, a quarter and three."""

    terms, metric = ("small", "large"), Metric(key="ap", name="AP")

    def assign_targets(self, batch: Batch, _model: nn.Module) -> Batch:
        return batch

    def normalizers(self, targets: Batch) -> Tensor:
        return torch.tensor([len(targets)])

    def images(self, batch: Batch, _model: nn.Module) -> Tensor:
        return batch.images

    def forward(self, model: nn.Module, images: Tensor, _batch: Batch, _targets: Batch) -> dict[str, Tensor]:
        return {"out": model(images)}

    def compute_loss(self, outputs: Mapping[str, Tensor], _batch: Batch, _targets: Batch, counts: Tensor) -> TaskLoss:
        mean = outputs["out"].square().sum() / counts[0]
        return TaskLoss(terms={"small": mean / 4, "large": 3 * mean / 4}, context={"labels": torch.empty(0)})


class Distil:
    """A teacher who says that the sum of outputs, twice over, should fall; at steps 0 and 1 alone."""

    columns, scale = ("kd_sum",), 1.0

    def __init__(self) -> None:
        self.asked = list[int]()
        self.adapters = nn.ModuleList([nn.Conv2d(1, 1, 1, bias=False)])
        nn.init.constant_(self.adapters[0].weight, 5.0)  # type: ignore[arg-type]
        self.kd, self.open = self, True
        self.parts: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"own": self.adapters.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        self.adapters.load_state_dict(state["own"])

    def close(self) -> None:
        self.open = False

    def step(self, inputs: Tensor, keys: Tensor, *, step: int, total: int) -> Any:
        assert (inputs.shape[1:], keys.shape[1], total) == ((1, 1, 1), 2, 4)
        self.asked.append(step)
        return nullcontext(self)

    def loss(self, outputs: Any, *, task: Tensor, labels: Tensor) -> Tensor:
        self.total = self.adapters[0](outputs["out"]).sum() / 5 * 2
        self.levels = [outputs["out"]]
        self.parts = {"sum": self.total.detach()} if self.asked[-1] < 2 else {}
        return self.total if self.parts else torch.zeros(())

    def gradient_ratio(self, task: Tensor) -> float:
        return gradient_ratio(self.total, task, self.levels)

    def ramp(self, step: int, total: int) -> float:
        return step / total


def make(
    folder: Path,
    *,
    distiller: Any = None,
    evaluate: Any = None,
    crops: Any = None,
    may_stop: bool = True,
    **schedule: Any,
) -> Trainer:
    """Build a trainer of w = 1 that takes two steps an epoch, two images each, hardly moves, and logs every step."""
    recipe: Recipe = load_recipe(DRAWN_FACES)
    settings = {
        "epochs": 2,
        "batch_size": 2,
        "learning_rate": 1e-9,
        "weight_decay": 0.0,
        "log_every": 1,
        "clip": 0.0,
        "save_every": 1e9,
        "evaluate_every": 0,
    }
    changed = recipe.schedule.model_copy(update={**settings, **schedule})
    model = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    return Trainer(
        model,
        crops or Crops(),
        TrainingFolder(folder),
        schedule=changed,
        label="toy",
        task=Task(),  # type: ignore[arg-type]
        distiller=distiller,
        may_stop=may_stop,
        evaluate=evaluate,
        metadata={"role": "toy"},
    )


def rows(trainer: Trainer) -> list[dict[str, str]]:
    with (trainer.folder.path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(trainer: Trainer, name: str) -> list[float]:
    return [float(row[name]) for row in rows(trainer) if row[name]]


def test_the_log_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Images 1, 2 cost 2.5, images 3, 4 cost 12.5; terms add up to task and loss; an epoch's line has their mean."""
    trainer = make(tmp_path, evaluate=lambda _model: 0.25, evaluate_every=1)
    with caplog.at_level(logging.INFO, logger="featherpress"):
        trainer.run()
    assert column(trainer, "task") == column(trainer, "loss") == pytest.approx([2.5, 12.5] * 2)
    assert column(trainer, "small") == pytest.approx([0.625, 3.125] * 2)
    assert column(trainer, "large") == pytest.approx([1.875, 9.375] * 2)
    assert [(row["step"], row["epoch"], row["val_ap"]) for row in rows(trainer)] == [
        *(("1", "0", ""), ("2", "0", ""), ("2", "0", "0.25")),
        *(("3", "1", ""), ("4", "1", ""), ("4", "1", "0.25")),
    ]
    assert all(speed > 0 for speed in column(trainer, "images_per_second"))
    assert [line for line in caplog.messages if "epoch" in line] == [
        f"toy: epoch {epoch} of 2, loss 7.50, AP 0.250 on up to 30 images" for epoch in (1, 2)
    ]
    assert "toy: 4 steps in 0 min 00 s" in caplog.messages


def test_what_the_log_leaves_out(tmp_path: Path) -> None:
    """With `log_every` of 3 steps 3 and 6 have a row, and the last."""
    trainer = make(tmp_path, log_every=3, epochs=4)
    trainer.run()
    assert column(trainer, "step") == [3, 6, 8]


def test_the_rate_is_one_cycle(tmp_path: Path) -> None:
    """It starts at a 25th, reaches `learning_rate` after `warmup` of the steps, and falls from there to nothing."""
    trainer = make(tmp_path, epochs=10, learning_rate=1e-3, warmup=5 / 21)
    first = trainer.scheduler.get_last_lr()[0]
    trainer.run()
    rates = column(trainer, "lr")
    assert len(rates) == 20
    assert first == pytest.approx(1e-3 / 25)
    assert rates.index(max(rates)) == 3
    assert max(rates) == pytest.approx(1e-3)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 1e-8


def test_a_step_of_adamw_by_hand(tmp_path: Path) -> None:
    """Its first step is the rate long, decay takes the rate's share of w, and the average moves 9/11 of the way."""
    trainer = make(tmp_path, epochs=1, batch_size=4, learning_rate=0.5, weight_decay=0.1, ema=0.9)
    assert trainer.average.decay == 0.9
    rate = trainer.scheduler.get_last_lr()[0]
    averaged = trainer.run()
    w = 1 - rate * 0.1 - rate
    assert trainer.plain.weight.item() == pytest.approx(w)
    assert averaged.weight.item() == pytest.approx(1 + (1 - 2 / 11) * (w - 1))
    assert column(trainer, "task") == pytest.approx([7.5])


def test_batches_that_are_accumulated(tmp_path: Path) -> None:
    """Two batches of two make one step of four; what is logged is the mean of both."""
    trainer = make(tmp_path, accumulate=2, learning_rate=0.5, epochs=1)
    one = make(tmp_path / "one", batch_size=4, learning_rate=0.5, epochs=1)
    for each in (trainer, one):
        each.run()
    assert column(trainer, "task") == pytest.approx([7.5])
    assert trainer.total == one.total == 1
    assert trainer.plain.weight.item() == pytest.approx(one.plain.weight.item(), abs=1e-6)
    with pytest.raises(TrainingError, match="4 images do not fill one batch of 6"):
        make(tmp_path / "wide", accumulate=3)


def test_the_best_weights_and_patience(tmp_path: Path) -> None:
    """Every second epoch is scored; the best score's weights stay; a score no better counts, a better one forgives."""
    scores, seen = [0.5, 0.5, 0.7, 0.7, 0.6, 0.9], []

    def evaluate(model: nn.Module) -> float:
        seen.append(model.weight.item())  # type: ignore[operator]
        return scores[len(seen) - 1]

    trainer = make(tmp_path, epochs=20, evaluate_every=2, patience=2, learning_rate=0.01, evaluate=evaluate)
    trainer.run()
    assert column(trainer, "val_ap") == scores[:5]
    assert (trainer.position.step, trainer.position.best, trainer.position.stale) == (20, 0.7, 2)
    assert load_file(trainer.folder.best_weights)["weight"].item() == seen[2]
    assert load_file(trainer.folder.last_weights)["weight"].item() == seen[4] != seen[2]
    with safe_open(trainer.folder.last_weights, framework="pt") as file:
        assert file.metadata()["role"] == "toy"


def test_one_that_may_not_stop_goes_on(tmp_path: Path) -> None:
    """Where arms are to take as many steps as each other, patience ends none of them."""
    trainer = make(tmp_path, epochs=4, evaluate_every=1, patience=1, may_stop=False, evaluate=lambda _model: 0.5)
    trainer.run()
    assert (trainer.position.step, trainer.position.stale) == (8, 3)


def test_a_score_of_nothing_is_a_score(tmp_path: Path) -> None:
    """The first evaluation's weights are the best so far, even at 0."""
    trainer = make(tmp_path, evaluate=lambda _model: 0.0, evaluate_every=1)
    trainer.run()
    assert trainer.folder.best_weights.exists()


@pytest.mark.parametrize(("save_every", "kept"), [(0.0, [4, 3]), (1e9, [4])])
def test_states_are_saved_by_the_clock(tmp_path: Path, save_every: float, kept: list[int]) -> None:
    """After every step where no time need have passed, of which two are kept; else at the end alone."""
    trainer = make(tmp_path, save_every=save_every)
    trainer.run()
    assert [path.name for path in trainer.folder.states] == [f"step-{step:08d}.pt" for step in kept]


def test_a_resumed_run_knows_what_it_knew(tmp_path: Path) -> None:
    """Best score, patience, averages and adapters are those of the run that was stopped; nothing is trained twice."""
    scores = iter([0.7, 0.6])
    keep = {"epochs": 4, "patience": 3, "evaluate_every": 1, "learning_rate": 0.01}
    stopped = make(tmp_path, distiller=Distil(), evaluate=lambda _model: next(scores), **keep)
    stopped.total = 4
    stopped.run()
    distiller = Distil()
    resumed = make(tmp_path, distiller=distiller, evaluate=lambda _model: 0.0, **keep)
    state = latest_state(resumed.folder, "")
    assert state is not None
    assert (state["step"], state["best"], state["stale"], state["updates"]) == (4, 0.7, 1, 4)
    resumed.total = 4
    resumed.run()
    assert resumed.position == stopped.position
    assert distiller.adapters[0].weight.item() == stopped.distiller.adapters[0].weight.item() != 5  # type: ignore[union-attr, operator]
    assert resumed.average.model.weight.item() == stopped.average.model.weight.item()
    assert resumed.plain.weight.item() == stopped.plain.weight.item()
    assert distiller.asked == []


def test_distillation_by_hand(tmp_path: Path) -> None:
    """2 (1 + 2) and 2 (3 + 4) on top of the task, and no more after two steps; gradients compared where outputs are.

    The task's is 2 x / 2, distillation's 2: for images 1, 2 sqrt(8 / 5), for 3, 4 sqrt(8 / 25).
    """
    distiller = Distil()
    trainer = make(tmp_path, distiller=distiller)
    trainer.run()
    assert column(trainer, "kd_sum") == pytest.approx([6.0, 14.0])
    assert column(trainer, "loss") == pytest.approx([8.5, 26.5, 2.5, 12.5])
    assert column(trainer, "task") == pytest.approx([2.5, 12.5] * 2)
    assert column(trainer, "kd_ratio") == pytest.approx([(8 / 5) ** 0.5, (8 / 25) ** 0.5], rel=1e-5)
    assert column(trainer, "ramp") == [0, 0.25, 0.5, 0.75]
    assert distiller.asked == [0, 1, 2, 3]
    assert not distiller.open
    assert list(rows(trainer)[0])[-4:] == ["kd_sum", "ramp", "kd_ratio", "val_ap"]


def test_the_ratio_is_measured_where_it_is_logged(tmp_path: Path) -> None:
    """It costs two gradients more, and is taken at the steps that have a row alone."""
    trainer = make(tmp_path, distiller=Distil(), log_every=2)
    trainer.run()
    assert column(trainer, "kd_ratio") == pytest.approx([(8 / 25) ** 0.5], rel=1e-5)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    """The first term that is not, the step and the images of the batch are named; what was averaged is not told."""

    class Broken(Crops):
        def batch(self, keys: Sequence[tuple[int, int]]) -> Batch:
            batch = super().batch(keys)
            return Batch(images=batch.images / torch.where(batch.images == 4, 0.0, 1.0), keys=batch.keys)

    trainer = make(tmp_path, crops=Broken(), batch_size=1, accumulate=2, epochs=1)
    with pytest.raises(TrainingError, match=r"the small term became inf at step 2 \(images number 4, \.\.\.\)"):
        trainer.run()
    assert len(rows(trainer)) == 1


def test_it_trains_in_training_mode_and_averages_in_evaluation(tmp_path: Path) -> None:
    """A model that comes in eval mode is trained as any other; its average is in eval mode."""
    modes = []
    trainer = make(tmp_path, evaluate=lambda model: modes.append((trainer.plain.training, model.training)) or 0.0)
    trainer.schedule = trainer.schedule.model_copy(update={"evaluate_every": 1})
    trainer.plain.eval()
    trainer.run()
    assert modes == [(True, False)] * 2


def test_a_batch_with_nothing_to_divide_by(tmp_path: Path) -> None:
    """Where no image has what a term is divided by, it is divided by 1: images 1, 2 cost 5, images 3, 4 cost 25."""
    trainer = make(tmp_path, epochs=1)
    trainer.task.normalizers = lambda _targets: torch.tensor([0])
    trainer.run()
    assert column(trainer, "task") == pytest.approx([5, 25])


def test_freezing_by_path() -> None:
    """A pattern names a module with all below it, or weights alone; the modules come back, to be put in eval mode."""
    model = nn.ModuleDict({"one": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "other": nn.Linear(2, 2)})
    found = freeze(model, ["one", "other.bias"])
    assert {id(module) for module in found} == {id(module) for module in model["one"].modules()}
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {"other.weight"}
    assert normalisations(model) == [model["one"][1]]  # type: ignore[index]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("where", ["step", "saving"])
def test_a_signal_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str, stoppable: None
) -> None:
    """Once in a step, or again while a state is written: the step has its row, the state is whole, the code its own."""
    trainer = make(tmp_path)
    step, writes = trainer._step, []

    def take(*given: Any, **named: Any) -> dict[str, float]:
        if trainer.position.step == 2:
            signal.raise_signal(number)
        return step(*given, **named)

    def save(*given: Any) -> Path:
        if where == "saving":
            signal.raise_signal(number)
        writes.append(save_state(*given))
        return writes[-1]

    monkeypatch.setattr(trainer, "_step", take)
    monkeypatch.setattr("featherpress.compress.training.trainer.save_state", save)
    with pytest.raises(StoppedError, match="stopped at step 3 of 4; the same command with --resume goes on") as stopped:
        trainer.run()
    assert stopped.value.exit_code == 128 + number
    assert [row["step"] for row in rows(trainer)] == ["1", "2", "3"]
    assert [path.name for path in writes] == ["step-00000003.pt"]
    whole, resumed = make(tmp_path / "whole"), make(tmp_path)
    whole.run()
    monkeypatch.undo()
    resumed.run()
    assert resumed.plain.weight.item() == whole.plain.weight.item()
    assert column(resumed, "loss") == column(whole, "loss")


def test_an_evaluation_counts_once(tmp_path: Path, stoppable: None) -> None:
    """A signal while the best weights are written does not count the evaluation twice when the run goes on."""
    options = {"evaluate_every": 1, "patience": 2, "epochs": 4}
    trainer = make(tmp_path, evaluate=lambda _model: 0.5, **options)
    end = trainer._end_epoch

    def stop(*given: Any) -> None:
        end(*given)
        if trainer.position.step == 4:
            signal.raise_signal(signal.SIGTERM)

    trainer._end_epoch = stop  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        trainer.run()
    resumed = make(tmp_path, evaluate=lambda _model: 0.5, **options)
    resumed.run()
    assert (resumed.position.step, resumed.position.stale) == (6, 2)
