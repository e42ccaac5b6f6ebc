"""Taps: the outputs of named modules, caught by hooks that do nothing while their gate is shut."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from featherpress.errors import UsageError

Path: TypeAlias = str | Sequence[str]
Select: TypeAlias = str | int | Sequence[str | int] | Callable[[Any], Any] | None
"""Which of the outputs of a module are levels: keys, indices or attributes of it, or a function of it."""


class Gate:
    """Whether hooks keep what they see, and whether they note how often it was changed in place before."""

    def __init__(self) -> None:
        self.open = self.watching = False


class Tap:
    """Catch what the modules at a path, at several, or at all that a pattern matches, return whenever they run.

    In a pattern `*` and `?` stand for anything but a dot; the empty path is the model itself. Tensors in a list, tuple
    or mapping are a level each, unless `select` chooses. Several modules, or one that runs several times in a forward,
    give their levels one after the other, in the order of the model's modules. The hooks sit on the modules until
    `close`, keep nothing while the gate is shut, and do nothing in copies of the model.

    Errors: `UsageError` for a path or pattern that matches no module of the model, and for what is not tensors.
    """

    def __init__(self, model: nn.Module, path: Path, *, gate: Gate | None = None, select: Select = None) -> None:
        self.path, self.select, self.gate = path, select, gate or Gate()
        self.modules = find_modules(model, path)
        self._caught: dict[str, list[Any]] = {name: [] for name in self.modules}
        self._seen: dict[str, list[list[int]]] = {name: [] for name in self.modules}
        self._kept: set[str] = set()
        self._handles = [
            module.register_forward_hook(_Catcher(name, self._caught[name], self._seen[name], self.gate, self._kept))
            for name, module in self.modules.items()
        ]

    @contextmanager
    def open(self) -> Iterator["Tap"]:
        """Keep what the modules return while the context lasts."""
        self.forget()
        self.gate.open = True
        try:
            yield self
        finally:
            self.gate.open = False

    @property
    def missing(self) -> list[str]:
        """The tapped modules that did not run, or whose output was taken already."""
        return [name for name, outputs in self._caught.items() if not outputs]

    def take(self) -> list[Tensor]:
        """Return what was caught, once.

        Errors: `UsageError` when a module did not run, or returned something else than tensors.
        """
        if self.missing:
            raise UsageError(
                f"the tap on {self.path!r} caught nothing at {self.missing[0]!r}: its module did not run by itself"
            )
        levels = [
            level for name, outputs in self._caught.items() for each in outputs for level in self._levels(name, each)
        ]
        self.forget()
        return levels

    def forget(self) -> None:
        """Drop what was caught."""
        for outputs in self._caught.values():
            outputs.clear()

    def keep_from_change(self) -> None:
        """Copy what is caught from now on where what comes after changed it in place, as an inplace ReLU does.

        Call it after a forward with a gate that was watching, before `take`.
        """
        for name, outputs in self._caught.items():
            if [_versions(output) for output in outputs] != self._seen[name]:
                self._kept.add(name)
            self._seen[name].clear()

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self.forget()

    def _levels(self, name: str, output: Any) -> list[Tensor]:
        levels = list(_chosen(output, self.select, name))
        strange = next((level for level in levels if not isinstance(level, Tensor)), None)
        if strange is not None or not levels:
            kind = type(output if strange is None else strange).__name__
            raise UsageError(f"the module at {name!r} returns {kind}, not tensors; `select` chooses what to tap of it")
        return levels


class _Catcher:
    """A hook that keeps what a module returned under its name; its copies, in copies of the model, keep nothing."""

    def __init__(self, name: str, caught: list[Any], seen: list[list[int]], gate: Gate, kept: set[str]) -> None:
        self.name, self.caught, self.seen, self.gate, self.kept = name, caught, seen, gate, kept

    def __call__(self, _module: nn.Module, _inputs: object, output: Any) -> None:
        if self.gate.open:
            if self.gate.watching:
                self.seen.append(_versions(output))
            if self.name in self.kept:
                output = tree_map_only(Tensor, Tensor.clone, output)
            self.caught.append(output)

    def __deepcopy__(self, _memo: object) -> Callable[..., None]:
        return _nothing

    def __reduce__(self) -> Any:
        return (_no_hook, ())


def _versions(output: Any) -> list[int]:
    """Return how often each tensor of an output was changed in place."""
    tensors = [each for each in tree_leaves(output) if isinstance(each, Tensor)]
    return [each._version for each in tensors if not each.is_inference()]


def _nothing(*_arguments: object) -> None:
    """Stand in for a hook in a copy."""


def _no_hook() -> Callable[..., None]:
    return _nothing


def _chosen(output: Any, select: Select, name: str) -> Iterator[Any]:
    if callable(select):
        found = select(output)
        yield from found if isinstance(found, list | tuple) else (found,)
    elif select is not None:
        for key in (select,) if isinstance(select, str | int) else select:
            try:
                yield output[key] if isinstance(key, int) or isinstance(output, Mapping) else getattr(output, key)
            except (LookupError, AttributeError, TypeError) as error:
                raise UsageError(f"the module at {name!r} returns {type(output).__name__} without {key!r}") from error
    elif isinstance(output, Mapping):
        yield from output.values()
    elif isinstance(output, list | tuple):
        yield from output
    else:
        yield output


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models into eval mode without gradient, and every module of theirs back into its own mode."""
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def level_shapes(levels: Sequence[Tensor], path: Path) -> list[tuple[int, ...]]:
    """Return the shape of each level.

    Errors: `UsageError` for levels that are neither maps (N, C, H, W), nor tokens (N, L, C), nor vectors (N, C).
    """
    shapes = [tuple(level.shape) for level in levels]
    strange = next((shape for shape in shapes if len(shape) not in {2, 3, 4}), None)
    if strange is not None:
        raise UsageError(
            f"the tap on {path!r} gives {strange}, expected maps (N, C, H, W), tokens (N, L, C) or vectors (N, C)"
        )
    return shapes


def tap_shapes(model: nn.Module, path: Path, images: Tensor) -> list[tuple[int, ...]]:
    """Return the shape of each level at a tap, from one forward without gradient in eval mode.

    Errors: `UsageError` as `Tap` and `level_shapes`.
    """
    tap = Tap(model, path)
    try:
        with evaluating(model), tap.open():
            model(images)
        return level_shapes(tap.take(), path)
    finally:
        tap.close()


def find_modules(model: nn.Module, path: Path) -> dict[str, nn.Module]:
    """Find the modules that a path, several, or a pattern names, in the model's order.

    Errors: `UsageError` where one names none.
    """
    found: set[nn.Module] = set()
    for each in (path,) if isinstance(path, str) else path:
        pattern = re.compile("".join({"*": r"[^.]*", "?": r"[^.]"}.get(sign, re.escape(sign)) for sign in each))
        every = model.named_modules(remove_duplicate=False)  # a shared module has several names
        named = [module for name, module in every if pattern.fullmatch(name) and (name or not each)]
        if not named:
            children = ", ".join(name for name, _ in model.named_children())
            raise UsageError(f"{type(model).__name__} has no module {each!r} to tap; at the top it has {children}")
        found.update(named)
    return {name: module for name, module in model.named_modules() if module in found}
