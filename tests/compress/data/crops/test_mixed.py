"""Photographs on top of labelled batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featherpress.compress.data import Objects, SyntheticFaces, TrainingCrops
from featherpress.compress.data.sources.unlabelled import LabelledPhotographs, Photographs
from featherpress.compress.data.subsets import hold_out, join, select
from featherpress.errors import DataError, UsageError


def draw_photographs(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """Write one noisy picture of each size (width, height)."""
    random = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def mixed(folder: Path, *, variants: int = 2) -> TrainingCrops:
    """Five labelled images and three photographs, batches of two and one."""
    photographs = Photographs(draw_photographs(folder, [(90, 70), (80, 80), (70, 90)]))
    labelled = SyntheticFaces(length=5, seed=0, size=(96, 96))
    return TrainingCrops(labelled, photographs=photographs, extra=1, size=64, seed=3, variants=variants)


def test_the_labelled_part_is_what_the_control_sees(tmp_path: Path) -> None:
    """Without its photographs, a mixed epoch is the plain one: the same crops in the same order, pixel for pixel."""
    crops = mixed(tmp_path)
    plain = TrainingCrops(SyntheticFaces(length=5, seed=0, size=(96, 96)), size=64, seed=3, variants=2)
    for epoch in range(3):
        keys = [key for batch in crops.sampler.epoch_batches(epoch, 2) for key in batch]
        assert [key for key in keys if key[0] < 5] == plain.sampler.epoch_keys(epoch)[:4]
    key = plain.sampler.epoch_keys(1)[0]
    assert torch.equal(crops.crop(*key).image, plain.crop(*key).image)


def test_every_batch_ends_with_photographs(tmp_path: Path) -> None:
    """A batch is two labelled crops and one of a photograph; a pass takes them all, the next another variant."""
    crops = mixed(tmp_path)
    batches = [batch for epoch in range(3) for batch in crops.sampler.epoch_batches(epoch, 2)]
    assert all(len(batch) == 3 for batch in batches)
    assert all(batch[0][0] < 5 and batch[1][0] < 5 and batch[2][0] >= 5 for batch in batches)
    photographs = [batch[2] for batch in batches]
    assert sorted(photographs[:3]) == [(5, 0), (6, 0), (7, 0)]
    assert sorted(photographs[3:]) == [(5, 1), (6, 1), (7, 1)]


def test_square_photographs_can_be_left_out(tmp_path: Path) -> None:
    """Images with equal sides are not taken when they may be squashed, and a folder of nothing else is refused."""
    folder = draw_photographs(tmp_path, [(90, 70), (80, 80)])
    assert [Photographs(folder).name(index) for index in range(2)] == ["00.png", "01.png"]
    assert len(Photographs(folder, square=False)) == 1
    (folder / "00.png").unlink()
    with pytest.raises(DataError, match="found none"):
        Photographs(folder, square=False)


def test_photographs_that_are_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder of a telephone says how many of its photographs are left out."""
    (tmp_path / "IMG_1.HEIC").write_bytes(b"")
    assert len(Photographs(draw_photographs(tmp_path, [(90, 70)]))) == 1
    assert "passed over 1 photograph in" in caplog.text


def test_a_teachers_faces_ride_on_photographs(tmp_path: Path) -> None:
    """Faces found by someone else become the labels of a photograph, under one numbering with the labelled images."""
    photographs = Photographs(draw_photographs(tmp_path, [(90, 70)]))
    face = Objects(
        boxes=torch.tensor([[10.0, 10.0, 40.0, 50.0]]),
        landmarks=torch.zeros(1, 10),
        has_landmarks=torch.tensor([False]),
        ignored=torch.tensor([False]),
        labels=torch.zeros(1, dtype=torch.int64),
    )
    joined = join(SyntheticFaces(length=2, seed=0), LabelledPhotographs(photographs, [face]))
    assert len(joined) == 3
    assert joined.name(2) == "00.png"
    assert joined[2].objects.boxes.tolist() == [[10.0, 10.0, 40.0, 50.0]]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_held_out_images_are_not_trained_on(count: int) -> None:
    """Every image is on one side of the split, and as many as asked for are held out."""
    training, holdout = hold_out(SyntheticFaces(length=7, seed=0, size=(64, 64)), count)
    assert len(holdout) == count
    names = [part.name(index) for part in (training, holdout) for index in range(len(part))]
    assert len(set(names)) == len(names) == 7


def test_something_must_be_left_to_train_on() -> None:
    """Holding out everything is refused."""
    with pytest.raises(UsageError, match="hold out 1 to 2 of 3"):
        hold_out(SyntheticFaces(length=3, seed=0, size=(64, 64)), 3)


def test_a_control_gets_as_many_labelled_crops_in_place_of_photographs(tmp_path: Path) -> None:
    """The same labelled crops first, then further ones of the labelled images, as many a batch, none of them twice."""
    student = mixed(tmp_path)
    control = TrainingCrops(
        select(student.images, range(student.sampler.labelled)), extra=1, size=64, seed=3, variants=2
    )
    for epoch in range(3):
        ours, theirs = student.sampler.epoch_batches(epoch, 2), control.sampler.epoch_batches(epoch, 2)
        assert [len(batch) for batch in ours] == [len(batch) for batch in theirs]
        assert [batch[:-1] for batch in ours] == [batch[:-1] for batch in theirs]
        assert all(batch[-1][0] >= student.sampler.labelled for batch in ours)
        assert all(batch[-1][0] < student.sampler.labelled for batch in theirs)
    assert len(control.batch(control.sampler.epoch_batches(0, 2)[0])) == 3
