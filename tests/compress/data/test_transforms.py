"""Named transforms: what a recipe may write, what stays in step, and where chance comes from."""

import hashlib
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featherpress.compress.data import batches
from featherpress.compress.data.crops.transformed import TransformedCrops
from featherpress.compress.data.examples import Example, ExampleBatch, LabelledBatch
from featherpress.compress.data.transforms import Transforms, default_steps, list_transforms
from featherpress.errors import DataError, UsageError

SIZE = 32


def noise(number: int, height: int = 48, width: int = 60) -> Tensor:
    drawn = np.random.default_rng(number).integers(0, 255, (3, height, width), dtype=np.uint8)
    return torch.from_numpy(drawn)


class Noise:
    """Noisy images of several sizes, with a class each, of which some cannot be read."""

    def __init__(self, length: int = 8, broken: tuple[int, ...] = ()) -> None:
        self.length, self.broken, self.read = length, broken, 0

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"class/{index}.jpg"

    def __getitem__(self, index: int) -> Example:
        self.read += 1
        if index in self.broken:
            raise DataError(f"expected a whole image in {self.name(index)}")
        return Example(
            image=noise(index, 40 + index), target={"labels": torch.tensor(index % 3)}, name=self.name(index)
        )


def label(*steps: Any, size: int = SIZE) -> Transforms:
    return Transforms(steps, kind="label", height=size, width=size)


def example(target: dict[str, Tensor] | None = None, number: int = 0) -> Example:
    return Example(image=noise(number), target=target or {"labels": torch.tensor(2)}, name="class/0.jpg")


@pytest.mark.parametrize(
    ("step", "first", "second"),
    [
        ({"CenterCrop": SIZE}, "CenterCrop", SIZE),
        ({"Resize": [SIZE, SIZE]}, "Resize", SIZE),
        ({"RandomResizedCrop": {"size": SIZE, "scale": [0.5, 1.0], "interpolation": "bicubic"}}, "Random", SIZE),
    ],
)
def test_a_number_a_list_or_a_table(step: Any, first: str, second: int) -> None:
    """One value is the first argument; a table has arguments by name."""
    transforms = label(step)
    assert type(transforms.steps[0]).__name__.startswith(first)
    assert transforms(example(), seed=1).image.shape == (3, second, second)
    assert int(transforms(example(), seed=1).target["labels"]) == 2


CROP = {"RandomCrop": SIZE}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["RandomHorizontalFlop", CROP], "no transform 'RandomHorizontalFlop' for images; did you mean 'RandomHor"),
        ([{"RandomCrop": {"siz": 9}}], "RandomCrop takes no 'siz'; did you mean 'size'?"),
        (["RandomCrop"], "RandomCrop needs `size`: write { RandomCrop = ... }"),
        ([{"RandomCrop": 9, "Pad": 3}], "expected one transform in a table, got 2: RandomCrop, Pad"),
        (["CutMix", CROP], "CutMix cannot be used here: it mixes the images of a batch"),
        ([CROP, {"Normalize": {"mean": [0], "std": [1]}}], "the model's own `normalize` says what it takes"),
        ([{"UniformTemporalSubsample": 3}], "UniformTemporalSubsample cannot be used here: it is for video"),
        ([{"FiveCrop": SIZE}], "it makes several images of one"),
        ([{"RandomCrop": "big"}], "RandomCrop cannot be made with {'size': 'big'}: "),
        ([{"AutoAugment": "imagnet"}, CROP], "AutoAugment has no policy 'imagnet'; did you mean 'imagenet'?"),
        ([{"RandomChannelPermutation": 3}, CROP], "RandomChannelPermutation takes no 'argument'; it takes none"),
        ([{"Resize": SIZE}], "the transforms make a trial image 32 x 33 x 3 of uint8, expected 32 x 32 x 3"),
        ([{"RandomCrop": 999}], "the transforms cannot be applied to a trial image, 67 x 71 pixels: "),
        ([{"RandomApply": {"transforms": ["Flip"]}}, CROP], "no transform 'Flip'"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(steps: list[Any], said: str) -> None:
    """Unknown names, arguments that are not taken, and transforms that are not for images."""
    with pytest.raises(UsageError) as caught:
        label(*steps)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_too_small_is_named() -> None:
    """What a transform cannot take is not skipped."""
    small = Example(image=noise(0, 20, 20), target={"labels": torch.tensor(0)}, name="ants/7.jpg")
    with pytest.raises(UsageError, match=r"cannot be applied to ants/7.jpg, 20 x 20 pixels: "):
        label(CROP)(small, seed=0)


ARGUMENTS: dict[str, Any] = {
    "AutoAugment": "cifar10",
    "JPEG": [40, 90],
    "Pad": 3,
    "CenterCrop": 40,
    "GaussianBlur": 3,
    "ColorJitter": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2},
    "RandomAdjustSharpness": {"sharpness_factor": 2, "p": 1},
    "RandomGrayscale": 0.5,
    "RandomAffine": {"degrees": 20, "translate": [0.1, 0.1]},
    "RandomApply": {"transforms": [{"RandomRotation": 30}], "p": 0.5},
    "RandomChoice": {"transforms": ["RandomInvert", "RandomEqualize"]},
    "RandomCrop": 36,
    "RandomOrder": ["RandomInvert", {"RandomRotation": 30}],
    "RandomPosterize": 2,
    "RandomResize": {"min_size": 34, "max_size": 70},
    "RandomResizedCrop": 40,
    "RandomRotation": 30,
    "RandomShortestSize": {"min_size": [40, 50]},
    "RandomSolarize": 100,
    "Resize": 40,
    "ScaleJitter": {"target_size": [50, 50], "scale_range": [0.8, 1.2]},
}
FOR_BOXES = {"RandomIoUCrop"}
FOR_FLOATS = {"GaussianNoise"}


def _newer(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.needs_torch("2.9", "older torchvision adds noise to floats alone"))


@pytest.mark.filterwarnings("ignore:The image decoding and encoding")
@pytest.mark.parametrize("name", [*sorted(set(list_transforms()) - FOR_BOXES - FOR_FLOATS), *map(_newer, FOR_FLOATS)])
def test_every_transform_draws_from_the_seed_alone(name: str) -> None:
    """One seed gives one image; other seeds give others where it is random; global generators stay as they are."""
    transforms = label({name: ARGUMENTS[name]} if name in ARGUMENTS else name, {"Resize": [SIZE, SIZE]})
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    drawn = [transforms(example(), seed=seed).image for seed in (5, 6, 7, 8, 9, 10, 11, 12, 5)]
    assert torch.equal(drawn[0], drawn[-1])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    fixed = name in {"Resize", "CenterCrop", "Pad", "RandomAutocontrast", "RandomAdjustSharpness"}
    assert fixed == all(torch.equal(drawn[0], each) for each in drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskBatch(ExampleBatch):
    """Images with a mask each; shapes: masks uint8 (N, H, W)."""

    masks: Tensor


def test_masks_stay_in_step() -> None:
    """A mask moves with its image, keeps whole numbers, and is `ignore` where nothing was."""
    image = torch.zeros(3, 48, 60, dtype=torch.uint8)
    image[:, 10:30, 12:40] = 200
    masks = (image[0] > 0).to(torch.uint8) * 3
    steps = ({"RandomRotation": {"degrees": [80, 100], "expand": True, "fill": 90}}, {"Resize": [SIZE, SIZE]})
    turn = Transforms(steps, kind="mask", height=SIZE, width=SIZE, ignore=254)
    moved = turn(Example(image=image, target={"masks": masks}, name="a"), seed=0)
    assert set(moved.target["masks"].unique().tolist()) == {0, 3, 254}
    sure = (moved.image[0] == 200) | (moved.image[0] == 0)
    expected = torch.where(moved.image[0] == 200, 3, 0)
    assert sure.float().mean() > 0.4
    assert ((moved.target["masks"] == expected) | ~sure).float().mean() > 0.97


def test_boxes_stay_in_step() -> None:
    """Boxes move with their image; one that is cut away goes, with its label."""
    boxes = torch.tensor([[10.0, 4, 20, 14], [50, 30, 58, 44]])
    given = example({"boxes": boxes, "labels": torch.tensor([4, 7])})
    flip = Transforms([{"RandomHorizontalFlip": 1.0}], kind="boxes", height=48, width=60, source=(48, 60))
    assert flip(given, seed=0).target["boxes"].tolist() == [[40, 4, 50, 14], [2, 30, 10, 44]]
    cut = Transforms([{"CenterCrop": [48, 30]}], kind="boxes", height=48, width=30)(given, seed=0)
    assert cut.target["boxes"].tolist() == [[0, 4, 5, 14]]
    assert cut.target["labels"].tolist() == [4]
    with pytest.raises(UsageError, match="AutoAugment"):
        Transforms([{"AutoAugment": "imagenet"}, CROP], kind="boxes", height=SIZE, width=SIZE)


@pytest.mark.parametrize("kind", ["label", "mask", "boxes"])
def test_defaults_work(kind: Any) -> None:
    """Each kind has an augmentation of its own that gives images of the size asked for."""
    transforms = Transforms(default_steps(kind, 40, 24), kind=kind, height=40, width=24)
    targets = {
        "label": {"labels": torch.tensor(1)},
        "mask": {"masks": torch.zeros(48, 60, dtype=torch.uint8)},
        "boxes": {"boxes": torch.tensor([[10.0, 4, 20, 14]]), "labels": torch.tensor([4])},
    }
    drawn = [transforms(example(targets[kind]), seed=seed) for seed in range(8)]
    assert {tuple(each.image.shape) for each in drawn} == {(3, 40, 24)}
    assert len({each.image.numpy().tobytes() for each in drawn}) > 4


def crops(data: Noise, *, variants: int = 0, cache_bytes: int = 1 << 30, extra: int = 0) -> TransformedCrops[Any]:
    colours = {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "hue": 0.1}}
    return TransformedCrops(
        data,
        label({"RandomResizedCrop": SIZE}, colours),
        LabelledBatch,
        seed=1,
        variants=variants,
        extra=extra,
        cache_bytes=cache_bytes,
    )


def digest(cut: TransformedCrops[Any], workers: int = 0) -> str:
    total = hashlib.sha256()
    for epoch in range(3):
        for batch in batches(cut, cut.sampler.epoch_batches(epoch, 4), workers=workers):
            for each in (batch.images, batch.labels, batch.keys):
                total.update(each.numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("variants", [0, 2])
def test_crops_do_not_depend_on_workers_or_memory(variants: int, more_threads: int) -> None:
    """To the bit the same come from any number of workers and threads, and whatever is kept."""
    expected = digest(crops(Noise(), variants=variants, cache_bytes=0))
    for cache_bytes, workers in ((1 << 30, 0), (40_000, 0), (1 << 30, 2), (40_000, 1)):
        assert digest(crops(Noise(), variants=variants, cache_bytes=cache_bytes), workers) == expected
    assert torch.get_num_threads() == more_threads
    torch.set_num_threads(more_threads - 1)
    assert digest(crops(Noise(), variants=variants)) == expected


def test_crops_are_kept_on_disk(tmp_path: Any) -> None:
    """Decoded images come back from disk with their targets, and are not read again."""
    data = Noise()
    cut = crops(data)
    expected = digest(crops(Noise()))
    cut.cache_images("disk", tmp_path)
    assert digest(cut) == expected
    assert data.read == 8
    again = crops(data)
    again.cache_images("disk", tmp_path)
    assert digest(again) == expected
    assert data.read == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named_and_counted(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    """The next good one replaces a broken image, once per run a warning names it."""
    cut = crops(Noise(broken=(2, 5)))
    digest(cut, workers)
    assert cut.broken == {2, 5}
    assert sum("skipped image class/5.jpg" in each.message for each in caplog.records) == 1


def test_a_workers_usage_error_is_one_sentence() -> None:
    """An image that a transform cannot take stops the run with a sentence, from a worker too."""
    cut = TransformedCrops(Noise(), label({"RandomCrop": SIZE + 10}, {"CenterCrop": SIZE}), LabelledBatch, seed=0)
    for workers in (0, 1):
        with pytest.raises(UsageError, match=r"^the transforms cannot be applied to class/\d.jpg, 60 x 4\d pixels: "):
            list(batches(cut, [[(0, 0), (1, 0)]], workers=workers))


def test_extra_crops_are_further_ones_of_the_data_set() -> None:
    """What comes on top does not change the labelled part of a batch."""
    plain, more = crops(Noise()), crops(Noise(), extra=2)
    keys = more.sampler.epoch_batches(0, 4)
    assert [batch[:4] for batch in keys] == plain.sampler.epoch_batches(0, 4)
    assert all(len(batch) == 6 for batch in keys)
