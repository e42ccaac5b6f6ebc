"""Taps: the outputs of named modules, caught by hooks."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from featherpress.errors import UsageError


class Tap:
    """Catch what the modules at a path, or at all paths that a pattern matches, return whenever they run.

    In a pattern `*` and `?` stand for anything but a dot. A list of tensors is one tensor a level; several modules, or
    one that runs several times in a forward, give their levels one after the other, in the order of the model's
    modules. Use as a context manager: the hooks are there inside and gone after.

    Errors: `UsageError` for a path or pattern that matches no module of the model; `RuntimeError` when read before
    every module ran.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        self.path = path
        self._model = model
        self._modules = _matching(model, path)
        self._caught: dict[str, list[Tensor]] = {name: [] for name in self._modules}

    @contextmanager
    def open(self) -> Iterator["Tap"]:
        """Keep the hooks on the modules while the context lasts."""
        handles = [self._model.register_forward_pre_hook(self._forget)]
        for name, module in self._modules.items():
            handles.append(module.register_forward_hook(_Catcher(name, self._caught)))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._clear()

    @property
    def missing(self) -> list[str]:
        """The tapped modules that did not run, or whose output was taken already."""
        return [name for name, levels in self._caught.items() if not levels]

    def take(self) -> list[Tensor]:
        """Return what came out of the last forward, once."""
        if self.missing:
            raise RuntimeError(
                f"the tap on {self.path!r} caught nothing at {self.missing[0]!r}: its module did not run"
            )
        levels = [level for caught in self._caught.values() for level in caught]
        self._clear()
        return levels

    def _forget(self, _module: nn.Module, _inputs: object) -> None:
        self._clear()

    def _clear(self) -> None:
        for levels in self._caught.values():
            levels.clear()


class _Catcher:
    """A hook that keeps what a module returned under its name."""

    def __init__(self, name: str, caught: dict[str, list[Tensor]]) -> None:
        self.name, self.caught = name, caught

    def __call__(self, _module: nn.Module, _inputs: object, output: object) -> None:
        outputs = output if isinstance(output, list | tuple) else (output,)
        for level in outputs:
            if not isinstance(level, Tensor):
                raise UsageError(f"the module at {self.name!r} does not return tensors, so that it cannot be tapped")
            self.caught[self.name].append(level)


def tap_shapes(model: nn.Module, path: str, images: Tensor) -> list[tuple[int, ...]]:
    """Return the shape of each level at a tap, from one forward without gradient in eval mode.

    Errors: `UsageError` for a path that is not there, a module that does not run by itself, and levels that are neither
    maps (N, C, H, W), nor tokens (N, L, C), nor vectors (N, C).
    """
    modes = {module: module.training for module in model.modules()}
    tap = Tap(model, path)
    try:
        model.eval()
        with tap.open(), torch.no_grad():
            model(images)
            if tap.missing:
                raise UsageError(
                    f"the module at {tap.missing[0]!r} does not run by itself, so that it cannot be tapped"
                )
            shapes = [tuple(level.shape) for level in tap.take()]
    finally:
        for module, training in modes.items():
            module.training = training
    strange = next((shape for shape in shapes if len(shape) not in {2, 3, 4}), None)
    if strange is not None:
        raise UsageError(
            f"the tap on {path!r} gives {strange}, expected maps (N, C, H, W), tokens (N, L, C) or vectors (N, C)"
        )
    return shapes


def _matching(model: nn.Module, path: str) -> dict[str, nn.Module]:
    """Find the modules that a path or pattern names, in the model's order."""
    pattern = re.compile("".join({"*": r"[^.]*", "?": r"[^.]"}.get(sign, re.escape(sign)) for sign in path))
    found = {name: module for name, module in model.named_modules() if name and pattern.fullmatch(name)}
    if found:
        return found
    children = ", ".join(name for name, _ in model.named_children())
    raise UsageError(f"{type(model).__name__} has no module {path!r} to tap; at the top it has {children}")
