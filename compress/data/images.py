"""Image files to tensors: one decoder for every mode and orientation, strict about broken files."""

import ctypes
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torchvision  # noqa: F401 (brings torch.ops.image)
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from torch import Tensor

from featherpress.errors import DataError

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow's decoders raise on files that are cut short, corrupt or of no known kind."""

UNREAD = frozenset(".arw .cr2 .cr3 .dng .heic .heif .jxl .nef .orf .raf .rw2".split())  # noqa: SIM905
"""Suffixes of photographs that Pillow does not read."""

_UNREAD_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"crx ")
"""How the heads of HEIC and CR3 files go on after `ftyp`, whatever the files are called."""
_TIFF_HEADS = (b"II*\0", b"MM\0*")
_SAMPLE_FORMATS = {2: "signed integers", 3: "floats"}
_BITS, _SAMPLES, _FORMAT = 0x0102, 0x0115, 0x0153
_WIDTH, _LENGTH, _ORIENTATION = 0x0100, 0x0101, 0x0112
_ROWS = 64  # of a large image that are worked on at a time
_END_OF_JPEG, _RGB = b"\xff\xd9", 3  # as torchvision numbers the modes
_PNG_HEAD = 8  # bytes before the first chunk


def decode_image(path: Path | str) -> Tensor:
    """Read an image file as uint8 RGB, upright by its EXIF orientation, transparency laid over white.

    Shapes: -> (3, H, W).
    Errors: DataError where the file is missing, cut short, corrupt or not an image.
    """
    return decode_reduced(path, 0)[0]


def decode_reduced(path: Path | str, side: int, *, channels_last: bool = False) -> tuple[Tensor, int]:
    """Read an image file as `decode_image` does, a JPEG 2, 4 or 8 times smaller if its short side stays `side` or more.

    Much is saved: at an eighth most of the transform is not even computed. Sides are rounded up. With `channels_last`
    the three values of a pixel lie side by side, as files have them, which are resized faster, to the same values.

    Shapes: -> (3, H / factor, W / factor), and the factor, 1 for other files and for a `side` of 0.
    Errors: as `decode_image`.
    """
    factor = 1
    with open_image(Path(path)) as image:
        if side and image.format == "JPEG":
            width, height = image.size
            factor = next((each for each in (8, 4, 2) if min(image.size) // each >= side), 1)
            image.draft(None, (width // factor, height // factor))
        pixels = _decode_plain(image) if factor == 1 else None
        if pixels is None:
            pixels = _to_tensor(_load_rgb(image), torch.preserve_format if channels_last else torch.contiguous_format)
    return pixels if channels_last else pixels.contiguous(), factor


def decode_within(path: Path | str, pixels: int) -> Tensor:
    """Read an image file as `decode_image` does, scaled down to at most so many pixels where it has more.

    A large JPEG is never decoded at its full size.

    Shapes: -> (3, H, W).
    Errors: as `decode_image`.
    """
    shown = _decode_shrunk(Path(path), pixels)
    if shown is None:
        return decode_image(path)
    _give_back()
    return shown


def _decode_shrunk(path: Path, pixels: int) -> Tensor | None:
    """Decode an image file of more than so many pixels, scaled down to them; None for a smaller one.

    Shapes: -> (3, H, W).
    """
    with open_image(path) as image:
        scale = math.sqrt(pixels / math.prod(image.size))
        if scale >= 1:
            return None
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        loaded, orientation = _load(image)
        scale = math.sqrt(pixels / math.prod(loaded.size))
        width, height = (max(int(side * scale), 1) for side in loaded.size)
        return _to_tensor(_turned(_shrink(loaded, width, height), orientation))


def _give_back() -> None:
    """Return freed memory to the system, for what comes next; Linux keeps blocks as large as Pillow's otherwise."""
    with suppress(OSError, AttributeError, TypeError):  # another system
        ctypes.CDLL(None).malloc_trim(0)


def _shrink(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale an image down as RGB, some rows at a time: of the whole there is never a second copy."""
    shrunk, step = Image.new("RGB", (width, height)), image.height / height
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        # The filter looks a step beyond what it makes.
        first, last = max(int((top - 1) * step) - 1, 0), min(math.ceil((bottom + 1) * step) + 1, image.height)
        rows = _flatten(image.crop((0, first, image.width, last)))
        box = (0, top * step - first, image.width, bottom * step - first)
        shrunk.paste(rows.resize((width, bottom - top), Image.Resampling.BILINEAR, box=box), (0, top))
    return shrunk


def image_size(path: Path | str) -> tuple[int, int]:
    """Read width and height of the upright image from the head of its file, without decoding it.

    Errors: DataError where the file is missing or not an image.
    """
    with open_image(Path(path)) as image:
        # Some versions of Pillow turn a TIFF's size already as they open it, and some do not.
        width, height = (
            (image.tag_v2[_WIDTH], image.tag_v2[_LENGTH]) if isinstance(image, TiffImageFile) else image.size
        )
        # Orientations from 5 on lie on their side.
        return (height, width) if _orientation(image) in range(5, 9) else (width, height)


def image_orientation(path: Path | str) -> int:
    """Return how an image is to be turned upright, by EXIF's numbers from 1, as it is, to 8.

    Errors: DataError where the file is missing or not an image.
    """
    with open_image(Path(path)) as image:
        return _orientation(image)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image by one of EXIF's numbers."""
    image.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file; a broken one is a DataError, and what Pillow only warns of is not printed."""
    if not path.is_file():
        raise DataError(f"expected an image at {path}, found {'a folder' if path.is_dir() else 'nothing'} there")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Given a path, Pillow maps plain TIFFs into memory, and scrambles those that lie on their side.
            with path.open("rb") as file, Image.open(file) as image:
                yield image
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(
            f"{path} has more than {most:,} pixels: scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except BROKEN as error:
        known = _unread(path, error)
        if known:
            raise DataError(
                f"expected an image that can be read in {path}, got {known}: convert it to JPEG or PNG"
            ) from error
        raise DataError(f"expected a whole image in {path}, got {_reason(error)}: replace or remove it") from error


def load_strictly(image: Image.Image) -> None:
    """Decode an open image file; one that is cut short is an error, whatever the process has told Pillow."""
    # A library elsewhere in the process may have told Pillow to fill what is missing with grey.
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _decode_plain(image: Image.Image) -> Tensor | None:
    """Decode an open JPEG of RGB that is whole and upright by torchvision; None for any other file.

    The decoder is libjpeg as Pillow's, with the same values, but pixels are not copied three times on their way.
    Shapes: -> (3, H, W), the three values of a pixel side by side.
    """
    plain = image.format == "JPEG" and image.mode == "RGB" and _orientation(image) == 1
    if not plain or not isinstance(image, JpegImageFile) or image.fp is None:
        return None
    image.fp.seek(0)
    content = image.fp.read()
    if not content.endswith(_END_OF_JPEG):  # torchvision would fill what is missing with grey
        return None
    try:
        pixels: Tensor = torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), _RGB)
        return pixels
    except (AttributeError, RuntimeError):  # a torchvision without the decoder, or what Pillow says better
        return None


def _to_tensor(image: Image.Image, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Copy an image of RGB; shapes: -> (3, H, W)."""
    return torch.from_numpy(np.asarray(image)).permute(2, 0, 1).clone(memory_format=layout)


def _orientation(image: Image.Image) -> int:
    if isinstance(image, PngImageFile) and "exif" not in image.info:
        # Pillow would decode the whole image, as these may come after the pixels.
        found = _find_exif(image)
        if found:
            image.info["exif"] = b"Exif\0\0" + found
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    return int(image.getexif().get(_ORIENTATION, 1))


def _find_exif(image: PngImageFile) -> bytes:
    """Read the EXIF values of an open PNG, which stays where it is; empty where it has none or is loaded already."""
    file = image.fp
    if file is None:
        return b""
    before = file.tell()
    file.seek(_PNG_HEAD)
    try:
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return file.read(length)
            file.seek(length + 4, os.SEEK_CUR)  # and the checksum
    finally:
        file.seek(before)
    return b""


def _load_rgb(image: Image.Image) -> Image.Image:
    """Decode an open image file of any of Pillow's modes, upright.

    Errors: as `_load`.
    """
    return _flatten(_turned(*_load(image)))


def _load(image: Image.Image) -> tuple[Image.Image, int]:
    """Decode an open image file, in eight bits; return it as it lies in the file, and how it is to be turned.

    Errors: ValueError for colours of 16 bits that leave the upper bits empty, as Pillow reads no others of them.
    """
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    load_strictly(image)
    orientation = _orientation(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image), orientation
    if deep and _brightest(image if image.mode == "RGB" else image.convert("RGB")) < 64:
        raise ValueError("16-bit colours that leave the upper two bits empty, which would be black")
    return image, orientation


def _brightest(image: Image.Image) -> float:
    return max(high for _, high in cast("tuple[tuple[float, float], ...]", image.getextrema()))


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else turn_upright(image, orientation)


def _flatten(image: Image.Image) -> Image.Image:
    """Lay transparency over white, and turn all but RGB into it."""
    if image.mode in {"La", "RGBa"}:
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduce integers of 16 bits, and floats whose white is 1 or 255, to eight bits.

    What spans less than a quarter of that range or goes beyond it is stretched, but for one value in a thousand at
    either end: cameras of 12 or 14 bits write it. In floats, what is not a number is black.

    Errors: ValueError where no value is finite.
    """
    values = np.asarray(image)
    sample = values.reshape(-1)[:: max(values.size >> 20, 1)].astype(np.float32)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        raise ValueError("no value that is finite")
    low, high = map(float, np.quantile(sample, (0.001, 0.999)))
    whites = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    white = next((each for each in whites if low >= 0 and high <= each), 0.0)
    black = 0.0
    if low < high and high - low < (white / 4 or math.inf):
        white, black = high - low, low
    levels = np.empty(values.shape, np.uint8)
    for first in range(0, len(values), _ROWS):
        rows = (values[first : first + _ROWS].astype(np.float32) - np.float32(black)) * np.float32(255 / (white or 255))
        levels[first : first + _ROWS] = np.nan_to_num(np.clip(rows, 0, 255))
    return Image.fromarray(levels)


def _unread(path: Path, error: BaseException) -> str:
    """Return what a file is that is whole and yet not read; empty for any other."""
    if getattr(error, "errno", None):  # the system's own, not a decoder's
        return ""
    with path.open("rb") as file:
        head = file.read(12)
    if path.suffix.lower() in UNREAD or (head[4:8] == b"ftyp" and head[8:] in _UNREAD_BRANDS):
        return "a photograph in a format that is not, as HEIC and RAW"
    tiff = isinstance(error, UnidentifiedImageError) and head[:4] in _TIFF_HEADS
    return _samples(path) if tiff else ""


def _samples(path: Path) -> str:
    """Return in words what a TIFF's pixels are; empty where it does not say."""
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        kind = _SAMPLE_FORMATS.get(tags.get(_FORMAT, (1,))[0], "integers")
        return f"a TIFF of {tags.get(_SAMPLES, 1)} {kind} of {tags[_BITS][0]} bits a pixel"
    except (*BROKEN, LookupError, TypeError):
        return ""


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "something that is no image format Pillow knows"
    return str(error).rstrip(".") or type(error).__name__
