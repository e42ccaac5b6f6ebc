"""Teacher outputs kept on disk: a teacher is run once per crop, and then read."""

import math
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featherpress.compress.distillation.teachers import BoundTeacher, TeacherOutputs
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.errors import TrainingError

Scalar = TypeVar("Scalar", bound=np.generic)

#: Written to take a file's room: what is never written has none, on any system.
_ZEROS = memoryview(bytes(1 << 20))


class CachedTeacher:
    """A teacher whose outputs are kept on disk, one row a crop, in half precision unless `precision` is `fp32`.

    Outputs are rounded before their first use too, so that a run does not depend on what was cached when.
    Rows are (variant * images + index), those of each size of crops in files of their own; a key's variant is then
    (variant * sizes + size). The files belong to one set of crops, and lie under a name made of the teacher's
    fingerprint, its taps and the precision.

    Errors: `TrainingError` when the disk has no room for all outputs, which is found out before the first, and for
    outputs that half precision cannot hold.
    """

    def __init__(
        self,
        teacher: BoundTeacher,
        folder: Path,
        *,
        images: int,
        variants: int,
        sizes: int = 1,
        precision: str = "fp16",
    ) -> None:
        self.teacher = teacher
        taps = zlib.crc32("|".join(teacher.taps).encode())
        self.folder = folder / f"{fingerprint(teacher.model)[:16]}-{taps:08x}-{precision}"
        self.images, self.rows = images, images * variants * sizes
        folders = [self.folder / (str(size) if size else "") for size in range(sizes)]
        self._shelves = [_Shelf(each, rows=images * variants, precision=precision) for each in folders]

    def ask(self, inputs: Tensor, keys: Tensor) -> TeacherOutputs:
        """Read the outputs for crops by their keys (N, 2); run the teacher only for those that are not cached yet."""
        index, variant = keys.cpu().numpy().T
        sizes = len(self._shelves)
        shelf = self._shelves[int(variant[0]) % sizes]
        rows = variant // sizes * self.images + index
        if not shelf.knows(rows):
            shelf.learn(self.teacher.ask(inputs), rows)
        return shelf.read(rows, inputs.device)

    @property
    def bytes(self) -> int:
        """What the outputs take on disk; 0 before the first."""
        return sum(shelf.bytes for shelf in self._shelves)


class _Shelf:
    """The teacher's outputs for crops of one size, in a folder."""

    def __init__(self, folder: Path, *, rows: int, precision: str) -> None:
        self.folder, self.rows = folder, rows
        self.kind: type[np.floating[Any]] = np.float32 if precision == "fp32" else np.float16
        self._known: NDArray[np.bool_] = np.zeros(rows, dtype=np.bool_)
        self._files: list[tuple[Path, tuple[int, ...]]] = []
        self._form: TeacherOutputs | None = None

    def knows(self, rows: NDArray[np.int64]) -> bool:
        return bool(self._known[rows].all())

    def read(self, rows: NDArray[np.int64], device: torch.device) -> TeacherOutputs:
        assert self._form is not None
        return self._form.filled([torch.from_numpy(store[rows]).to(device).float() for store in self._stores()])

    def learn(self, outputs: TeacherOutputs, rows: NDArray[np.int64]) -> None:
        tensors = [self._rounded(tensor) for tensor in outputs.tensors()]
        if not self._files:
            self._form = outputs.filled([tensor[:0] for tensor in outputs.tensors()])
            self._open([tensor.shape[1:] for tensor in tensors])
        for store, tensor in zip(self._stores(), tensors, strict=True):
            store[rows] = tensor
        self._known[rows] = True

    def _rounded(self, tensor: Tensor) -> NDArray[np.floating[Any]]:
        whole = tensor.float().cpu().numpy()
        largest = float(np.abs(whole).max(initial=0))
        if self.kind is np.float16 and float(np.finfo(np.float16).max) < largest < math.inf:
            raise TrainingError(
                f"the teacher's outputs reach {largest:g}, beyond half precision; set the teacher's cache to fp32"
            )
        return whole.astype(self.kind)

    @property
    def bytes(self) -> int:
        return sum(_size(self.kind, shape) for _, shape in self._files)

    def _open(self, shapes: list[tuple[int, ...]]) -> None:
        """Make one file for each tensor; where one is not what it was, nothing is known any more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = [self.folder / f"{number}.cache" for number in range(len(shapes))]
        sizes = [_size(self.kind, (self.rows, *shape)) for shape in shapes]
        if not all(file.exists() and file.stat().st_size == size for file, size in zip(files, sizes, strict=True)):
            (self.folder / "known.bool").unlink(missing_ok=True)
        self._files = [(file, (self.rows, *shape)) for file, shape in zip(files, shapes, strict=True)]
        for file, shape in self._files:
            _map(file, self.kind, shape)
        self._known = _map(self.folder / "known.bool", np.bool_, (self.rows,))

    def _stores(self) -> list[NDArray[np.floating[Any]]]:
        """Map the files, for one batch: a map that is kept grows with all that was read through it."""
        return [np.memmap(file, dtype=self.kind, mode="r+", shape=shape) for file, shape in self._files]


def _size(dtype: type[np.generic], shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)


def _map(path: Path, dtype: type[Scalar], shape: tuple[int, ...]) -> NDArray[Scalar]:
    """Map a file of this shape, keeping what it holds if it has the right size; else its room is taken at once."""
    size = _size(dtype, shape)
    if not path.exists() or path.stat().st_size != size:
        try:
            with path.open("wb") as file:
                for start in range(0, size, len(_ZEROS)):
                    file.write(_ZEROS[: size - start])
        except OSError as error:
            path.unlink(missing_ok=True)
            raise TrainingError(
                f"no room to cache the teacher's outputs: {path} needs {size:,} bytes ({error.strerror}); "
                "free some, lower data.variants, or set teacher.cache=false"
            ) from error
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)
