"""Images that are in both splits: the same file, or a near copy."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featherpress.compress.data.sources.labelled import LabelledFolder
from featherpress.compress.data.subsets import origin
from featherpress.files import hash_file

NEAR_BITS = 3
"""Of 64 bits of the perceptual hash, at most so many differ between near copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """Pairs of a validation and a training image: `same` files, and `near` copies that are not."""

    same: tuple[tuple[str, str], ...] = ()
    near: tuple[tuple[str, str], ...] = ()


def find_leaks(training: Any, validation: Any) -> Leaks:
    """Look for validation images among the training images; data that is drawn has none.

    Files of one size are hashed, and every image is reduced to 64 bits.
    """
    ours, theirs = image_files(training), image_files(validation)
    if not ours or not theirs:
        return Leaks()
    same = _same_files(ours, theirs)
    known = {name for name, _ in same}
    rest = [path for path in theirs if str(path) not in known]
    return Leaks(same=same, near=_near_copies(ours, rest))


def image_files(dataset: Any) -> list[Path]:
    """List the image files of a data set; none for pictures that are drawn."""
    origins = (origin(dataset, index) for index in range(len(dataset)))
    return [
        base.file(row) if hasattr(base, "file") else base.images / base.name(row)
        for base, row in origins
        if hasattr(base, "file") or isinstance(base, LabelledFolder)
    ]


def _same_files(training: Sequence[Path], validation: Sequence[Path]) -> tuple[tuple[str, str], ...]:
    """Pair files of equal content; only those of a size that the other split has too are read."""
    ours, theirs = ({path: path.stat().st_size for path in paths if path.is_file()} for paths in (training, validation))
    shared = {*ours.values()} & {*theirs.values()}
    known = {hash_file(path): str(path) for path, size in reversed(ours.items()) if size in shared}
    hashes = {str(path): hash_file(path) for path, size in theirs.items() if size in shared}
    return tuple((name, known[content]) for name, content in hashes.items() if content in known)


def _near_copies(training: Sequence[Path], validation: Sequence[Path]) -> tuple[tuple[str, str], ...]:
    with ThreadPoolExecutor() as pool:
        hashed = [zip(paths, pool.map(difference_hash, paths), strict=True) for paths in (training, validation)]
        ours, theirs = ([(path, bits) for path, bits in pairs if bits is not None] for pairs in hashed)
    if not ours or not theirs:
        return ()
    table = np.array([bits for _, bits in ours])
    pairs = []
    for path, bits in theirs:
        apart = np.count_nonzero(table != bits, axis=1)
        nearest = int(apart.argmin())
        if apart[nearest] <= NEAR_BITS:
            pairs.append((str(path), str(ours[nearest][0])))
    return tuple(pairs)


def difference_hash(path: Path) -> NDArray[np.bool_] | None:
    """Reduce an image to 64 bits: whether each of 8 x 8 places is brighter than its right neighbour.

    None for an image that cannot be read, or is of one tone, so that its bits say nothing.
    """
    try:
        with Image.open(path) as image:
            image.draft("L", (72, 64))
            grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    bits = grey[:, :-1] > grey[:, 1:]
    return bits.ravel() if 8 <= np.count_nonzero(bits) <= 56 else None
