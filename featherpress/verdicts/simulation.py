"""How often an interval claims a difference where there is none, or finds one that is there."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from featherpress.verdicts.intervals import Array, Interval, Metric, Scores, paired_interval

EXAMPLE_SPREAD = 0.17
"""Of the difference of one example, in the metric's unit: an error of 0.011 over 240, as two trained detectors have."""

SHARED = 0.3
"""Of the variance over examples, the share that all seeds have in common: what a method does to an example."""

Rule: TypeAlias = Callable[[Scores, Scores], Interval]


def simulate_differences(
    *, seeds: int, seed_spread: float, examples: int, gain: float = 0.0, random: np.random.Generator
) -> Array:
    """Draw the differences between pairs of models, one value per example, (seeds, examples)."""
    own = np.sqrt(1 - SHARED) * random.standard_normal((seeds, examples))
    shared = np.sqrt(SHARED) * random.standard_normal(examples)
    drawn: Array = gain + seed_spread * random.standard_normal((seeds, 1)) + EXAMPLE_SPREAD * (own + shared)
    return drawn


def claim_rate(
    *,
    seeds: int,
    seed_spread: float,
    examples: int = 240,
    gain: float = 0.0,
    comparisons: int = 2000,
    seed: int = 0,
    rule: Rule | None = None,
) -> float:
    """Return the share of simulated comparisons whose interval leaves 0 out.

    `rule` is the interval over seeds and examples unless given. Without a `gain` that is the share of false claims,
    with one the power.
    """
    random = np.random.default_rng(seed)
    baseline = Scores.of(np.zeros((seeds, examples)))
    claims = 0
    for _ in range(comparisons):
        differences = simulate_differences(
            seeds=seeds, seed_spread=seed_spread, examples=examples, gain=gain, random=random
        )
        found = (rule or over_both)(Scores.of(differences), baseline)
        claims += found.low > 0 or found.high < 0
    return claims / comparisons


def over_both(candidate: Scores, baseline: Scores) -> Interval:
    """Return the interval over seeds and examples that verdicts rest on."""
    return paired_interval(candidate=candidate, baseline=baseline)


def over_examples_alone(candidate: Scores, baseline: Scores) -> Interval:
    """Return the interval of the mean over seeds with the seeds as they are, which claims far too often."""
    sides = [Scores(metrics=(_averaged(side),), objects=side.objects) for side in (candidate, baseline)]
    return paired_interval(candidate=sides[0], baseline=sides[1])


def _averaged(side: Scores) -> Metric:
    return lambda weights: np.asarray(np.mean([metric(weights) for metric in side.metrics], axis=0))
