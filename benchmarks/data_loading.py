"""Painting synthetic faces, and cutting training crops, against decoding JPEG files of the same size.

One thread, processor time, the three timed in turns in the same run; the ratio is to decoding.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.io import write_jpeg

from featherpress.compress.data import SyntheticFaces, TrainingCrops, decode_image

ROUNDS, IMAGES = 5, 40


def best_rate(work: Callable[[int], object]) -> float:
    """Images per second of the fastest round."""
    rates = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for index in range(IMAGES):
            work(index)
        rates.append(IMAGES / (time.process_time() - start))
    return max(rates)


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


if __name__ == "__main__":
    main()
