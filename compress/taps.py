"""Taps: what flows out of named modules, caught on the way."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from featherpress.errors import UsageError

__all__ = ["Tap", "tap_widths"]


class Tap:
    """Catch the output of the module at a path whenever it runs; a list of tensors is one tensor a level.

    Use as a context manager: the hook is there inside and gone after.

    Errors: `UsageError` for a path the model does not have; `RuntimeError` when read before the module ran.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        self.path = path
        self._levels: list[Tensor] = []
        try:
            self._module = model.get_submodule(path)
        except AttributeError:
            children = ", ".join(name for name, _ in model.named_children())
            raise UsageError(
                f"{type(model).__name__} has no module {path!r} to tap; at the top it has {children}"
            ) from None

    @contextmanager
    def open(self) -> Iterator["Tap"]:
        """Keep the hook on the module while the context lasts."""
        handle = self._module.register_forward_hook(self._catch)
        try:
            yield self
        finally:
            handle.remove()
            self._levels = []

    @property
    def caught(self) -> bool:
        """Whether a forward left something to take."""
        return bool(self._levels)

    def take(self) -> list[Tensor]:
        """Return what came out of the last forward, once."""
        if not self._levels:
            raise RuntimeError(f"the tap on {self.path!r} caught nothing: its module did not run")
        levels, self._levels = self._levels, []
        return levels

    def _catch(self, _module: nn.Module, _inputs: object, output: object) -> None:
        outputs = output if isinstance(output, list | tuple) else (output,)
        levels = [level for level in outputs if isinstance(level, Tensor)]
        if len(levels) != len(outputs):
            raise UsageError(f"the module at {self.path!r} does not return tensors, so that it cannot be tapped")
        self._levels = levels


def tap_widths(model: nn.Module, path: str, *, size: int) -> list[int]:
    """Return the channels of each level at a tap, from one forward without gradient in eval mode.

    Shapes: the model sees (1, 3, size, size).
    """
    was_training = model.training
    tap = Tap(model, path)
    device = next(model.parameters()).device
    try:
        model.eval()
        with tap.open(), torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=device))
            if not tap.caught:
                raise UsageError(f"the module at {path!r} does not run by itself, so that it cannot be tapped")
            levels = tap.take()
            if any(level.dim() != 4 for level in levels):
                raise UsageError(f"the module at {path!r} does not return feature maps (N, C, H, W) to compare")
            return [level.shape[1] for level in levels]
    finally:
        model.train(was_training)
