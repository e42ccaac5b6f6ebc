"""Where a count meets values: tensors that leave for other libraries, and results as large as values say."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from sys import _getframe
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from featherpress.budgets.counting.meta_kernels import META
from featherpress.budgets.counting.operators import INDEXES

#: What hands a tensor's values, or its memory, to where no operator is seen.
ESCAPES = {
    Tensor.numpy: "numpy",
    Tensor.__array__: "numpy",
    Tensor.__dlpack__: "dlpack",
    Tensor.tolist: "tolist",
    Tensor.data_ptr: "data_ptr",
    Tensor.untyped_storage: "untyped_storage",
    Tensor.storage: "storage",
    Tensor.share_memory_: "share_memory_",
}
#: Those of them that on meta tensors no operator answers, with the functions of numpy that lead to them.
UNSEEN = frozenset({way.__name__ for way in ESCAPES} - {"tolist"} | {"array", "asarray", "from_dlpack"})
#: Who may take them without being told of.
_OURS = ("torch.", "featherpress.")
#: What makes tensors of arrays, and what makes them of numbers, or as no operator does.
_ARRIVALS = frozenset({torch.tensor, torch.as_tensor})
_MAKERS = _ARRIVALS | {torch.asarray, Tensor.new_tensor, Tensor.__deepcopy__}
#: What makes tensors of another library's memory.
_ENTRIES = ("from_numpy", "frombuffer", "from_dlpack")


class NoAnswer(Exception):  # noqa: N818 - no fault of the model: another step of the ladder may know
    """The amount of core work depends on values that these tensors do not have."""


class Unmade(NoAnswer):
    """A tensor without values was made unseen: of numbers, for which no operator is called, or in another thread."""


class Escapes(TorchFunctionMode):
    """Tells of each way by which tensors with values leave; PyTorch's own look at addresses is none.

    `tell` gets its name, and whether the tensor has values.
    """

    def __init__(
        self, tell: Callable[[str, bool], None], arrive: Callable[[Tensor], None], made: Callable[[Tensor], None]
    ) -> None:
        super().__init__()
        self.tell, self.arrive, self.made = tell, arrive, made

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass every call on."""
        way = ESCAPES.get(func)
        if way is not None and not _caller(_getframe(1)).startswith(_OURS):
            self.tell(way, not args[0].is_meta)
        out = func(*args, **(kwargs or {}))
        if func in _MAKERS and not (args and out is args[0]):
            self.made(out)
        if func in _ARRIVALS and args and type(args[0]).__module__ == "numpy":
            self.arrive(out)
        return out

    def __enter__(self) -> Any:
        """Follow what comes from elsewhere too: those functions pass no mode."""
        self._usual = {name: getattr(torch, name) for name in _ENTRIES}
        for name, usual in self._usual.items():
            setattr(torch, name, partial(self._arrives, usual))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        """Put the functions back."""
        for name, usual in self._usual.items():
            setattr(torch, name, usual)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _arrives(self, usual: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        out = usual(*args, **kwargs)
        self.made(out)
        self.arrive(out)
        return out


def _caller(frame: FrameType) -> str:
    """Name the module that calls a function of PyTorch, also where that asks for modes itself."""
    name = str(frame.f_globals.get("__name__"))
    around = frame.f_back and frame.f_back.f_back
    return _caller(around) if name == "torch.overrides" and around else name


def sized(func: Any, name: str, args: Sequence[Any], kwargs: Any, size: int | None) -> Any:
    """Answer on meta tensors an operator whose result is as large as values say: with `size`, or the largest.

    None for an operator whose largest result is not known.
    """
    if name in INDEXES:
        places: list[Any] = []
        for index in args[1]:
            is_mask = index is not None and index.dtype in {torch.bool, torch.uint8}
            places += [_places(index, size)] * index.dim() if is_mask else [index]
        return func(args[0], places)
    make = _SIZED.get(name)
    return None if make is None else make(args, kwargs, size)


def shrunk(out: Any, args: Sequence[Any], name: str, size: int) -> Any:
    """Cut the real result of such an operator to a size; None where its axis is not known."""
    if not isinstance(out, Tensor):
        return None
    axis = next((i for i, index in enumerate(args[1]) if index is not None), 0) if name in INDEXES else 0
    return out.narrow(axis, 0, min(size, out.shape[axis])).clone()


def _places(mask: Tensor, size: int | None) -> Tensor:
    largest = mask.numel() if mask.is_meta else int(mask.count_nonzero())
    return torch.empty(largest if size is None or not mask.is_meta else size, dtype=torch.int64, device=META)


def _nonzero(args: Sequence[Any], kwargs: Any, size: int | None) -> Tensor:
    x = args[0]
    rows = x.numel() if size is None else size
    return torch.empty((rows, x.dim()), dtype=torch.int64, device=META)


def _masked_select(args: Sequence[Any], kwargs: Any, size: int | None) -> Tensor:
    x, mask = args[:2]
    largest = torch.broadcast_shapes(x.shape, mask.shape)  # type: ignore[no-untyped-call]
    rows = prod(largest) if size is None else size
    return torch.empty(rows, dtype=x.dtype, device=META)


def _nms(args: Sequence[Any], kwargs: Any, size: int | None) -> Tensor:
    return torch.empty(args[0].shape[0] if size is None else size, dtype=torch.int64, device=META)


def _unique(args: Sequence[Any], kwargs: Any, size: int | None) -> tuple[Tensor, Tensor, Tensor]:
    x = args[0]
    rows = x.numel() if size is None else size
    made = torch.empty(rows, dtype=x.dtype, device=META)
    return made, torch.empty(x.shape, dtype=torch.int64, device=META), made.to(torch.int64)


_SIZED = {
    "aten::nonzero": _nonzero,
    "aten::masked_select": _masked_select,
    "torchvision::nms": _nms,
    "aten::_unique2": _unique,
}


def checksum(tensor: Tensor) -> int:
    """Tell whether a tensor's memory has changed, by a sum of its bytes."""
    memory = torch.empty(0, dtype=torch.uint8).set_(cast("Any", tensor.untyped_storage()))
    return int(memory.sum(dtype=torch.int64))


def differ(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Return whether two runs gave different results."""
    if len(some) != len(others) or any(a.shape != b.shape for a, b in zip(some, others, strict=True)):
        return True
    return not all(
        torch.allclose(a.to_dense().double(), b.to_dense().double(), equal_nan=True)
        for a, b in zip(some, others, strict=True)
        if not a.is_complex()
    )
