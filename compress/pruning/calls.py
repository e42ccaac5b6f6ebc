"""One operator at work: what it is given, and what it gives without memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

from featherpress.budgets.counting.meta_kernels import META, META_KERNELS
from featherpress.budgets.counting.operators import Facts
from featherpress.budgets.counting.replicas import meta_twin


@dataclass(slots=True, kw_only=True)
class Call:
    """An operator at work, and all tensors that it was given."""

    func: Any
    args: Any
    kwargs: Any
    tensors: list[Tensor]
    out: Any = None
    failure: Exception | None = None

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """The operator and its arguments."""
        return self.func, self.args, self.kwargs

    @property
    def results(self) -> list[Tensor]:
        """All tensors that it returned."""
        return tensors_of(self.out)

    @property
    def scalars(self) -> tuple[float, ...]:
        """All numbers that it was given."""
        return tuple(float(each) for each in _flat((self.args, self.kwargs)) if isinstance(each, int | float))


def bind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name the arguments of an operator as its schema does."""
    names, defaults = _signature(func)
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


@cache
def _signature(func: OpOverload) -> tuple[list[str], dict[str, Any]]:
    """Return the names of all arguments, and the defaults of those that have one."""
    known = func._schema.arguments
    return [each.name for each in known], {each.name: each.default_value for each in known if each.has_default_value()}


def tensors_of(value: Any) -> list[Tensor]:
    """List tensors in arguments or results, which may be nests of them."""
    return [each for each in _flat(value) if isinstance(each, Tensor)]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for each in value:
        yield from _flat(each)


def answer(call: Call, name: str) -> Any:
    """Run an operator without memory."""
    kernel = META_KERNELS.get(call.func) or META_KERNELS.get(name)
    out = kernel(call.args, call.kwargs) if kernel else None
    return call.func(*call.args, **call.kwargs) if out is None else out


def in_double(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask for double precision where the code asks for less."""
    kind = kwargs.get("dtype")
    return {**kwargs, "dtype": torch.float64} if kind is not None and kind.is_floating_point else kwargs


def without_values(facts: Facts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Make what is new without memory; follow constants that have values, and are no part of the model, so too."""
    if facts.makes:
        kwargs = {**kwargs, "device": META}
    kinds = {each.is_meta for each in tensors_of((args, kwargs)) if each.dim()}
    if kinds == {True, False}:
        args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta or not t.dim() else meta_twin(t), (args, kwargs))
    return args, kwargs
