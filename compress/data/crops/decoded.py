"""Decoded images kept on disk, so that each is decoded once a run however many epochs and processes read it."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from featherpress.compress.data.cache import Kept
from featherpress.compress.data.subsets import cache_key, origin
from featherpress.files import replacing

logger = logging.getLogger("featherpress")


def read_downscaled(dataset: Any, index: int, side: int) -> Any:
    """Read an image, at a reduced size where its data set can and its short side stays `side` pixels or more."""
    base, number = origin(dataset, index)
    reduced = getattr(base, "read_downscaled", None)
    return base[number] if reduced is None else reduced(number, side)


class DiskCache(Generic[Kept]):
    """Samples in one safetensors file each, mapped into memory when read; the system keeps what is read often.

    `build` makes one of its tensors and its name.

    A file gets its name when it is whole, so that several processes may read and write one folder and a kill leaves no
    half of one. It is named by what it was made from too, and not found again when that has changed. Where the disk
    refuses, that is said once, and images are decoded as if there were no cache.
    """

    def __init__(self, dataset: Any, folder: Path, *, side: int, build: Callable[..., Kept]) -> None:
        self.dataset, self.folder, self.side, self.build = dataset, folder, side, build
        self._full = False
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, index: int) -> Kept:
        """Read a sample from disk, or from its data set and keep it.

        Errors: `DataError` where the image is broken; nothing is kept of it.
        """
        path = self._path(index)
        kept = self._load(path, self.dataset.name(index)) if path.exists() else None
        if kept is not None:
            return kept
        sample: Kept = read_downscaled(self.dataset, index, self.side)
        if not self._full:
            self._keep(path, sample)
        return sample

    def _path(self, index: int) -> Path:
        made_from = f"{self.dataset.name(index)}\0{self.side}\0{cache_key(self.dataset, index)}"
        return self.folder / f"{index:08d}-{hashlib.blake2b(made_from.encode(), digest_size=8).hexdigest()}.safetensors"

    def _keep(self, path: Path, sample: Kept) -> None:
        try:
            with replacing(path) as temporary:
                save_file({name: each.contiguous() for name, each in sample.tensors().items()}, temporary)
        except (OSError, SafetensorError) as error:
            self._full = True
            logger.warning("could not cache images in %s any more (%s); decoding them every time", self.folder, error)

    def _load(self, path: Path, name: str) -> Kept | None:
        """Map a file; None where it is not whole, as after a power cut."""
        try:
            with safe_open(path, framework="pt") as file:
                return self.build({key: file.get_tensor(key) for key in file.keys()}, name)  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
