"""The decoder: every mode, orientation, and broken files."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from featherpress.compress.data import decode_image, images
from featherpress.compress.data.images import decode_reduced, decode_within, image_orientation, image_size, open_image
from featherpress.errors import DataError

COLOUR = (200, 100, 50)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def mean(image: torch.Tensor) -> list[float]:
    return image.float().mean(dim=(1, 2)).tolist()


@pytest.mark.parametrize(
    ("mode", "suffix", "expected"),
    [
        ("RGB", "png", COLOUR),
        ("RGB", "jpg", COLOUR),
        ("RGB", "webp", COLOUR),
        ("CMYK", "jpg", COLOUR),
        ("P", "png", COLOUR),
        ("RGBA", "png", COLOUR),
        ("L", "png", (124, 124, 124)),
        ("LA", "png", (124, 124, 124)),
        ("1", "png", (124, 124, 124)),
        ("L", "jpg", (124, 124, 124)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str, expected: tuple[int, int, int]) -> None:
    """Grey, palette, transparent and CMYK files all give the colour that they show."""
    path = saved(Image.new("RGB", (40, 30), COLOUR).convert(mode), tmp_path / f"image.{suffix}")
    image = decode_image(path)
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.uint8
    assert mean(image) == pytest.approx(expected, abs=6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    """A 16-bit ramp keeps its order and its ends."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(8, axis=0)
    image = decode_image(saved(Image.fromarray(ramp), tmp_path / f"ramp.{suffix}"))
    row = image[0, 0].tolist()
    assert (row[0], row[-1]) == (0, 255)
    assert row == sorted(row)
    assert len(set(row)) == 64


def test_floats_are_read_as_shares_of_white(tmp_path: Path) -> None:
    """A float TIFF within [0, 1] spans black to white."""
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert decode_image(saved(Image.fromarray(values), tmp_path / "f.tif"))[1].tolist() == [[0, 127, 255]]


def test_transparency_shows_white(tmp_path: Path) -> None:
    """What is transparent is white, not whatever colour hides behind it."""
    assert mean(decode_image(saved(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), tmp_path / "t.png"))) == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "png"), ("RGB", "tif"), ("CMYK", "tif"), ("L", "tif")])
def test_images_are_upright(tmp_path: Path, orientation: int, mode: str, suffix: str) -> None:
    """All eight EXIF orientations come out with the bright corner where a viewer shows it, TIFFs of any kind too."""
    image = Image.new("RGB", (32, 16), "black")
    image.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(image.convert(mode), tmp_path / f"e.{suffix}", exif=exif)
    pixels = decode_image(path)
    assert pixels.shape == ((3, 16, 32) if orientation < 5 else (3, 32, 16))
    assert image_size(path) == (pixels.shape[2], pixels.shape[1])
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert pixels[:, row, column].tolist() == [255, 255, 255]
    assert int((pixels[0] == 255).sum()) == 64


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp"])
@pytest.mark.parametrize("lenient", [False, True])
def test_a_file_cut_short_is_refused(
    tmp_path: Path, suffix: str, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file is an error in one sentence, even where someone told Pillow to be lenient."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"cut.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"expected a whole image in .*cut") as caught:
        decode_image(path)
    assert "\n" not in str(caught.value)
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n" + b"\0" * 64])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """What is no image, or only its first bytes, is an error."""
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.jpg"):
        decode_image(path)


@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "a.nef"])
def test_photographs_that_are_not_read_are_to_be_converted(tmp_path: Path, name: str) -> None:
    """By suffix, or by its head where it is called something else; a file that is gone is not meant."""
    (tmp_path / name).write_bytes(b"nothing" if name == "a.nef" else b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(DataError, match="in a format that is not, as HEIC and RAW: convert it to JPEG or PNG"):
        decode_image(tmp_path / name)


def test_colours_of_floats_are_to_be_converted(tmp_path: Path) -> None:
    """A TIFF of three floats a pixel is told by that; one that breaks off before it says so is broken, in silence."""
    entries = [(256, 2), (257, 2), (258, 32), (259, 1), (262, 2), (273, 8), (277, 3), (278, 2), (279, 48), (339, 3)]
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries)
    content = struct.pack("<4sI48xH", b"II*\0", 56, len(entries)) + tags + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match="a TIFF of 3 floats of 32 bits a pixel: convert it to JPEG or PNG"):
        decode_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(content[:70])
    with pytest.raises(DataError, match="no image format Pillow knows: replace or remove it"):
        decode_image(tmp_path / "a.tif")


def test_missing_files_are_told_from_folders(tmp_path: Path) -> None:
    """The error says whether nothing or a folder was found."""
    with pytest.raises(DataError, match="found nothing there"):
        decode_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="found a folder there"):
        decode_image(tmp_path)


def test_what_pillow_only_warns_of_is_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph that Pillow finds suspiciously large is read in silence, one that it refuses is an error."""
    path = saved(Image.new("RGB", (40, 30), COLOUR), tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode_image(path).shape == (3, 30, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match=r"more than 1,000 pixels: scale it down, or raise"):
        decode_image(path)


RAMP = np.linspace(0, 1, 4096).reshape(64, 64)


@pytest.mark.parametrize("late", [False, True])
def test_the_size_of_a_png_is_read_without_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    """Its orientation too, though that may lie behind them; Pillow would decode the whole image first."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.new("RGB", (40, 30)), tmp_path / "lying.png", exif=exif)
    if late:
        content = path.read_bytes()
        first = content.index(b"eXIf") - 4
        last = first + 12 + int.from_bytes(content[first : first + 4], "big")
        end = content.index(b"IEND") - 4
        path.write_bytes(content[:first] + content[last:end] + content[first:last] + content[end:])
    assert decode_image(path).shape == (3, 40, 30)
    plain = saved(Image.new("RGB", (40, 30)), tmp_path / "plain.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    assert (image_size(path), image_size(plain)) == ((30, 40), (40, 30))
    assert (image_orientation(path), image_orientation(plain)) == (6, 1)


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ((7000 + 2040 * RAMP).astype(np.uint16), 255),
        ((7000 + 100 * RAMP).astype(np.uint16), 255),
        ((16383 * RAMP).astype(np.uint16), 255),
        (np.where(RAMP == 1, 65535, 4095 * RAMP).astype(np.uint16), 255),  # with a pixel that is broken
        ((255 * RAMP).astype(np.uint16), 255),
        (np.full((64, 64), 40000, np.uint16), 0),
        ((1e6 * RAMP).astype(np.int32), 255),
        ((0.1 * RAMP).astype(np.float32), 255),
        ((4095 * RAMP).astype(np.float32), 255),
        ((RAMP - 0.5).astype(np.float32), 255),
        (np.where(RAMP == 1, np.nan, RAMP).astype(np.float32), 254),
        (np.where(RAMP == 1, np.inf, RAMP).astype(np.float32), 255),
        (np.where(RAMP == 0, -np.inf, 200 * RAMP).astype(np.float32), 200),
    ],
)
def test_what_leaves_its_range_or_uses_little_of_it_is_stretched(
    tmp_path: Path, values: np.ndarray, levels: int
) -> None:
    """What a camera of 12 or 14 bits writes spans all levels, and one value that is none turns nothing black."""
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = decode_image(tmp_path / "a.tif")
    assert int(image.max()) - int(image.min()) == levels
    assert int(image.max()) > 100


def test_without_a_finite_value_there_is_no_picture(tmp_path: Path) -> None:
    """Floats that are all nan are refused."""
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="no value that is finite"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("most", "read"), [(65535, True), (16383, False), (4095, False)])
def test_colours_of_16_bits_are_read_or_refused(tmp_path: Path, most: int, *, read: bool) -> None:
    """Of 16-bit colours Pillow reads the upper eight bits, which in a file of 12 or 14 bits are nearly empty."""
    colours = (RAMP[..., None] * most).astype(">u2").repeat(3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in colours)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    if read:
        assert int(decode_image(tmp_path / "a.png").max()) == 255
    else:
        with pytest.raises(DataError, match="16-bit colours that leave the upper two bits empty"):
            decode_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_large_images_are_read_scaled_down(tmp_path: Path, suffix: str) -> None:
    """At most so many pixels, upright, in the same proportions; a small one is read as it is."""
    image = Image.new("RGB", (400, 200), "black")
    image.paste("white", (0, 0, 100, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(image, tmp_path / f"a.{suffix}", exif=exif)
    small = decode_within(path, 5000)
    assert small.shape == (3, 100, 50)
    assert int(small[0, :24].min()) > 200
    assert int(small[0, 26:].max()) < 50
    assert torch.equal(decode_within(path, 80000), decode_image(path))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_scaling_down_by_rows_is_scaling_down(tmp_path: Path, mode: str) -> None:
    """What is made some rows at a time is what is made at once, to a level."""
    seed = np.random.default_rng(0)
    if mode == "I;16":
        small = Image.fromarray(seed.integers(0, 255, (30, 40), dtype=np.uint8)).resize((800, 600))
        image = Image.fromarray(np.asarray(small).astype(np.uint16) * 257)
    else:
        image = Image.fromarray(seed.integers(0, 255, (30, 40, len(mode)), dtype=np.uint8), mode).resize((800, 600))
    path = saved(image, tmp_path / "a.png")
    whole = Image.fromarray(decode_image(path).permute(1, 2, 0).numpy())
    expected = np.asarray(whole.resize((400, 300), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(decode_within(path, 120000).numpy().astype(int) - expected).max() <= 1


GROWTH = """
import resource, sys
from pathlib import Path
from featherpress.compress.data.images import decode_within
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
decode_within(Path(sys.argv[1]), 1000)
before = peak()
decode_within(Path(sys.argv[2]), 1 << 20)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
@pytest.mark.parametrize(("mode", "pixel"), [("RGB", 4), ("RGBA", 4), ("I;16", 6)])
def test_a_large_image_is_in_memory_once(tmp_path: Path, mode: str, pixel: int) -> None:
    """Reading 24 megapixels scaled down takes what Pillow decodes them to and little more, no copy of the whole."""
    large = saved(Image.new(mode, (6000, 4000)), tmp_path / "large.png", compress_level=1)
    small = saved(Image.new(mode, (60, 40)), tmp_path / "small.png")
    done = subprocess.run([sys.executable, "-c", GROWTH, small, large], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 24 * pixel + 40


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}], ids=str)
def test_torchvision_decodes_what_pillow_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, int]
) -> None:
    """A plain JPEG comes from torchvision's decoder with Pillow's values, three of a pixel side by side."""
    noise = np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((122, 90)).save(tmp_path / "plain.jpg", **options)
    with open_image(tmp_path / "plain.jpg") as image:
        assert images._decode_plain(image) is not None
    fast, _ = decode_reduced(tmp_path / "plain.jpg", 0, channels_last=True)
    assert fast.stride() == (1, 3 * 122, 3)
    monkeypatch.setattr(images, "_decode_plain", lambda _image: None)
    slow, _ = decode_reduced(tmp_path / "plain.jpg", 0, channels_last=True)
    assert slow.stride() == fast.stride()
    assert torch.equal(fast, slow)
    assert torch.equal(fast, decode_image(tmp_path / "plain.jpg"))
