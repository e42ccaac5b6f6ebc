"""Images with masks: layouts, what a mask may hold, and what is said of the rest."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featherpress.compress.data.leaks import find_leaks
from featherpress.compress.data.sources.labelled import require_sound
from featherpress.compress.data.sources.masks import IGNORED, MaskFolder
from featherpress.compress.data.subsets import join, left_out
from featherpress.errors import DataError

ROTATED, TURNED_TWICE = 6, 3  # EXIF's numbers


def save_image(path: Path, height: int = 6, width: int = 9, *, orientation: int = 1) -> None:
    """Save a picture whose left half is red, turned when it is shown by this orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def save_mask(path: Path, values: Any, *, mode: str = "L") -> None:
    """Save class numbers as a grey or a palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image.putpalette([each for number in range(256) for each in (number, 255 - number, 7)])
    image.save(path)


def halves(height: int = 6, width: int = 9) -> Any:
    """Class 2 on the left half, 1 on the right."""
    values = np.ones((height, width), np.uint8)
    values[:, : width // 2] = 2
    return values


def pair(root: Path, name: str = "a", values: Any = None, *, mode: str = "L", **image: Any) -> None:
    save_image(root / "train" / "images" / f"{name}.png", **image)
    save_mask(root / "train" / "masks" / f"{name}.png", halves() if values is None else values, mode=mode)


def first_mask(folder: MaskFolder) -> list[list[int]]:
    mask = folder[0].target["masks"]
    assert mask.dtype == torch.uint8
    return [[int(each) for each in row] for row in mask]


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_mask_holds_class_numbers(tmp_path: Path, mode: str) -> None:
    """Of a palette PNG the indices count, not the colours; what is to be ignored is 255 whatever the file says."""
    values = halves()
    values[0, 0] = 11
    pair(tmp_path, values=values, mode=mode)
    folder = MaskFolder(tmp_path, "train", classes=3, ignore=11)
    expected = values.copy()
    expected[0, 0] = IGNORED
    assert first_mask(folder) == expected.tolist()
    assert (folder.name(0), len(folder), folder[0].name) == ("a.png", 1, "a.png")
    assert folder[0].image.shape == (3, 6, 9)


def voc(root: Path) -> None:
    save_image(root / "JPEGImages" / "x.jpg")
    save_image(root / "JPEGImages" / "unlisted.jpg")
    save_mask(root / "SegmentationClass" / "x.png", halves(), mode="P")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("x\n\n")


def cityscapes(root: Path, *, kind: str = "labelIds", values: Sequence[int] = (26, 7, 0)) -> None:
    save_image(root / "leftImg8bit" / "train" / "bonn" / "bonn_0_leftImg8bit.png", 1, 3)
    save_mask(root / "gtFine" / "train" / "bonn" / f"bonn_0_gtFine_{kind}.png", [values])


def test_layouts(tmp_path: Path) -> None:
    """VOC's lists say which images count; Cityscapes' numbers become those of the 19 classes, 255 all others."""
    voc(tmp_path / "voc")
    folder = MaskFolder(tmp_path / "voc", "train", layout="voc", classes=21)
    assert (len(folder), folder.name(0)) == (1, "x.jpg")
    assert first_mask(folder) == halves().tolist()
    cityscapes(tmp_path / "ids")
    ids = MaskFolder(tmp_path / "ids", "train", layout="cityscapes", classes=19)
    assert ids.name(0) == "bonn/bonn_0_leftImg8bit.png"
    assert first_mask(ids) == [[13, 0, 255]]
    cityscapes(tmp_path / "trained", kind="labelTrainIds", values=(13, 0, 255))
    cityscapes(tmp_path / "trained")
    assert first_mask(MaskFolder(tmp_path / "trained", "train", layout="cityscapes", classes=19)) == [[13, 0, 255]]


def test_what_is_upright(tmp_path: Path) -> None:
    """Image and mask are turned alike: a mask as stored with its image, one drawn upright, one with EXIF of its own."""
    for name, values in {"stored": halves(), "upright": np.rot90(halves(), -1)}.items():
        pair(tmp_path / name, values=values, orientation=ROTATED)
        example = MaskFolder(tmp_path / name, "train", classes=3)[0]
        assert example.image.shape == (3, 9, 6)
        assert (example.image[0] == 255).equal(example.target["masks"] == 2), name
    save_image(tmp_path / "own" / "train" / "images" / "a.png", orientation=TURNED_TWICE)
    mask = tmp_path / "own" / "train" / "masks" / "a.png"
    save_mask(mask, halves())
    exif = Image.Exif()
    exif[0x0112] = TURNED_TWICE
    Image.open(mask).save(mask, exif=exif)
    example = MaskFolder(tmp_path / "own", "train", classes=3)[0]
    assert (example.image[0] == 255).equal(example.target["masks"] == 2)


def test_what_cannot_be_used_is_said_with_its_file(tmp_path: Path) -> None:
    """A class out of range, another size, no mask, no image, colours: one sentence that names the file."""
    wrong = halves()
    wrong[4, 3] = 7
    pair(tmp_path, "a", wrong)
    pair(tmp_path, "b", halves(9, 6))
    pair(tmp_path, "c")
    (tmp_path / "train" / "masks" / "c.png").unlink()
    pair(tmp_path, "d")
    (tmp_path / "train" / "images" / "d.png").write_text("no image")
    pair(tmp_path, "e")
    save_image(tmp_path / "train" / "masks" / "e.png")
    pair(tmp_path, "f")
    (tmp_path / "train" / "masks" / "f.png").write_bytes((tmp_path / "train" / "masks" / "a.png").read_bytes()[:60])
    folder = MaskFolder(tmp_path, "train", classes=3)
    words = [
        r"masks/a\.png: expected classes from 0 to 2, or 255 for what is ignored, got 7 at row 4, column 3",
        r"masks/b\.png: the mask is 6 x 9 pixels, its image .*images/b\.png 9 x 6",
        r"expected the mask of .*images/c\.png at .*masks/c\.png, found nothing there",
        r"expected a whole image in .*images/d\.png, got something that is no image",
        r"masks/e\.png: expected a palette or grey PNG .* got colours \(RGB\)",
        r"expected a whole image in .*masks/f\.png",
    ]
    for index, sentence in enumerate(words):
        for look in (folder.check, folder.__getitem__):
            with pytest.raises(DataError, match=sentence) as raised:
                look(index)
            assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=r"masks/a\.png.*; 5 more of 6 images cannot be used"):
        require_sound(join(folder))


def test_a_value_of_many_bits_is_out_of_range_too(tmp_path: Path) -> None:
    """A grey PNG of 16 bits is read as it is, so that 256 is not taken for 0."""
    pair(tmp_path)
    Image.fromarray(np.full((6, 9), 256, np.uint16)).save(tmp_path / "train" / "masks" / "a.png")
    with pytest.raises(DataError, match="got 256 at row 0"):
        MaskFolder(tmp_path, "train", classes=3).check(0)


@pytest.mark.parametrize(("bits", "row"), [(2, b"\x1b"), (4, b"\x01\x23")])
def test_values_of_few_bits_are_read_as_they_are(tmp_path: Path, bits: int, row: bytes) -> None:
    """Grey PNGs of two and of four bits hold class numbers, not shades that are scaled up to 255."""
    pair(tmp_path, height=1, width=4)
    head = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + zlib.compress(b"\0" + row), b"IEND")
    (tmp_path / "train" / "masks" / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    )
    assert first_mask(MaskFolder(tmp_path, "train", classes=4)) == [[0, 1, 2, 3]]


def test_a_list_is_read_line_by_line(tmp_path: Path) -> None:
    """Of VOC's: Latin-1, a mark in front and names with spaces are read, and one that comes twice is refused."""
    voc(tmp_path)
    listed = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    for content in ("\ufeffü b\r\nx\n".encode(), "ü b\nx".encode("latin-1")):
        listed.write_bytes(content)
        folder = MaskFolder(tmp_path, "train", layout="voc", classes=21)
        assert [folder.name(row) for row in range(len(folder))] == ["ü b.jpg", "x.jpg"]
    listed.write_text("x\ny\nx\n")
    with pytest.raises(DataError, match=r"train\.txt, line 3: expected a new image, got 'x' a second time"):
        MaskFolder(tmp_path, "train", layout="voc", classes=21)


def test_a_mask_is_of_one_image(tmp_path: Path) -> None:
    """Two images of one name but for the suffix would be taught the same mask."""
    pair(tmp_path)
    pair(tmp_path, "b")
    save_image(tmp_path / "train" / "images" / "a.bmp")
    with pytest.raises(DataError, match=r"train/images: expected one image for a mask, got 'a\.bmp' and 'a\.png'"):
        MaskFolder(tmp_path, "train", classes=3)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    """Masks without an image and files that are no images are counted by where they lie; hidden files are nobody's."""
    pair(tmp_path)
    save_mask(tmp_path / "train" / "masks" / "lonely.png", halves())
    for name in ("notes.txt", "list.csv", ".DS_Store"):
        (tmp_path / "train" / "images" / name).write_text("")
    folder = MaskFolder(tmp_path, "train", classes=3)
    assert len(folder) == 1
    assert left_out(join(folder, folder), folder) == {
        f"files in {tmp_path}/train/images that are no images": 2,
        f"masks in {tmp_path}/train/masks without an image": 1,
    }


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("folders", r"expected a folder of images at .*train/images"),
        ("voc", r"expected a list of images at .*ImageSets/Segmentation/train\.txt"),
        ("cityscapes", r"expected a folder of train at .*leftImg8bit/train"),
    ],
)
def test_nothing_there(tmp_path: Path, layout: Any, words: str) -> None:
    """Where a layout's folder is not there, the sentence names what was looked for."""
    with pytest.raises(DataError, match=words):
        MaskFolder(tmp_path, "train", layout=layout, classes=3)
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "masks").mkdir()
    if layout == "folders":
        with pytest.raises(DataError, match=r"expected images in .*train/images, found none"):
            MaskFolder(tmp_path, "train", classes=3)


def test_leaks_between_splits_are_found(tmp_path: Path) -> None:
    """An image with a mask is looked for in the other split like any other."""
    pair(tmp_path)
    folder = MaskFolder(tmp_path, "train", classes=3)
    image = str(tmp_path / "train" / "images" / "a.png")
    assert find_leaks(folder, folder).same == ((image, image),)
