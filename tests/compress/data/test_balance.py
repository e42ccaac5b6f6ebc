"""Roots and events that take turns, crops of several sizes, and what is kept of them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from featherpress.compress.data import Objects, Sample, TrainingCrops
from featherpress.compress.data.crops import windows
from featherpress.compress.data.crops.windows import draw_window
from featherpress.compress.data.subsets import hold_out_events, join
from featherpress.compress.recipes.data import CropsRecipe
from featherpress.errors import UsageError


class Events:
    """Black pictures in folders of so many each."""

    def __init__(self, prefix: str, *counts: int) -> None:
        self.names = [f"{event}--{prefix}/{image}.jpg" for event, count in enumerate(counts) for image in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def __getitem__(self, index: int) -> Sample:
        image = torch.zeros(3, 60, 80, dtype=torch.uint8)
        return Sample(image=image, objects=Objects.none(), name=self.name(index))


CROWDS, FACES = Events("crowd", 12, 2, 4), Events("face", 6)


def drawn(shares: Sequence[float], epochs: int = 4) -> list[tuple[int, int]]:
    crops = TrainingCrops(join(CROWDS, FACES), size=8, seed=0, shares=shares)
    return [key for epoch in range(epochs) for key in crops.sampler.epoch_keys(epoch)]


def test_one_root_gives_every_image_once_as_ever() -> None:
    """A recipe that asks for no balance gets the batches it got before there was one: pinned by their keys."""
    crops = TrainingCrops(FACES, size=8, seed=5)
    order = np.random.default_rng([5, 0 + 1, 2]).permutation(6).tolist()
    assert crops.sampler.epoch_keys(2) == [(index, 2) for index in order]
    assert crops.sampler.epoch_batches(2, 4) == [[(index, 2) for index in order[:4]]]


def test_roots_and_events_take_turns() -> None:
    """18 and 6 images give the same number of crops, as do the events of 12, 2 and 4; no crop comes twice."""
    keys = drawn((1, 1))
    assert len(keys) == 4 * 24
    names = Counter(join(CROWDS, FACES).name(index).split("/")[0] for index, _ in keys)
    assert names == {"0--crowd": 16, "1--crowd": 16, "2--crowd": 16, "0--face": 48}
    images = Counter(index for index, _ in keys)
    assert [images[index] for index in (12, 13)] == [8, 8]
    assert {images[index] for index in range(12)} == {1, 2}
    assert len(set(keys)) == len(keys)


def test_shares_say_how_much_of_each_root() -> None:
    """Three to one: 18 of 24."""
    assert sum(index < len(CROWDS) for index, _ in drawn((3, 1), epochs=1)) == 18


def test_whole_events_are_held_out() -> None:
    """Each root gives its half: whole events where it has some, images spread over it where it has but one."""
    training, choosing = hold_out_events(join(CROWDS, FACES), 9)
    held, rest = (
        Counter(part.name(index).split("/")[0] for index in range(len(part))) for part in (choosing, training)
    )
    assert held in ({"2--crowd": 4, "0--face": 5}, {"1--crowd": 2, "0--face": 5})
    assert not {event for event in held if "crowd" in event} & set(rest)
    assert sum((held + rest).values()) == 24
    with pytest.raises(UsageError, match="no events of 18 images fit into the 1"):
        hold_out_events(CROWDS, 1)


def test_every_batch_is_of_one_size_and_of_as_many_pixels() -> None:
    """Four crops of 16 pixels, or one of 32; each size as often, in another order each epoch, the same again."""
    crops = TrainingCrops(CROWDS, size=(16, 32), seed=0, variants=3)
    order = crops.sampler.epoch_batches(0, 4)
    shapes = [tuple(crops.batch(keys).images.shape) for keys in order]
    assert sorted(shapes) == [(1, 3, 32, 32)] * 3 + [(4, 3, 16, 16)] * 3
    assert order == crops.sampler.epoch_batches(0, 4)
    assert [len(keys) for keys in order] != [len(keys) for keys in crops.sampler.epoch_batches(2, 4)]
    assert {variant // 2 for keys in crops.sampler.epoch_batches(4, 4) for _, variant in keys} == {1}


def test_photographs_come_in_every_size_and_folders_take_turns() -> None:
    """On top of 4 crops of 16 pixels come 4 of photographs, of 32 one and one; small folders as often as large ones."""
    photographs = join(Events("a", 8), Events("b", 2))
    crops = TrainingCrops(join(CROWDS, FACES), photographs=photographs, extra=4, size=(16, 32), seed=0, shares=(1, 1))
    keys = [batch for epoch in range(3) for batch in crops.sampler.epoch_batches(epoch, 4)]
    assert {len(batch) for batch in keys} == {8, 2}
    assert [len(batch) for batch in keys[:2]] == [crops.sampler.batch_lengths(4)[batch[0][1] % 2] for batch in keys[:2]]
    photos = [index - 24 for batch in keys for index, _ in batch if index >= 24]
    assert len(photos) == len(keys) // 2 * 5
    assert abs(sum(row < 8 for row in photos) - sum(row >= 8 for row in photos)) <= 1
    plain = TrainingCrops(join(CROWDS, FACES), size=(16, 32), seed=0, shares=(1, 1))
    assert [[key for key in batch if key[0] < 24] for batch in keys[:8]] == plain.sampler.epoch_batches(0, 4)


@pytest.mark.parametrize("size", [32, 256])
def test_native_windows_show_pixels_as_they_are(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is as large as its crop, whatever the image's size; larger only where a face is."""
    ranges = CropsRecipe(native=(1, 1), native_probability=1, zoom_out_probability=0)
    monkeypatch.setattr(windows, "_ASPECT", 1.0)
    window = draw_window(np.random.default_rng(0), Objects.none(), 800, 600, ranges, size=size)
    assert (window.width, window.height) == (size, size)
    face = Objects(
        boxes=torch.tensor([[100.0, 100.0, 350.0, 450.0]]),
        landmarks=torch.zeros(1, 10),
        has_landmarks=torch.tensor([False]),
        ignored=torch.tensor([False]),
        labels=torch.zeros(1, dtype=torch.int64),
    )
    monkeypatch.setattr(windows, "_FREE", 0.0)
    assert draw_window(np.random.default_rng(0), face, 800, 600, ranges, size=size).width == 350
    assert ranges.needed_side(8) == 0
