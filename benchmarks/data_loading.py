"""Training images against their peers: painted and cut ones against decoding JPEG files, folders against torchvision.

One thread, processor time, the three timed in turns in the same run; the ratio is to decoding. Then images of 500 x 375
in folders of classes, cropped to 224 and mirrored by the same transforms: batches of 32 of torchvision's ImageFolder
and DataLoader, and of ours, in turns in the same run; the best of several epochs each. First in this process, by its
processor time; then through two workers, by the clock. Ours are told to keep nothing, then to keep decoded images as
they do by default.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import write_jpeg
from torchvision.transforms import v2

from featherpress.compress.data import SyntheticFaces, TrainingCrops, batches, decode_image
from featherpress.compress.data.crops.transformed import TransformedCrops
from featherpress.compress.data.examples import LabelledBatch
from featherpress.compress.data.sources.class_folders import ClassFolder
from featherpress.compress.data.transforms import Transforms

ROUNDS, IMAGES = 5, 40
EPOCHS = 5
SIDE, BATCH, IN_FOLDERS = 224, 32, 256


def best_rate(work: Callable[[int], object]) -> float:
    """Images per second of the fastest round."""
    rates = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for index in range(IMAGES):
            work(index)
        rates.append(IMAGES / (time.process_time() - start))
    return max(rates)


def draw_folders(folder: Path) -> None:
    """Write JPEG files of two classes."""
    faces = SyntheticFaces(length=16, seed=0, size=(375, 500))
    for index in range(IN_FOLDERS):
        file = folder / "train" / f"class-{index % 2}" / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_jpeg(faces[index % 16].image.contiguous(), str(file), quality=90)


def theirs(folder: Path, workers: int) -> Iterator[Any]:
    """One epoch of torchvision's."""
    steps = [v2.PILToTensor(), v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip()]
    dataset = ImageFolder(str(folder / "train"), transform=v2.Compose(steps))
    return iter(DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers))


def ours(crops: TransformedCrops[LabelledBatch], epoch: int, workers: int) -> Iterator[LabelledBatch]:
    """One epoch of ours."""
    return batches(crops, crops.sampler.epoch_batches(epoch, BATCH), workers=workers)


def make_crops(folder: Path, kind: str) -> TransformedCrops[LabelledBatch]:
    """Our crops of a folder, with decoded images kept or not."""
    steps = ({"RandomResizedCrop": SIDE}, "RandomHorizontalFlip")
    transforms = Transforms(steps, kind="label", height=SIDE, width=SIDE)
    crops = TransformedCrops(ClassFolder(folder / "train"), transforms, LabelledBatch, seed=0)
    crops.cache_images(kind, folder)  # type: ignore[arg-type]
    return crops


def seconds(epoch: Iterator[Any], clock: Callable[[], float]) -> float:
    """How long an epoch takes, workers' start included."""
    start = clock()
    for _ in epoch:
        pass
    return clock() - start


def folders(workers: int, clock: Callable[[], float]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_folders(folder)
        nothing, kept = make_crops(folder, "none"), make_crops(folder, "ram")
        taken: dict[str, list[float]] = {}
        for number in range(EPOCHS):
            for what, epoch in (
                ("ImageFolder + DataLoader", theirs(folder, workers)),
                ("ours, nothing kept", ours(nothing, number, workers)),
                ("ours, images kept", ours(kept, number, workers)),
            ):
                taken.setdefault(what, []).append(seconds(epoch, clock))
    reference = min(taken["ImageFolder + DataLoader"])
    print(f"{f'{workers} workers':<26} {'images/s':>9} {'ratio':>7}")
    for what, each in taken.items():
        print(f"{what:<26} {IN_FOLDERS / min(each):>9.1f} {reference / min(each):>7.2f}")


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'pixels':>8} {'what':<16} {'images/s':>9} {'ratio':>7}")
    for side in (160, 320):
        faces = SyntheticFaces(length=IMAGES, seed=0, size=(side, side))
        crops = TrainingCrops(faces, size=side, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / f"{index}.jpg") for index in range(IMAGES)]
            for index, file in enumerate(files):
                write_jpeg(faces[index].image, file, quality=90)
            decoding = best_rate(lambda index, files=files: decode_image(files[index]))
        rates = {
            "decode JPEG": decoding,
            "paint faces": best_rate(faces.__getitem__),
            "cut crops": best_rate(lambda index, crops=crops: crops.crop(index, 0)),
        }
        for what, rate in rates.items():
            print(f"{side:>8} {what:<16} {rate:>9.1f} {rate / decoding:>7.2f}")
    folders(0, time.process_time)
    folders(2, time.perf_counter)


if __name__ == "__main__":
    main()
