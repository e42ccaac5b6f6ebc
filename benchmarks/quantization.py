"""What eight bits cost, by calibration and by what stays in float; chosen on training photographs.

    python benchmarks/quantization.py WIDER --model featherface_v2
    python benchmarks/quantization.py WIDER --model featherface_v2 --only stem-percentile --split val

Every way is applied to one ONNX file and scored on 120 photographs of the training split that none is calibrated on
(drawn by a seed); `--split val` scores on the validation split instead, for the one that was chosen. Beside AP stands
the error: by how much the margin between face and background differs from float32's, on average over the priors that
either scores above 0.05. AP of so few photographs moves by a point from one way to the next by chance; the error does
not. Time is the processor's of one thread at 320x320, the median of 40 forwards in turns, over float32's.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featherpress.compress.data import WiderFaces
from featherpress.compress.data.subsets import select
from featherpress.compress.deployment.conversion import capture, convert
from featherpress.compress.deployment.graphs import GraphOptions, Subject, find_subject
from featherpress.compress.deployment.parity import example_images
from featherpress.compress.deployment.quantization import Quantization, calibration_images, quantize
from featherpress.compress.deployment.sessions import Session, SessionDetector
from featherpress.compress.evaluation.detector.inference import evaluate_model
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.models import Detector, shipped_weights

WAYS = {
    "plain": Quantization(calibration="minmax", first=0.0, outputs=True),
    "percentile": Quantization(first=0.0, outputs=True),
    "entropy": Quantization(calibration="entropy", first=0.0, outputs=True),
    "inputs": Quantization(calibration="minmax", first=0.0),
    "stem-outputs": Quantization(calibration="minmax", outputs=True),
    "stem-minmax": Quantization(calibration="minmax"),
    "stem-percentile": Quantization(),
    "stem-percentile-99.99": Quantization(percentile=99.99),
    "stem-entropy": Quantization(calibration="entropy"),
    "weights": Quantization(calibration="none"),
}
NEAR = -2.94
"""The margin at which a face's score is 0.05."""


class Watched(SessionDetector):
    """An exported detector that keeps the margins it gave."""

    def __init__(self, session: Session, detector: Detector) -> None:
        super().__init__(session, detector)
        self.margins: list[Tensor] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the file, and keep what it says of faces."""
        boxes, logits, landmarks = super().forward(images)
        self.margins.append(logits[..., 1] - logits[..., 0])
        return boxes, logits, landmarks


def score(path: Path, detector: Detector, data: Any) -> tuple[float, list[Tensor]]:
    watched = Watched(Session(path, threads=1), detector)
    return evaluate_model(watched, data, settings=DetectionSettings(), label=path.stem).score, watched.margins


def error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    gaps = [(a - b).abs()[torch.maximum(a, b) > NEAR] for a, b in zip(ours, theirs, strict=True)]
    return float(torch.cat(gaps).mean())


def ratios(paths: Sequence[Path], rounds: int = 40) -> list[float]:
    """Time all in turns, in processor time, over the first."""
    sessions, images = [Session(path, threads=1) for path in paths], example_images((1, 3, 320, 320)).numpy()
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(rounds + 3):
        for session, row in zip(sessions, times, strict=True):
            began = time.thread_time()
            session.run(images)
            row.append(time.thread_time() - began)
    medians = [statistics.median(row[3:]) for row in times]
    return [median / medians[0] for median in medians]


def write(subject: Subject, source: Path, ways: dict[str, Quantization], calibrated: Any) -> dict[str, Path]:
    source.write_bytes(convert(subject, capture(subject)).SerializeToString())
    files = {"float32": source}
    for name, how in ways.items():
        count = 0 if how.calibration == "none" else len(calibrated)
        files[name] = source.with_name(f"{name}.onnx")
        quantize(source, files[name], calibration_images(calibrated, count), count=count, how=how)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder in WIDER FACE's layout")
    parser.add_argument("--model", default="featherface_v2")
    parser.add_argument("--weights", type=Path, help="the shipped ones unless given")
    parser.add_argument("--calibration-images", type=int, default=50)
    parser.add_argument("--chosen-on", type=int, default=120, help="how many training photographs to score on")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="what to score on")
    parser.add_argument("--only", nargs="*", choices=tuple(WAYS), default=tuple(WAYS))
    options = parser.parse_args()

    torch.set_num_threads(1)
    train, count = WiderFaces(options.data, "train"), options.calibration_images
    shuffled = torch.randperm(len(train) - count, generator=torch.Generator().manual_seed(0)) + count
    chosen = sorted(shuffled[: options.chosen_on].tolist())
    data = WiderFaces(options.data, "val") if options.split == "val" else select(train, chosen)
    weights = options.weights or shipped_weights(options.model)
    subject = find_subject(options.model, weights, options=GraphOptions())
    assert subject.detector is not None
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: WAYS[name] for name in options.only}
        files = write(subject, Path(folder) / "float32.onnx", ways, select(train, range(count)))
        print(
            f"{options.model}, {weights.name}: scored on {len(data)} images of {options.split}, calibrated on {count}"
        )
        print(f"{'way':22}{'AP':>8}{'error':>8}{'bytes':>11}{'time':>7}")
        reference: list[Tensor] = []
        for (name, path), ratio in zip(files.items(), ratios(list(files.values())), strict=True):
            ap, margins = score(path, subject.detector, data)
            reference = reference or margins
            size = path.stat().st_size
            print(f"{name:22}{ap:8.4f}{error(margins, reference):8.3f}{size:11,}{ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
