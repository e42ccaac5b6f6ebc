"""What our matching and loss cost, beside a loop over images, torchvision's RetinaNet, and a whole training step of V2.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --threads 2 --batch 16 --size 320 --rounds 15

All take turns in every round, and ratios are medians over rounds, with the quarters beside. What is timed goes from
boxes and raw outputs to gradients at the outputs: matching, mining, all three terms, backward. The loop is the same
mathematics one image at a time, and must give the same loss. RetinaNet is `torchvision.models.detection`'s matcher and
losses on the same priors and outputs: focal loss without mining, and no landmarks, which is less to do. A training step
is V2's forward, this loss, backward and AdamW.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead
from torchvision.ops import box_iou

from featherpress.compress.data import Batch, SyntheticFaces, TrainingCrops
from featherpress.compress.tasks.detection.assignment import match_priors
from featherpress.compress.tasks.detection.loss import detection_loss
from featherpress.models import create_detector, normalize
from featherpress.models.priors import encode_boxes, encode_landmarks

THRESHOLD, RATIO = 0.35, 7
WIDTHS = (4, 2, 10)


def ours(outputs: tuple[Tensor, ...], priors: Tensor, batch: Batch) -> Tensor:
    boxes, logits, landmarks = outputs
    targets = match_priors(priors, batch)
    counts = targets.counts.clamp(min=1)
    loss = detection_loss(boxes, logits, landmarks, targets, counts)
    return loss.classification + loss.box + loss.landmark


def match_one(priors: Tensor, corners: Tensor, batch: Batch, image: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for every prior of one image its face or -1, and whether it is a negative; and the faces' rows."""
    rows = batch.present[image].nonzero()[:, 0]
    face = torch.full((len(priors),), -1)
    negative = torch.ones(len(priors), dtype=torch.bool)
    if len(rows):
        ignored = batch.ignored[image, rows]
        iou = box_iou(batch.boxes[image, rows], corners)
        best, nearest = iou.masked_fill(ignored[:, None], -1.0).max(dim=0)
        face = torch.where(best >= THRESHOLD, nearest, face)
        for number in range(len(rows)):
            if not ignored[number]:
                face[iou[number].argmax()] = number
        unwanted = iou.masked_fill(~ignored[:, None], -1.0).amax(dim=0) >= THRESHOLD
        for number in range(len(rows)):
            if ignored[number]:
                unwanted[iou[number].argmax()] = True
        negative = (face < 0) & ~unwanted
    return face, negative, rows


def looped(outputs: tuple[Tensor, ...], priors: Tensor, batch: Batch) -> Tensor:
    boxes, logits, landmarks = outputs
    half = priors[:, 2:] / 2
    corners = torch.cat([priors[:, :2] - half, priors[:, :2] + half], dim=1)
    entropies, positives, negatives, box, landmark, pointed = [], [], [], [], [], 0
    for image in range(len(batch)):
        face, negative, rows = match_one(priors, corners, batch, image)
        positive = face >= 0
        entropies.append(F.cross_entropy(logits[image], positive.long(), reduction="none"))
        positives.append(positive)
        negatives.append(negative)
        if positive.any():
            own, chosen = priors[positive], rows[face[positive]]
            wanted = encode_boxes(batch.boxes[image, chosen], own)
            box.append(F.smooth_l1_loss(boxes[image, positive], wanted, reduction="sum"))
            known = batch.has_landmarks[image, chosen]
            wanted = encode_landmarks(batch.landmarks[image, chosen], own)
            landmark.append(F.smooth_l1_loss(landmarks[image, positive][known], wanted[known], reduction="sum"))
            pointed += int(known.sum())
    count = max(int(sum(each.sum() for each in positives)), 1)
    pool = torch.cat([e.detach().masked_fill(~n, -1.0) for e, n in zip(entropies, negatives, strict=True)])
    hardest = pool.topk(RATIO * count).values[-1].clamp(min=0)
    total = torch.zeros(())
    for entropy, positive, negative in zip(entropies, positives, negatives, strict=True):
        total = total + entropy[positive | (negative & (entropy >= hardest))].sum()
    return total / count + sum(box) / count + sum(landmark) / max(pointed, 1)


class Retina:
    """Torchvision's matcher and losses, without its heads' convolutions."""

    def __init__(self, priors: Tensor) -> None:
        half = priors[:, 2:] / 2
        self.anchors = torch.cat([priors[:, :2] - half, priors[:, :2] + half], dim=1)
        self.matcher = Matcher(THRESHOLD, THRESHOLD, allow_low_quality_matches=True)
        self.classes = RetinaNetClassificationHead(8, 2, 2)
        self.boxes = RetinaNetRegressionHead(8, 2)

    def __call__(self, outputs: tuple[Tensor, ...], _priors: Tensor, batch: Batch) -> Tensor:
        """Match image by image, as RetinaNet does, and add its two losses."""
        rows = [present & ~ignored for present, ignored in zip(batch.present, batch.ignored, strict=True)]
        targets = [
            {"boxes": boxes[kept], "labels": torch.ones(int(kept.sum()), dtype=torch.int64)}
            for boxes, kept in zip(batch.boxes, rows, strict=True)
        ]
        nothing = torch.full((len(self.anchors),), -1)
        matched = [
            self.matcher(box_iou(each["boxes"], self.anchors)) if len(each["boxes"]) else nothing for each in targets
        ]
        found = {"cls_logits": outputs[1], "bbox_regression": outputs[0]}
        anchors = [self.anchors] * len(targets)
        return self.classes.compute_loss(targets, found, matched) + self.boxes.compute_loss(
            targets, found, anchors, matched
        )


def loss_work(loss: Callable[..., Tensor], outputs: tuple[Tensor, ...], priors: Tensor, batch: Batch) -> None:
    for each in outputs:
        each.grad = None
    loss(outputs, priors, batch).backward()


def step_work(size: int) -> Callable[[Tensor, Batch], None]:
    """Prepare V2 and its optimizer for whole steps."""
    torch.manual_seed(0)
    model = create_detector("featherface_v2").to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(priors: Tensor, batch: Batch) -> None:
        images = normalize(batch.images).contiguous(memory_format=torch.channels_last)
        ours(model(images), priors, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(name: str, over: list[float], under: list[float], *, percent: bool = False) -> None:
    ratios = sorted(a / b for a, b in zip(over, under, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    values = [middle, low, high]
    texts = [f"{100 * value:.1f} %" if percent else f"{value:.2f}" for value in values]
    print(f"{name:<32} {texts[0]:>7}  ({texts[1]} to {texts[2]})")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    model = create_detector("featherface_v2")
    priors = model.priors(options.size, options.size)
    faces = SyntheticFaces(length=4 * options.batch, seed=options.seed, size=(options.size, options.size))
    crops = TrainingCrops(faces, size=options.size, seed=options.seed)
    keys = crops.sampler.epoch_keys(0)
    groups = [crops.batch(keys[start : start + options.batch]) for start in range(0, len(keys), options.batch)]
    random = torch.Generator().manual_seed(options.seed)
    shape = (options.batch, len(priors))
    outputs = tuple(torch.randn(*shape, width, generator=random).requires_grad_() for width in WIDTHS)
    losses = {"ours": ours, "loop": looped, "RetinaNet": Retina(priors)}
    step = step_work(options.size)
    seconds: dict[str, list[float]] = {name: [] for name in (*losses, "step")}
    for number in range(options.rounds + 1):
        batch = groups[number % len(groups)]
        torch.testing.assert_close(ours(outputs, priors, batch), looped(outputs, priors, batch), rtol=1e-4, atol=0)
        works = {name: partial(loss_work, loss, outputs, priors, batch) for name, loss in losses.items()}
        spent = {name: timed(work) for name, work in (works | {"step": partial(step, priors, batch)}).items()}
        if number:  # the first round warms up
            for name, value in spent.items():
                seconds[name].append(value)
    count = sum(int(group.present.sum()) for group in groups) / len(groups)
    print(
        f"torch {torch.__version__}, {options.threads} threads, batch {options.batch} at {options.size}x{options.size}"
    )
    print(f"{len(priors):,} priors, {count:.0f} faces a batch, {options.rounds} rounds; medians, and the quarters")
    for name, values in seconds.items():
        print(f"{name:<12} {1e3 * statistics.median(values):8.1f} ms")
    show("the loop's time / ours", seconds["loop"], seconds["ours"])
    show("RetinaNet's time / ours", seconds["RetinaNet"], seconds["ours"])
    show("ours / a training step of V2", seconds["ours"], seconds["step"], percent=True)


if __name__ == "__main__":
    main()
