"""How often a verdict claims a difference where there is none, and how often it finds one that is there.

    python benchmarks/calibration.py simulate                 # drawn differences, 2,000 comparisons a row
    python benchmarks/calibration.py images                   # the bootstrap of AP over few images
    python benchmarks/calibration.py pool --out runs/pool     # 40 tiny classifiers, trained once, paired anew

`pool` goes on where it was stopped: models that are there are not trained again. Each part prints a table in Markdown.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from featherpress.verdicts import Scores, paired_interval, simulation

RESAMPLES = 500  # of the 2,000 that a verdict takes: the variance over examples is within 3% of theirs
TINY = """
name = "pool"
student = { model = "calibration:net" }
data = { kind = "shapes", image_size = 64, train_images = 192, validation_images = 240 }
schedule = { epochs = 4, batch_size = 16, learning_rate = 8e-3, ema = 0.9, save_every = 600 }
"""


def net():
    """A classifier of a few hundred weights."""
    from torch import nn

    layers, before = [], 3
    for width in (4, 8, 16):
        layers += [nn.Conv2d(before, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 6))


def simulate(comparisons: int) -> None:
    simulation.paired_interval = partial(paired_interval, resamples=RESAMPLES)
    print("| spread over seeds | seeds | images alone | seeds and images | power for 0.05 |")
    print("|---:|---:|---:|---:|---:|")
    for seeds in (2, 3, 5):
        for spread in (0.0, 0.01, 0.03):
            rate = partial(simulation.claim_rate, seeds=seeds, seed_spread=spread, comparisons=comparisons)
            shares = rate(rule=simulation.over_examples_alone), rate(), rate(gain=0.05)
            print(f"| {spread:g} | {seeds} | " + " | ".join(f"{share:.1%}" for share in shares) + " |", flush=True)


def images(comparisons: int) -> None:
    """Two equal detectors on few images: the percentile bootstrap of AP, which a claim about two files rests on."""
    from featherpress.compress.evaluation.saved_scores import matched_scores

    print("| images | claims |\n|---:|---:|")
    for count in (8, 16, 30, 60, 120):
        random = np.random.default_rng(0)
        claims = 0
        for _ in range(comparisons):
            sides = [matched_scores([draw_matches(count, random)]) for _ in range(2)]
            found = paired_interval(candidate=sides[1], baseline=sides[0], resamples=RESAMPLES)
            claims += found.low > 0 or found.high < 0
        print(f"| {count} | {claims / comparisons:.1%} |", flush=True)


def draw_matches(count: int, random: np.random.Generator):
    """Draw what a detector finds in images of two faces each, six detections an image."""
    from featherpress.compress.evaluation import Matches

    owner, slot = np.repeat(np.arange(count), 6), np.tile(np.arange(6), count)
    hits = (slot < 2) & (random.random(6 * count) < 0.7)
    scores = random.random(6 * count) * 0.8 + 0.2 * hits
    return Matches(scores=scores, hits=hits, counted=np.ones_like(hits), images=owner, faces=np.full(count, 2))


def pool(out: Path, models: int, pairings: int) -> None:
    rows = np.array([right_answers(out / f"model-{seed}", seed) for seed in range(models)], dtype=float)
    accuracy = rows.mean(axis=1)
    print(f"{models} models, accuracy {accuracy.mean():.3f} with a deviation of {accuracy.std(ddof=1):.3f}\n")
    print("| seeds | claims without a gain (95% interval) | claims with a gain of 0.05 |\n|---:|---:|---:|")
    for seeds in (3, 5):
        random = np.random.default_rng(seeds)
        shares = [share_of_claims(rows, seeds, gain, pairings, random) for gain in (0.0, 0.05)]
        low, high = interval_of_share(shares[0], pairings)
        print(f"| {seeds} | {shares[0]:.1%} ({low:.1%} to {high:.1%}) | {shares[1]:.1%} |")


def right_answers(folder: Path, seed: int) -> np.ndarray:
    """Train a model of a seed unless it is there, and return which validation images it names rightly."""
    from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
    from featherpress.compress.experiments.distill import train
    from featherpress.compress.recipes import load_recipe

    found = folder / "eval" / "validation.npz"
    if not found.exists():
        recipe = folder.with_suffix(".toml")
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(TINY)
        train(load_recipe(recipe, settings=[f"seeds=[{seed}]"]), folder)
    answers = ClassPredictions.load(found)
    return answers.labels == answers.predicted


def share_of_claims(rows: np.ndarray, seeds: int, gain: float, pairings: int, random: np.random.Generator) -> float:
    """Pair models at random; a gain is planted by naming some wrongly named images rightly."""
    claims = 0
    for _ in range(pairings):
        chosen = random.permutation(len(rows))[: 2 * seeds]
        ours, theirs = rows[chosen[:seeds]], rows[chosen[seeds:]]
        wrong = 1 - ours.mean()
        ours = np.maximum(ours, random.random(ours.shape) < gain / wrong)
        found = paired_interval(candidate=Scores.of(ours), baseline=Scores.of(theirs), resamples=RESAMPLES)
        claims += found.low > 0 or found.high < 0
    return claims / pairings


def interval_of_share(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95% interval; pairings share models, so that it is a little too narrow."""
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - half, middle + half


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("part", choices=("simulate", "images", "pool"))
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/pool"))
    asked = parser.parse_args(arguments)
    if asked.part == "simulate":
        simulate(asked.comparisons)
    elif asked.part == "images":
        images(asked.comparisons)
    else:
        pool(asked.out, asked.models, asked.comparisons)


if __name__ == "__main__":
    main()
