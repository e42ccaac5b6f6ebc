"""The interface between trainer and distillation: the trainer knows neither teachers nor terms."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from featherpress.compress.tasks.base import LossContext, Outputs


class Teaching(Protocol):
    """The terms that teachers add to a task's loss; `columns` names them in the log."""

    adapters: nn.ModuleList

    @property
    def columns(self) -> tuple[str, ...]:
        """The names under which terms are logged."""
        ...

    def prepare(self, accelerator: Any) -> list[Any]:
        """Put the adapters on the run's device; return what accumulates gradients beside the model."""
        ...

    def open(self, student: nn.Module) -> AbstractContextManager[None]:
        """Keep hooks on the student's tapped modules while the context lasts."""
        ...

    def ask(self, batch: Any, *, step: int, total: int) -> Mapping[int, Any]:
        """Run the teachers whose turn it is, before the student's forward."""
        ...

    def take(self) -> Mapping[str, list[Tensor]]:
        """Return what the student's taps caught in the last forward."""
        ...

    def compare(
        self,
        outputs: Outputs,
        features: Mapping[str, list[Tensor]],
        lessons: Mapping[int, Any],
        context: LossContext,
        *,
        step: int,
        total: int,
    ) -> dict[str, Tensor]:
        """Return the weighted terms of a step, by name."""
        ...

    def ramp(self, step: int, total: int) -> float:
        """Return the factor that terms have at a step."""
        ...
