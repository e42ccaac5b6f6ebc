"""What a process keeps in memory: decoded images and crops together, up to one limit."""

from collections.abc import Hashable, Iterator
from dataclasses import fields
from typing import Generic, TypeVar

from torch import Tensor
from torch.utils.data import get_worker_info

from featherpress.compress.data.samples import Sample

Kept = TypeVar("Kept", Sample, Tensor)

DEFAULT_CACHE_BYTES = 4 << 30


class Cache(Generic[Kept]):
    """Samples or tensors by key, up to `limit` bytes; what is kept stays, what does not fit is made again.

    `reserved` bytes are held free for what is kept as `reserved`. A worker process keeps nothing: it shares what its
    parent kept before, and its parent keeps what it returns.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes, self.reserved = limit, 0, 0
        self._kept: dict[Hashable, Kept] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._kept)

    def __getstate__(self) -> dict[str, object]:
        # A process that is not forked starts empty, rather than receive gigabytes through a pipe.
        return {"limit": self.limit, "reserved": self.reserved, "bytes": 0, "_kept": {}}

    def get(self, key: Hashable) -> Kept | None:
        """Return what is kept under a key, or None."""
        return self._kept.get(key)

    def keep(self, key: Hashable, value: Kept, *, reserved: bool = False) -> bool:
        """Keep a value if it fits into what is left; return whether it is kept."""
        if key in self._kept:
            return True
        size = bytes_of(value)
        if get_worker_info() is not None or self.bytes + size + (0 if reserved else self.reserved) > self.limit:
            return False
        if reserved:
            self.reserved = max(self.reserved - size, 0)
        self._kept[key] = value
        self.bytes += size
        return True


def bytes_of(value: Sample | Tensor) -> int:
    """Return what the tensors of a sample take in memory."""
    if isinstance(value, Tensor):
        return value.nbytes
    faces = (getattr(value.faces, field.name) for field in fields(value.faces))
    return sum(each.nbytes for each in (value.image, *faces))
