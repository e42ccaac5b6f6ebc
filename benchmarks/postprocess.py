"""How fast raw outputs become detections: ours on the batch, a plain loop, and torchvision's way, on the same tensors.

    python benchmarks/postprocess.py
    python benchmarks/postprocess.py --batches 8 --faces 100 --rounds 20

Raw outputs are made up: each face raises some dozen priors around it, as a trained detector does, the rest stay low.
The plain loop takes one image and one box at a time, in Python. Torchvision's way is that of its RetinaNet
(`RetinaNet.postprocess_detections`): image by image it masks scores, takes the best, decodes, and calls
`ops.batched_nms`; written out here with landmarks, as its box coder and its levels are its own. All clip at the end,
where torchvision clips before suppression, so that all three must keep the same boxes. They take turns, one call each a
round, in processor time, on which other work of the machine weighs little; ratios are medians over rounds, with their
quartiles.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from featherpress.compress.evaluation.detector.postprocess import decode_outputs, select_detections
from featherpress.compress.evaluation.detector.settings import CANDIDATES, TOP_K, DetectionSettings
from featherpress.models import PriorSpec
from featherpress.models.priors import decode_boxes, decode_landmarks

Raw = tuple[Tensor, Tensor, Tensor]
Kept = list[Tensor]


def make_outputs(batch: int, faces: int, priors: Tensor, side: int) -> Raw:
    """Raise the priors that overlap a random face; scores rise with the overlap."""
    random = torch.Generator().manual_seed(0)
    boxes = torch.randn(batch, len(priors), 4, generator=random) * 0.3
    landmarks = torch.randn(batch, len(priors), 10, generator=random)
    margin = torch.randn(batch, len(priors), generator=random) - 7
    raised = torch.zeros_like(margin)
    for image in range(batch):
        for _ in range(faces):
            size = 2 ** (4 + 4 * torch.rand(1, generator=random))
            centre = torch.rand(2, generator=random) * side
            far = (priors[:, :2] - centre).abs().amax(dim=1) / size
            fit = (priors[:, 2] / size).log2().abs()
            raised[image] = torch.maximum(raised[image], torch.exp(-(far**2) * 12 - fit**2 * 3))
    margin += 9 * raised
    return boxes, torch.stack([torch.zeros_like(margin), margin], dim=-1), landmarks


def ours(raw: Raw, priors: Tensor, side: int, settings: DetectionSettings) -> Kept:
    found = decode_outputs(raw, priors, score_threshold=settings.score_threshold)
    selected = select_detections(found, count=len(raw[0]), settings=settings)
    return [torch.from_numpy(each.boxes).clamp(0, side) for each in selected]


def torchvisions(raw: Raw, priors: Tensor, side: int, settings: DetectionSettings) -> Kept:
    kept = []
    for deltas, logits, points in zip(*raw, strict=True):
        scores = logits.softmax(dim=-1)[:, 1]
        above = torch.where(scores > settings.score_threshold)[0]
        scores, best = scores[above].topk(min(len(above), CANDIDATES))
        rows = above[best]
        boxes = decode_boxes(deltas[rows], priors[rows])
        landmarks = decode_landmarks(points[rows], priors[rows])
        chosen = batched_nms(boxes, scores, torch.zeros_like(rows), settings.nms_iou)[:TOP_K]
        kept.append((clip_boxes_to_image(boxes[chosen], (side, side)), scores[chosen], landmarks[chosen])[0])
    return kept


def plain(raw: Raw, priors: Tensor, side: int, settings: DetectionSettings) -> Kept:
    kept = []
    for deltas, logits, points in zip(*raw, strict=True):
        scores = logits.softmax(dim=-1)[:, 1].tolist()
        boxes, _ = decode_boxes(deltas, priors).tolist(), decode_landmarks(points, priors).tolist()
        rows = sorted(
            (row for row, score in enumerate(scores) if score >= settings.score_threshold), key=lambda r: -scores[r]
        )
        chosen: list[int] = []
        for row in rows[:CANDIDATES]:
            if all(overlap(boxes[row], boxes[other]) <= settings.nms_iou for other in chosen):
                chosen.append(row)
        kept.append(torch.tensor([boxes[row] for row in chosen[:TOP_K]]).view(-1, 4).clamp(0, side))
    return kept


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return width * height / (areas - width * height)


def timed(work: Callable[[], Kept]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def agree(first: Kept, second: Kept) -> bool:
    return all(
        len(mine) == len(theirs) and torch.allclose(mine, theirs, atol=1e-2)
        for mine, theirs in zip(first, second, strict=True)
    )


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(slow, fast, strict=True)], n=4)
    return f"{middle:8.1f} ({low:.1f} to {high:.1f})"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--faces", nargs="+", type=int, default=[5, 50])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    settings = DetectionSettings()
    priors = PriorSpec().priors(options.side, options.side)
    print(f"torch {torch.__version__}, one thread, {options.rounds} rounds, {len(priors):,} priors")
    print(f"{'batch':>5} {'faces':>6} {'kept':>6} {'ours, ms':>9}   {'times the plain loop':<24} times torchvision's")
    for batch in options.batches:
        for faces in options.faces:
            raw = make_outputs(batch, faces, priors, options.side)
            ways = {way.__name__: lambda way=way, raw=raw: way(raw, priors, options.side, settings) for way in WAYS}
            kept = {name: work() for name, work in ways.items()}
            for name in ("plain", "torchvisions"):
                if not agree(kept["ours"], kept[name]):
                    raise SystemExit(f"ours and {name} keep other boxes")
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(options.rounds):
                for name, work in ways.items():
                    seconds[name].append(timed(work))
            mine = 1000 * statistics.median(seconds["ours"])
            count = sum(map(len, kept["ours"]))
            compared = (ratio(seconds[name], seconds["ours"]) for name in ("plain", "torchvisions"))
            print(f"{batch:>5} {faces:>6} {count:>6} {mine:9.2f} ", *(f"{text:<25}" for text in compared), flush=True)


WAYS = (plain, torchvisions, ours)

if __name__ == "__main__":
    main()
