"""The interface between trainer and distillation: the trainer knows neither teachers nor terms."""

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.step import Step


class Distilling(Protocol):
    """A Distiller with a schedule in steps; `scale` multiplies its loss, `columns` names its terms in the log."""

    kd: Distiller
    scale: float

    @property
    def columns(self) -> tuple[str, ...]:
        """The names under which terms are logged."""
        ...

    def step(self, inputs: Tensor, keys: Tensor, *, step: int, total: int) -> AbstractContextManager[Step]:
        """Run the teachers whose turn it is, and watch the student's forward inside the block."""
        ...

    def ramp(self, step: int, total: int) -> float:
        """Return the factor that terms have at a step."""
        ...
