"""Copies of a model to count on: the same graph of modules, other tensors.

Every tensor is replaced by one twin, wherever and however often it is held, so that sharing and tying survive.
"""

import copy
import copyreg
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import TorchFunctionMode

from featherpress.errors import UsageError

__all__ = ["Twin", "copy_with", "fake_twin", "meta_twin", "real_twin"]

Twin = Callable[[Tensor], Tensor]
T = TypeVar("T")
#: What a copy shares with the original.
ATOMS = frozenset({bool, int, float, str, type(None)})


def meta_twin(tensor: Tensor) -> Tensor:
    """Make a tensor of the same shape, strides and type that has no memory."""
    with torch.no_grad():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def real_twin(tensor: Tensor) -> Tensor:
    """Make a tensor of the same values on the CPU."""
    return tensor.detach().to(device="cpu", copy=True)


def fake_twin(mode: FakeTensorMode) -> Twin:
    """Make twins that know their device but have no memory, in the given mode."""
    return lambda tensor: mode.from_tensor(tensor.detach())


class _TwinMode(TorchFunctionMode):
    """Answers every tensor that deepcopy meets with its twin."""

    def __init__(self, twin: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.twin = twin

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), self.twin(tensor))
        return func(*args, **(kwargs or {}))


def _as_held(tensor: Tensor, twin: Twin) -> Tensor:
    """Make the twin a Parameter where the tensor is one."""
    made = twin(tensor)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made


def _check_initialised(tensors: Iterable[Tensor], model: nn.Module) -> None:
    if any(isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) for tensor in tensors):
        raise UsageError(
            f"{type(model).__name__} has parameters without a shape yet (a lazy module): run it once before counting it"
        )


def _empty_containers(model: nn.Module) -> Iterator[Any]:
    """List what is empty in most modules, ten dictionaries of hooks each, and what deepcopy is slowest with."""
    for module in model.modules():
        for held in vars(module).values():
            if type(held) in {dict, OrderedDict, set} and not held:
                yield held


def _copy_plain_modules(model: nn.Module, memo: dict[int, Any]) -> None:
    """Do for modules that say nothing about copying what deepcopy does, without asking it about each number."""
    plain = [module for module in model.modules() if id(module) not in memo and _is_plain(type(module))]
    # All shells first, so that whatever refers to a module finds its copy.
    memo.update((id(module), type(module).__new__(type(module))) for module in plain)
    for module in plain:
        held = vars(module).items()
        state = {key: item if type(item) in ATOMS else copy.deepcopy(item, memo) for key, item in held}
        memo[id(module)].__setstate__(state)


def _is_plain(kind: type[nn.Module]) -> bool:
    """Tell whether deepcopy would make an object of this class from its dictionary alone."""
    hooks = ("__reduce_ex__", "__reduce__", "__getstate__", "__new__")
    usual = all(getattr(kind, name, None) is getattr(object, name, None) for name in hooks)
    return usual and not hasattr(kind, "__deepcopy__") and not copyreg._slotnames(kind)  # type: ignore[attr-defined]


def copy_with(value: T, twin: Twin, memo: dict[int, Any]) -> T:
    """Copy a module, or a nest of inputs, with a twin for every tensor; `memo` maps a tensor's id to its twin.

    Errors: UsageError for a model with lazy parameters, or one that cannot be copied.
    """
    try:
        if isinstance(value, nn.Module):
            tensors = [*value.parameters(), *value.buffers()]
            _check_initialised(tensors, value)
            memo.update((id(t), _as_held(t, twin)) for t in tensors if id(t) not in memo)
            memo.update((id(held), type(held)()) for held in _empty_containers(value))
        with _TwinMode(lambda tensor: _as_held(tensor, twin)):
            if isinstance(value, nn.Module):
                _copy_plain_modules(value, memo)
            return copy.deepcopy(value, memo)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{type(value).__name__} cannot be copied, and counting never works on the original: {error}"
        ) from error
