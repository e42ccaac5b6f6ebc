"""Photographs given on the command line: which files are meant, and the detections in each."""

import glob
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from featherpress.compress.data import decode_image
from featherpress.compress.data.images import decode_within, image_size
from featherpress.compress.data.sources.image_files import warn_of_unread
from featherpress.compress.evaluation.detections import Detections
from featherpress.compress.evaluation.detector.inference import detect_batch, grouped_by_size
from featherpress.compress.evaluation.detector.render import may_replace
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.compress.evaluation.detector.tiling import Tiling, detect_tiled
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError, UsageError
from featherpress.files import resolve
from featherpress.models import Detector
from featherpress.records.run import DetectedFace, DetectedImage

logger = logging.getLogger("featherpress")

SUFFIXES = frozenset(
    ".avif .bmp .gif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()  # noqa: SIM905
)
"""What counts as an image in a folder; a file that is named itself is opened whatever it is called."""

PIXELS = 3 << 20
"""Photographs of more pixels are searched scaled down to so many, unless in tiles: 48 megapixels would take 3 GB."""
_LARGEST = 1 << 29
"""So many pixels are read of a photograph that was named: three times what Pillow takes to be an attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """An image file, and its place below the folder that was named, or its own name."""

    path: Path
    place: Path


def find_photographs(
    named: Sequence[Path],
    *,
    recursive: bool = False,
    leave_out: Path | None = None,
    passed_over: list[Path] | None = None,
) -> list[Photograph]:
    """List the photographs that arguments name: files, the images in folders, the matches of patterns; each once.

    Folders in folders are searched if `recursive`. Hidden files and files in `leave_out` are never listed. Photographs
    in folders in a format that is not read are added to `passed_over`.
    Errors: UsageError where something does not exist, or holds no image.
    """
    chosen: dict[Path, Photograph] = {}
    without = resolve(leave_out) if leave_out else None
    unread: dict[Path, None] = {}
    for name in named:
        photographs = list(_matching(name, recursive=recursive, unread=unread))
        if not photographs:
            hint = "" if recursive else "; --recursive searches the folders in it"
            raise UsageError(f"expected images in {name}, found none{hint if name.is_dir() else ''}")
        for each in photographs:
            if without is None or not name.is_dir() or not resolve(each.path).is_relative_to(without):
                chosen.setdefault(each.path, each)
    if passed_over is not None:
        passed_over += unread
    return list(chosen.values())


def _matching(name: Path, *, recursive: bool, unread: dict[Path, None]) -> Iterator[Photograph]:
    if name.is_dir():
        files = [path for path in sorted(name.rglob("*") if recursive else name.iterdir()) if path.is_file()]
        places = [path.relative_to(name) for path in files]
        places = [place for place in places if not any(part.startswith(".") for part in place.parts)]
        unread |= dict.fromkeys(warn_of_unread([name / place for place in places], name))
        for place in places:
            if place.suffix.lower() in SUFFIXES:
                yield Photograph(path=name / place, place=place)
    elif name.exists():
        yield Photograph(path=name, place=Path(name.name))
    elif glob.has_magic(str(name)):
        for path in map(Path, sorted(glob.glob(str(name), recursive=True))):  # noqa: PTH207 (patterns may be absolute)
            if path.is_file():
                yield Photograph(path=path, place=Path(path.name))
    else:
        raise UsageError(f"expected an image, a folder or a pattern, found nothing at {name}")


def drawing_paths(photographs: Sequence[Photograph], out: Path) -> list[Path]:
    """Return the path of each drawing: that of the image with the suffix .png, appended where two would clash."""
    places = [each.place.with_suffix(".png") for each in photographs]
    return [
        out / (each.place.with_name(each.place.name + ".png") if places.count(place) > 1 else place)
        for each, place in zip(photographs, places, strict=True)
    ]


def keep_apart(photographs: Sequence[Photograph], targets: Sequence[Path]) -> list[Path]:
    """Return where each is drawn so that nothing but its own earlier drawing is replaced: numbered from 2 on."""
    taken, chosen = {*targets}, []
    for each, target in zip(photographs, targets, strict=True):
        numbered = (target.with_name(f"{target.stem}-{number}.png") for number in itertools.count(2))
        free = itertools.chain([target], (path for path in numbered if path not in taken))
        chosen.append(next(path for path in free if may_replace(path, each.path)))
        taken.add(chosen[-1])
    return chosen


def detect_photographs(
    model: Detector,
    photographs: Sequence[Photograph],
    *,
    settings: DetectionSettings,
    tiling: Tiling | None = None,
    batch: int = 1,
) -> Iterator[tuple[int, Tensor, Detections]]:
    """Yield each photograph's index, pixels and detections as they are done.

    Up to `batch` images of one size, or tiles of one image, go through the model together. An image that cannot be read
    is left out with a warning. One of more than PIXELS is scaled down to them, with a warning unless the settings scale
    it anyway; tiles see it as it is.
    Errors: DataError where none can be read.
    """
    readable = _readable(photographs, 0 if tiling else max(PIXELS, settings.long_side**2), settings.long_side == 0)
    if tiling is not None:
        for number, image in readable:
            count = len(tiling.corners(*image.shape[-2:]))
            with Progress(photographs[number].path.name, total=count) as bar:
                detections = detect_tiled(
                    model, image, settings=settings, tiling=tiling, batch=batch, advance=bar.advance
                )
            yield number, image, detections
        return
    with Progress("detecting", total=len(photographs)) as progress:
        for group, images in grouped_by_size(readable, lambda each: each[1], batch=batch):
            detected = detect_batch(model, images, settings=settings)
            for (number, image), detections in zip(group, detected, strict=True):
                yield number, image, detections
                progress.advance()


def _readable(photographs: Sequence[Photograph], pixels: int, warn: bool) -> Iterator[tuple[int, Tensor]]:
    broken: list[DataError] = []
    for number, each in enumerate(photographs):
        try:
            with _any_size():
                size = image_size(each.path)
                image = decode_within(each.path, pixels) if pixels else decode_image(each.path)
        except DataError as error:
            broken.append(error)
            if len(broken) == len(photographs):
                raise
            if len(photographs) > 1:
                logger.warning("left out: %s", error)
            continue
        if warn and pixels and math.prod(size) > pixels:
            logger.warning(
                "photographs of more than %.1f megapixels are scaled down to that, as %s; --tile 1024 searches them as "
                "they are",
                pixels / 1e6,
                each.path,
            )
            warn = False
        yield number, image


@contextmanager
def _any_size() -> Iterator[None]:
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _LARGEST // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def record_faces(photograph: Photograph, image: Tensor, detections: Detections) -> DetectedImage:
    """Put what was found in a photograph on record, in its own pixels where it was searched scaled down."""
    with _any_size():
        width, height = image_size(photograph.path)
    seen = image.shape[-1], image.shape[-2]
    back = detections.scaled(np.array([width / seen[0], height / seen[1]]))
    found = zip(back.boxes.tolist(), back.scores.tolist(), back.landmarks.tolist(), strict=True)
    faces = tuple(DetectedFace(box=box, score=score, landmarks=landmarks) for box, score, landmarks in found)
    scaled = {"searched_at": seen} if seen != (width, height) else {}
    return DetectedImage(file=str(photograph.path), width=width, height=height, faces=faces, **scaled)
