"""A Distiller in Lightning, where the tutorial shows no more than a sentence."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from .conftest import distil, draw, make_net


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("callback", ["EMAWeightAveraging", "StochasticWeightAveraging"])
def test_averaged_weights(callback: str) -> None:
    """The callbacks copy the module before its `setup`, in which the Distiller is made of a teacher in a function."""
    lightning = pytest.importorskip("lightning")

    class Distilled(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.student = make_net()
            self.distil = lambda: distil(self.student)

        def setup(self, stage: str) -> None:
            self.kd = self.distil()

        def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
            with self.kd.step(batch[0]) as step:
                out = self.student(batch[0])
            return F.cross_entropy(out, batch[1]) + step.loss(out)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([*self.student.parameters(), *self.kd.parameters()], lr=0.1)

    settings: dict[str, Any] = {"swa_lrs": 0.1, "swa_epoch_start": 1} if callback.startswith("Sto") else {}
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[getattr(lightning.pytorch.callbacks, callback)(**settings)],
    )
    model = Distilled()
    trainer.fit(model, DataLoader(TensorDataset(draw(8, 3, 6, 6), torch.arange(8) % 5), 4))
    assert model.kd.steps == 6
    model.kd.verify()
