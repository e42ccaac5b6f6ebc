"""Training crops: determinism, labels that follow the pixels, broken images, and loading by workers."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherpress.compress.data import (
    Batch,
    Objects,
    Sample,
    SyntheticFaces,
    TrainingCrops,
    WiderFaces,
    batches,
)
from featherpress.compress.data.crops import photometric, windows
from featherpress.compress.data.crops.photometric import distort
from featherpress.compress.data.crops.windows import Window, cut_window, draw_window
from featherpress.compress.recipes.data import CropsRecipe
from featherpress.errors import DataError, UsageError


class Marked:
    """Black pictures with one white square each, which is the face; some of them are broken."""

    def __init__(self, length: int = 8, broken: tuple[int, ...] = ()) -> None:
        self.length, self.broken, self.read = length, broken, 0

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"marked-{index}"

    def __getitem__(self, index: int) -> Sample:
        self.read += 1
        if index in self.broken:
            raise DataError(f"expected a whole image in {self.name(index)}, got half of it")
        image = torch.zeros(3, 120, 160, dtype=torch.uint8)
        x, y, side = 20 + 5 * index, 30 + 3 * index, 40
        image[:, y : y + side, x : x + side] = 255
        faces = Objects(
            boxes=torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32),
            landmarks=torch.tensor([[x, y, x + side, y, x + 20, y + 20, x, y + side, x + side, y + side]]).float(),
            has_landmarks=torch.tensor([True]),
            ignored=torch.tensor([False]),
            labels=torch.zeros(1, dtype=torch.int64),
        )
        return Sample(image=image, objects=faces, name=self.name(index))


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in Batch.__slots__)


def test_a_crop_depends_on_seed_index_and_variant_alone() -> None:
    """The same key gives the same crop whatever was cut before and whatever the global random state is."""
    data = SyntheticFaces(length=4, seed=0, size=(96, 128))
    first = TrainingCrops(data, size=64, seed=1).crop(2, 5)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    crops = TrainingCrops(data, size=64, seed=1)
    crops.crop(0, 5)
    again = crops.crop(2, 5)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.objects.boxes, again.objects.boxes)
    assert not torch.equal(first.image, crops.crop(2, 6).image)
    assert not torch.equal(first.image, TrainingCrops(data, size=64, seed=2).crop(2, 5).image)


def test_cutting_crops_leaves_global_random_state_alone() -> None:
    """Nothing is drawn from torch's global generator, with or without workers."""
    crops = TrainingCrops(Marked(), size=32, seed=0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(batches(crops, crops.sampler.epoch_batches(0, 4), workers=workers))
    assert torch.equal(before, torch.get_rng_state())


@given(st.integers(0, 7), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_boxes_and_landmarks_follow_the_pixels(index: int, variant: int) -> None:
    """The box of a crop frames exactly what was the face: white inside it, nothing white outside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photometric, "_PROBABILITY", 0.0)
        crop = TrainingCrops(Marked(), size=64, seed=0).crop(index, variant)
    white = (crop.image > 200).all(dim=0)
    if not len(crop.objects):
        assert float(white.float().mean()) < 0.25
        return
    x1, y1, x2, y2 = crop.objects.boxes[0].tolist()
    rows, columns = white.nonzero().T
    # The filter that shrinks a picture softens edges over a pixel or two.
    assert float(columns.min()) == pytest.approx(x1, abs=2)
    assert float(columns.max()) + 1 == pytest.approx(x2, abs=2)
    assert float(rows.min()) == pytest.approx(y1, abs=2)
    assert float(rows.max()) + 1 == pytest.approx(y2, abs=2)
    left_eye, right_eye = crop.objects.landmarks[0, 0], crop.objects.landmarks[0, 2]
    assert left_eye < right_eye
    if not crop.objects.ignored[0] and x1 > 0.1 and x2 < 63.9:
        assert (float(left_eye), float(right_eye)) == pytest.approx((x1, x2), abs=1e-3)


@given(st.integers(0, 2**30), st.integers(40, 700), st.integers(40, 700))
@settings(deadline=None)
def test_windows_hold_a_face_centre(seed: int, width: int, height: int) -> None:
    """A window that aims at a face holds its centre, and is no smaller than the face."""
    faces = Objects(
        boxes=torch.tensor([[0.6 * width, 0.1 * height, 0.8 * width, 0.4 * height]]),
        landmarks=torch.zeros(1, 10),
        has_landmarks=torch.tensor([False]),
        ignored=torch.tensor([False]),
        labels=torch.zeros(1, dtype=torch.int64),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_FREE", 0.0)
        window = draw_window(np.random.default_rng(seed), faces, width, height, CropsRecipe(), size=64)
    x, y = faces.centres[0].tolist()
    assert window.left <= x < window.left + window.width
    assert window.top <= y < window.top + window.height
    assert max(window.width, window.height) >= float(faces.sizes.max()) - 1


def test_what_lies_beyond_the_image_is_the_mean_colour() -> None:
    """Padding is the mean that models subtract, so they see zero."""
    image = torch.full((3, 10, 10), 255, dtype=torch.uint8)
    cut = cut_window(image, Window(-10, -10, 20, 20), 20)
    assert cut[:, 0, 0].tolist() == [123, 117, 104]
    assert cut[:, 19, 19].tolist() == [255, 255, 255]


def test_small_faces_become_ignored() -> None:
    """A face that ends below 4 pixels is ignored; ignored faces never come back."""
    crops = TrainingCrops(Marked(), size=8, seed=0, ranges=CropsRecipe(zoom_out_probability=1.0))
    faces = [crops.crop(index, variant).objects for index in range(8) for variant in range(4)]
    assert any(len(face) for face in faces)
    assert all(bool(face.ignored.all()) for face in faces)


def test_images_are_read_as_large_as_the_smallest_window_needs() -> None:
    """Whichever range reaches the smaller window decides how far an image may be reduced while it is decoded."""
    ranges = [CropsRecipe(zoom_in=(0.5, 1.0)), CropsRecipe(zoom_in=(0.5, 1.0), zoom_out=(0.25, 1.0))]
    assert [each.needed_side(8) for each in ranges] == [16, 32]


def test_an_epoch_holds_every_image_once() -> None:
    """Orders differ by epoch and repeat for the same epoch; variants cycle, or never end."""
    crops = TrainingCrops(Marked(), size=8, seed=0, variants=3)
    assert sorted(crops.sampler.epoch_keys(4)) == [(index, 1) for index in range(8)]
    assert crops.sampler.epoch_keys(4) == crops.sampler.epoch_keys(4)
    assert [key[0] for key in crops.sampler.epoch_keys(4)] != [key[0] for key in crops.sampler.epoch_keys(1)]
    assert {variant for _, variant in TrainingCrops(Marked(), size=8, seed=0).sampler.epoch_keys(70)} == {70}


def test_a_broken_image_is_replaced_by_the_next_and_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """Batches keep their size, their keys tell what they hold, and `broken` counts."""
    crops = TrainingCrops(Marked(length=5, broken=(1, 2, 4)), size=16, seed=0)
    with caplog.at_level(logging.WARNING, logger="featherpress"):
        batch = crops.batch([(0, 7), (1, 7), (4, 7), (1, 8)])
    assert batch.keys.tolist() == [[0, 7], [3, 7], [0, 7], [3, 8]]
    assert crops.broken == {1, 2, 4}
    assert len(caplog.records) == 3
    assert "skipped image marked-1: expected a whole image" in caplog.text


def test_nothing_but_broken_images_is_an_error() -> None:
    """Where there is nothing to replace an image with, that is said instead of looping."""
    with pytest.raises(DataError, match="all 2 are broken"):
        TrainingCrops(Marked(length=2, broken=(0, 1)), size=16, seed=0).batch([(0, 0)])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    """Batches are the same from no worker and from several, from the first step or a later one, and so is `broken`."""
    data = Marked(length=11, broken=(3, 4))
    plain, parallel = (TrainingCrops(data, size=32, seed=0, cache_bytes=0) for _ in range(2))
    order = plain.sampler.epoch_batches(0, 3)
    expected = list(batches(plain, order))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="featherpress"):
        found = list(batches(parallel, order, start=1, workers=workers))
    assert len(expected) == 3
    assert all(same(a, b) for a, b in zip(expected[1:], found, strict=True))
    assert parallel.broken <= plain.broken == {3, 4}
    assert len(caplog.records) == len(parallel.broken)


def test_an_error_in_a_worker_is_one_sentence() -> None:
    """A worker's error arrives as it was raised, without the traceback that DataLoader would add."""
    crops = TrainingCrops(Marked(length=2, broken=(0, 1)), size=16, seed=0, cache_bytes=0)
    with pytest.raises(DataError) as caught:
        next(batches(crops, [[(0, 0)]], workers=1))
    assert str(caught.value) == "expected at least one image that can be read, but all 2 are broken"


def test_preloading_stops_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Preloading fills the cache, skips broken images, and later crops read nothing again."""
    data = Marked(broken=(2,))
    crops = TrainingCrops(data, size=16, seed=0)
    crops.preload(threads=3)
    assert crops.broken == {2}
    assert "marked-2" in caplog.text
    read = data.read
    crops.batch(crops.sampler.epoch_keys(0))
    assert data.read == read == 8
    small = TrainingCrops(Marked(length=100), size=16, seed=0, cache_bytes=4 * 120 * 160)
    small.preload()
    assert small.dataset[0].name == "marked-0"
    assert small.dataset.read < 20


def test_images_are_read_once_within_the_limit() -> None:
    """The cache keeps what fits into its bytes and no more; without one, every crop reads."""
    one = 3 * 120 * 160
    for cache_bytes, reads in ((9 * one, 8), (4 * one - 1, 8 + 5), (0, 16)):
        data = Marked()
        crops = TrainingCrops(data, size=16, seed=0, cache_bytes=cache_bytes)
        for variant in range(2):
            crops.batch([(index, variant) for index in range(8)])
        assert data.read == reads


def test_bad_arguments_are_refused() -> None:
    """Sizes and data sets that cannot be are refused in one sentence."""
    with pytest.raises(UsageError, match="expected size >= 1"):
        TrainingCrops(Marked(), size=0, seed=0)
    with pytest.raises(DataError, match="empty data set"):
        TrainingCrops(Marked(length=0), size=8, seed=0)


def test_colours_move_as_named() -> None:
    """Neutral factors change nothing; brightness scales, saturation 0 is grey, contrast keeps the mean, hue turns."""
    image = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None].repeat(1, 4, 4)
    image[:, 0] = 20
    assert torch.equal(distort(image, 1, 1, 1, 0), image)
    assert distort(image, 0.5, 1, 1, 0)[:, 2, 2].tolist() == [100, 50, 25]
    red, green, blue = distort(image, 1, 1, 0.0, 0)[:, 2, 2].tolist()
    assert red == green == blue == 124
    assert float(distort(image, 1, 0.5, 1, 0).float().mean()) == pytest.approx(float(image.float().mean()), abs=12)
    third = distort(image, 1, 1, 1, 2 * np.pi / 3)[:, 2, 2].tolist()
    assert third == [50, 200, 100]


def test_real_crops_hold_faces(shared: Path) -> None:
    """Nine crops in ten of photographs with faces aim at one, and the share of faces lost to borders is small."""
    data = WiderFaces(shared / "data", "train", limit=24)
    crops = TrainingCrops(data, size=160, seed=0)
    batch = crops.batch(crops.sampler.epoch_keys(0))
    with_faces = (batch.present & ~batch.ignored).any(dim=1).float().mean()
    assert batch.images.shape == (24, 3, 160, 160)
    assert float(with_faces) > 0.7
    assert not crops.broken
