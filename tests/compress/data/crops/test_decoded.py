"""Decoded images on disk, and images decoded at a reduced size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featherpress.compress.data import Sample, TrainingCrops, WiderFaces
from featherpress.compress.data.crops.decoded import DiskCache
from featherpress.compress.data.images import decode_image, decode_reduced
from featherpress.compress.data.sources.labelled import require_objects
from featherpress.compress.data.sources.unlabelled import LabelledPhotographs, Photographs
from featherpress.compress.data.subsets import join, select
from featherpress.errors import DataError

SIDE = 400


@pytest.fixture
def faces(tmp_path: Path) -> WiderFaces:
    """Three smooth photographs of 800 x 400 pixels with a face each, the second broken."""
    images = tmp_path / "data" / "WIDER_train" / "images"
    images.mkdir(parents=True)
    rows = np.linspace(0, 255, SIDE, dtype=np.float32)[:, None]
    columns = np.linspace(0, 255, 2 * SIDE, dtype=np.float32)[None]
    lines = []
    for number in range(3):
        picture = np.stack([rows + 0 * columns, columns + 0 * rows, 0 * rows + 0 * columns + 60 * number], axis=-1)
        Image.fromarray(picture.astype(np.uint8)).save(images / f"{number}.jpg", quality=95)
        lines += [f"{number}.jpg", "1", f"{100 + number} 40 120 160 0 0 0 0 0 0"]
    (images / "1.jpg").write_bytes((images / "1.jpg").read_bytes()[:900])
    split = tmp_path / "data" / "wider_face_split"
    split.mkdir()
    (split / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return WiderFaces(tmp_path / "data", "train")


@pytest.mark.parametrize(("side", "factor"), [(0, 1), (401, 1), (201, 1), (200, 2), (100, 4), (60, 4), (50, 8), (1, 8)])
def test_large_photographs_are_decoded_smaller(faces: WiderFaces, side: int, factor: int) -> None:
    """A JPEG is halved while its short side stays enough; its faces follow exactly, its pixels to a few levels."""
    whole, small = faces[0], faces.read_downscaled(0, side)
    assert small.image.shape == (3, SIDE // factor, 2 * SIDE // factor)
    assert torch.equal(small.objects.boxes * factor, whole.objects.boxes)
    mean = torch.nn.functional.avg_pool2d(whole.image.float(), factor)
    assert float((small.image.float() - mean).abs().max()) <= 4


def test_odd_sides_and_other_files(tmp_path: Path) -> None:
    """Odd sides are rounded up, lying photographs stand up, and a PNG stays as it is."""
    picture = Image.new("RGB", (401, 203), "teal")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    picture.save(tmp_path / "a.png")
    image, factor = decode_reduced(tmp_path / "a.jpg", 100)
    assert (tuple(image.shape), factor) == ((3, 201, 102), 2)
    image, factor = decode_reduced(tmp_path / "a.png", 10)
    assert factor == 1
    assert torch.equal(image, decode_image(tmp_path / "a.png"))


def test_disk_gives_what_decoding_gives(faces: WiderFaces, tmp_path: Path) -> None:
    """Crops are the same with a disk cache, the first time and from disk, where broken images stay broken."""
    plain, first, second = (TrainingCrops(faces, size=32, seed=0) for _ in range(3))
    for crops in (first, second):
        crops.cache_images("disk", tmp_path / "cache")
    expected = plain.batch([(0, 0), (2, 1)])
    for crops in (first, second):
        found = crops.batch([(0, 0), (2, 1)])
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.boxes, expected.boxes)
        with pytest.raises(DataError, match=r"1\.jpg"):
            crops.crop(1, 0)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_changed_or_broke_is_decoded_again(faces: WiderFaces, tmp_path: Path) -> None:
    """A cached image is not used once its file has changed, nor when its own file is cut short."""
    cache = DiskCache(faces, tmp_path / "cache", side=0, build=Sample.of)
    before = cache.read(0).image.clone()
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:5000])
    assert torch.equal(cache.read(0).image, before)
    Image.new("RGB", (2 * SIDE, SIDE), "red").save(faces.images / "0.jpg")
    assert cache.read(0).image[0].min() > 200


def test_numbers_of_joined_sets_are_their_own(faces: WiderFaces, tmp_path: Path) -> None:
    """Sets made of others are reduced and cached by what reads the image."""
    joined = join(select(faces, [2]), faces)
    cache = DiskCache(joined, tmp_path / "cache", side=100, build=Sample.of)
    for _ in range(2):
        assert (cache.read(0).name, cache.read(1).name) == ("2.jpg", "0.jpg")
        assert cache.read(0).image.shape == (3, 100, 200)
        assert cache.read(0).objects.boxes.tolist() == [[25.5, 10, 55.5, 50]]


def test_photographs_labelled_anew_are_not_found_with_old_labels(faces: WiderFaces, tmp_path: Path) -> None:
    """Decoded images are kept with their faces, so that other labels of the same photograph are another file."""
    found = []
    for number in (0, 2):
        labelled = LabelledPhotographs(Photographs(faces.images, limit=1), [faces.labelled[number].objects])
        joined = join(select(faces, [2]), labelled)
        found.append(DiskCache(joined, tmp_path / "cache", side=0, build=Sample.of).read(1).objects.boxes[0, 0].item())
    assert found == [100, 102]


def test_full_disk_ends_caching_not_training(
    faces: WiderFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the disk refuses an image, that is said once, nothing half-written stays, and decoding goes on."""

    def refuse(_tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featherpress.compress.data.crops.decoded.save_file", refuse)
    cache = DiskCache(faces, tmp_path / "cache", side=0, build=Sample.of)
    for _ in range(2):
        assert torch.equal(cache.read(0).image, faces[0].image)
    assert len([record for record in caplog.records if "No space left" in record.message]) == 1
    assert not list((tmp_path / "cache").iterdir())


def test_labels_without_faces_are_refused(tmp_path: Path) -> None:
    """Training labels in which no face counts are refused in one sentence that says what there is."""
    (tmp_path / "WIDER_train" / "images").mkdir(parents=True)
    split = tmp_path / "wider_face_split"
    split.mkdir()
    labels = split / "wider_face_train_bbx_gt.txt"
    for text, found in (("a.jpg\n0\n", "got none"), ("a.jpg\n1\n1 1 9 9 0 0 0 1 0 0\n", "got 1 that are all marked")):
        labels.write_text(text)
        with pytest.raises(DataError, match=f"at least one of 1 images, {found}"):
            require_objects(WiderFaces(tmp_path, "train"))
