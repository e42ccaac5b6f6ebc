"""Which module an operator belongs to: a stack of the modules whose forward is running."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from threading import get_ident
from typing import Any
from weakref import ref

from torch import Tensor, nn
from torch._C import _DisableTorchDispatch

from featherpress.budgets.counting.costs import ROOT, UNATTRIBUTED
from featherpress.budgets.counting.layers import LAYERS, PLACE, is_row
from featherpress.errors import CountError

Shapes = tuple[tuple[int, ...], ...]


class Unlendable(BaseException):
    """A model has to be copied as a whole; nothing on the way is to catch it."""


class Lent:
    """Stands for a layer of PyTorch's in a copy that has none of it as long as its calls can be answered."""

    __slots__ = ("layer", "made", "paths", "stack")

    stack: "ModuleStack"

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.made: nn.Module | None = None
        self.paths: Sequence[str] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer would."""
        alone = len(args) == 1 and not kwargs and self.made is None
        result = self.stack.answered(self.layer, self.paths, args[0]) if alone else None
        return self.copy()(*args, **kwargs) if result is None else result

    def copy(self) -> nn.Module:
        """Make a copy after all, once."""
        if self.made is None:
            self.made = self.stack.follow(self.stack.copy(self.layer), self.paths)
        return self.made

    def __getattr__(self, name: str) -> Any:
        """Return what the copy has."""
        return getattr(self.copy(), name)

    @property  # type: ignore[misc]  # so that isinstance asks the layer
    def __class__(self) -> Any:
        """Be taken for such a layer."""
        return type(self.layer)


class ModuleStack:
    """Follows the calls of a model by standing in for what `nn.Module.__call__` runs: give it the modules of a copy.

    A module that has several paths goes by the one that continues the path of a module running around it.
    """

    def __init__(self, tree: Sequence[tuple[str, Any]], *, closed: bool = False) -> None:
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.thread = get_ident()
        #: Set once a module ran where nothing is seen.
        self.refusal: CountError | None = None
        self.running: list[str] = []
        #: The calls that were entered last, and the classes of their modules by path.
        self.entered: Sequence[tuple[str, str, str]] = ()
        self.kinds: dict[str, str] = {}
        #: Answers a module's call without running it, or returns None; gets the classes of layers that are as usual.
        self.answer: Callable[[nn.Module, Any, str, set[Any]], Tensor | None] = run_it
        #: Those classes, and whether no code that runs changes any.
        self.usual: set[Any] = set()
        self.closed = closed
        #: Copies a layer that was lent.
        self.copy: Callable[[nn.Module], nn.Module]
        #: Shapes of what each module took and returned at its first call.
        self.shapes: dict[str, tuple[Shapes, Shapes]] = {}
        paths: dict[int, list[str]] = {}
        for path, module in tree:
            if id(module) in paths:
                paths[id(module)].append(path)
                continue
            own = paths[id(module)] = [path]
            if type(module) is Lent:
                module.paths, module.stack = own, self
            else:
                self.follow(module, own)

    def follow(self, module: nn.Module, paths: Sequence[str]) -> nn.Module:
        """Stand in for what a call of a module runs."""
        # Where `nn.Module.compile` puts what is to be called. Hooks would do as well, in ten times the time.
        module.__dict__["_compiled_call_impl"] = _Followed(self._call, ref(module), paths)
        return module

    @property
    def path(self) -> str:
        """The innermost running module, "(unattributed)" outside the model."""
        return self.running[-1] if self.running else UNATTRIBUTED

    def _call(self, module: ref[nn.Module], paths: Sequence[str], /, *args: Any, **kwargs: Any) -> Any:
        if get_ident() != self.thread:
            # What sees operators is of one thread.
            self.refusal = CountError(
                f"module {paths[0] or ROOT} runs in a thread of its own, where its operators are not seen: "
                "count a model that calls it in the thread of its forward"
            )
            raise self.refusal
        called: Any = module()
        alone = len(args) == 1 and not kwargs
        if alone and type(called) in LAYERS:
            result = self.answered(called, paths, args[0])
            if result is not None:
                return result
        path = paths[0] if len(paths) == 1 else self._resolve(paths)
        self.calls[path] += 1
        depth = len(self.running)
        self.running.append(path)
        try:
            in_a_row = alone and self.answer is not run_it and is_row(called)
            result = self._run_row(called, args[0]) if in_a_row else called._call_impl(*args, **kwargs)
            if path not in self.shapes:
                if alone and type(args[0]) is type(result) is Tensor:
                    self.shapes[path] = (args[0].shape,), (result.shape,)
                else:
                    self.shapes[path] = tuple(_shapes((*args, *kwargs.values()))), tuple(_shapes((result,)))
            return result
        finally:
            del self.running[depth:]

    def answered(self, module: nn.Module, paths: Sequence[str], x: Any) -> Tensor | None:
        """Answer the call of a layer alone; None where it has to run."""
        self._forget()
        with _DisableTorchDispatch():
            return self._answered(module, paths, x)

    def _answered(self, module: nn.Module, paths: Sequence[str], x: Any) -> Tensor | None:
        path = paths[0] if len(paths) == 1 else self._resolve(paths)
        result = self.answer(module, x, path, self.usual)
        if result is not None:
            self.calls[path] += 1
            if path not in self.shapes:
                self.shapes[path] = (x.shape,), (result.shape,)
        return result

    def _forget(self) -> None:
        """Look again at what code that ran may have changed."""
        if self.closed:
            self.usual.discard(PLACE)
        else:
            self.usual.clear()

    def _run_row(self, row: nn.Module, x: Any) -> Any:
        """Do what the forward of a row does: what was found to be as usual stays so until a module runs."""
        modules: Iterator[Any] = iter(row._modules.values())
        while True:
            self._forget()
            with _DisableTorchDispatch():
                for module in modules:
                    if type(module) is Lent:
                        out = self._answered(module.layer, module.paths, x)
                    elif type(module) in LAYERS:
                        followed = vars(module).get("_compiled_call_impl")
                        out = self._answered(module, followed.args[1], x) if type(followed) is _Followed else None
                    else:
                        break
                    if out is None:
                        break
                    x = out
                else:
                    return x
            x = module(x)

    def enter(self, around: Sequence[tuple[str, str, str]]) -> None:
        """Go on in modules that the whole model does not call any more: (name of the call, path, class) of each."""
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(around, self.entered, strict=False))))
        for _, path, kind in around[same:]:
            self.calls[path] += 1
            self.kinds[path] = kind
        self.entered, self.running[1:] = around, [path for _, path, _ in around]

    def _resolve(self, candidates: Sequence[str]) -> str:
        for around in reversed(self.running):
            inside = [path for path in candidates if path.startswith(around + ".")] if around else candidates
            if inside:
                return inside[0]
        return candidates[0]


class _Followed(partial[Any]):
    """What is called in place of a module of the copy."""

    __slots__ = ()


def run_it(module: nn.Module, x: Any, path: str, usual: set[Any]) -> None:
    """Answer no call."""


def _shapes(values: Iterable[Any]) -> list[tuple[int, ...]]:
    """List the shapes of the tensors among values, in lists and in dictionaries of them."""
    found: list[tuple[int, ...]] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value.shape)
        elif isinstance(value, (list, tuple, Mapping)):
            found += _shapes(value.values() if isinstance(value, Mapping) else value)
    return found
