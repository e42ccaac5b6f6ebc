"""Which module an operator belongs to: a stack of the modules whose forward is running."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn

__all__ = ["ModuleStack"]


class ModuleStack:
    """Follows the calls of a model through hooks, which it leaves on it: give it a copy.

    A module that has several paths goes by the one that continues the path of a module running around it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls: Counter[str] = Counter()
        self.running: list[str] = []
        self.paths: defaultdict[int, list[str]] = defaultdict(list)
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths[id(module)].append(path)
        for module in model.modules():
            module.register_forward_pre_hook(self._enter, prepend=True)
            module.register_forward_hook(self._leave, always_call=True)

    @property
    def path(self) -> str | None:
        """The innermost running module, None outside the model."""
        return self.running[-1] if self.running else None

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self._resolve(self.paths[id(module)])
        self.running.append(path)
        self.calls[path] += 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.running.pop()

    def _resolve(self, candidates: Sequence[str]) -> str:
        for around in reversed(self.running):
            inside = [path for path in candidates if path.startswith(around + ".")] if around else candidates
            if inside:
                return inside[0]
        return candidates[0]
