"""What a process keeps in memory: decoded images and crops together, up to one limit."""

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from torch import Tensor
from torch.utils.data import get_worker_info


class Tensored(Protocol):
    """What is made up of tensors."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Return all of them by name."""


Kept = TypeVar("Kept", bound=Tensored)

DEFAULT_CACHE_BYTES = 4 << 30


class Cache(dict[Hashable, Kept]):
    """Samples by key, up to `limit` bytes; what is kept stays, what does not fit is made again.

    `reserved` bytes are held free for what is kept as `reserved`. A worker process keeps nothing: it shares what its
    parent kept before, and its parent keeps what it returns.
    """

    def __init__(self, limit: int, *, reserved: int = 0) -> None:
        super().__init__()
        self.limit, self.bytes, self.reserved = limit, 0, reserved

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that is not forked starts empty, rather than receive gigabytes through a pipe.
        return partial(Cache, self.limit, reserved=self.reserved), ()

    def keep(self, key: Hashable, value: Kept, *, reserved: bool = False) -> bool:
        """Keep a value if it fits into what is left; return whether it is kept."""
        if key in self:
            return True
        size = sum(each.nbytes for each in value.tensors().values())
        if get_worker_info() is not None or self.bytes + size + (0 if reserved else self.reserved) > self.limit:
            return False
        if reserved:
            self.reserved = max(self.reserved - size, 0)
        self[key] = value
        self.bytes += size
        return True
