"""The interval of a difference between two sides, over seeds and examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featherpress.errors import DataError, UsageError

Array: TypeAlias = NDArray[np.float64]
Metric: TypeAlias = Callable[[Array], Array]
"""The scores of resampled sets: weights (sets, examples), how often a set holds each example -> (sets,)."""

Source: TypeAlias = Literal["seeds", "examples"]

PERCENTILE = "paired percentile bootstrap"
SEEDS_AND_EXAMPLES = "t interval over seeds and resampled examples, degrees of freedom by Welch and Satterthwaite"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """How the models of one side score, one metric for each seed, on the same examples.

    `objects` counts what there is to find in each example; sets that hold none have no score. `truth` stands for the
    labels that are scored against, where they are known: sides of other labels are not compared.

    Shapes: objects (examples,).
    Errors: UsageError without a model; DataError without anything to find.
    """

    metrics: tuple[Metric, ...]
    objects: NDArray[Any]
    truth: str = ""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise UsageError("Expected one control and one distilled model at least; got none of one side.")
        if not self.objects.sum() > 0:
            raise DataError("Expected at least one object to find in the images compared; got none.")

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Score by the mean of one value per example.

        Shapes: (examples,) for one seed, (seeds, examples) for several.
        Errors: DataError for other shapes, and for values that are not finite.
        """
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"Expected numbers, one value per example; got {error}.") from error
        if array.ndim not in {1, 2} or not array.size:
            raise DataError(f"Expected values (examples,) or (seeds, examples); got the shape {array.shape}.")
        if not np.isfinite(array).all():
            raise DataError("Expected finite scores; got NaN or infinity.")
        rows = array.reshape(-1, array.shape[-1])
        return cls(metrics=tuple(_mean_of(row) for row in rows), objects=np.ones(rows.shape[1], np.int64))

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(self.objects)

    @property
    def holding(self) -> int:
        """How many examples hold something to find."""
        return int(np.count_nonzero(self.objects))

    def observed(self) -> Array:
        """Return the score of each seed on the examples as they are, (seeds,)."""
        once = np.ones((1, self.examples))
        return np.array([float(metric(once)[0]) for metric in self.metrics])


def _mean_of(values: Array) -> Metric:
    return lambda weights: np.asarray(weights @ values / weights.sum(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A difference and its bounds, and what they cover.

    `v_seeds` and `v_examples` are the variances of the mean difference over either; `p` is the chance of a difference
    as large as this where there is none. `v_seeds` and `df` are None where the interval covers examples alone.
    """

    difference: float
    low: float
    high: float
    confidence: float
    seeds: int
    examples: int
    v_seeds: float | None
    v_examples: float
    df: float | None
    p: float
    method: str
    resamples: int

    def as_share(self) -> "Interval":
        """Return it with ends within 0 and 1, which the score that it is of cannot leave."""
        return replace(self, low=max(self.low, 0.0), high=min(self.high, 1.0))

    @property
    def covers(self) -> tuple[Source, ...]:
        """What another draw of which the interval allows for."""
        return ("examples",) if self.v_seeds is None else ("seeds", "examples")


@lru_cache(maxsize=2)
def resample(examples: int, resamples: int = 2000, seed: int = 0) -> Array:
    """Draw sets of as many examples as there are, with replacement: how often each holds each, (resamples, examples).

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    drawn = np.random.default_rng(seed).multinomial(examples, np.full(examples, 1 / examples), size=resamples)
    weights = drawn.astype(np.float64)
    weights.flags.writeable = False
    return weights


def paired_interval(
    *, candidate: Scores, baseline: Scores, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the interval of the mean difference, candidate less baseline, all models on the same resamples.

    With one pair it is that of percentiles, over examples. With several pairs of the same seed it is a t interval over
    seeds and examples. A baseline of one model is paired with every candidate.

    Errors: DataError for sides on different examples; UsageError for numbers of seeds that cannot be paired.
    Source: Satterthwaite 1946; Efron and Tibshirani 1993, chapter 13.
    """
    if not np.array_equal(candidate.objects, baseline.objects):
        raise DataError("Expected scores of the same images with the same objects; evaluate both models on one set.")
    if candidate.truth and baseline.truth and candidate.truth != baseline.truth:
        raise DataError("Expected scores against the same labels, got others; evaluate both models on one set.")
    pairs = _pairs(candidate.metrics, baseline.metrics)
    weights = resample(baseline.examples, resamples, seed)
    if not baseline.objects.all():
        weights = weights[weights @ baseline.objects > 0]
    drawn = np.mean([_resampled(pair, weights) for pair in pairs], axis=0)
    found = candidate.observed() - baseline.observed()
    if len(pairs) == 1:
        return _over_examples(float(found[0]), drawn, baseline.examples, confidence, resamples)
    return over_seeds_and_examples(
        found,
        v_examples=float(np.var(drawn, ddof=1)),
        examples=baseline.examples,
        confidence=confidence,
        resamples=resamples,
    )


def score_interval(scores: Scores, *, confidence: float = 0.95) -> Interval:
    """Return the interval of one side's own score, over examples, and over seeds where there are several.

    Errors: as `paired_interval`.
    """
    nothing = Scores(metrics=(lambda weights: np.zeros(len(weights)),), objects=scores.objects)
    return paired_interval(candidate=scores, baseline=nothing, confidence=confidence)


def _pairs(candidate: Sequence[Metric], baseline: Sequence[Metric]) -> list[tuple[Metric, Metric]]:
    if len(baseline) not in {1, len(candidate)}:
        raise UsageError(
            f"{len(candidate)} seeds of one side cannot be paired with {len(baseline)} of the other; give the same "
            "seeds of both"
        )
    return [(one, baseline[number % len(baseline)]) for number, one in enumerate(candidate)]


def _resampled(pair: tuple[Metric, Metric], weights: Array) -> Array:
    return pair[0](weights) - pair[1](weights)


def _over_examples(difference: float, drawn: Array, examples: int, confidence: float, resamples: int) -> Interval:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    beyond = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return Interval(
        difference=difference,
        low=float(low),
        high=float(high),
        confidence=confidence,
        seeds=1,
        examples=examples,
        v_seeds=None,
        v_examples=float(np.var(drawn, ddof=1)),
        df=None,
        p=min(1.0, 2 * (beyond + 1) / (len(drawn) + 1)),
        method=PERCENTILE,
        resamples=resamples,
    )


def over_seeds_and_examples(
    differences: Array, *, v_examples: float, examples: int, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Return the t interval of the mean of paired differences, one a seed, with the variance over examples added.

    What seeds and examples do together is counted in both variances, so that it is a little too wide.

    Shapes: differences (seeds,), two or more.
    Source: Welch 1947 and Satterthwaite 1946, for the degrees of freedom.
    """
    seeds, mean = len(differences), float(np.mean(differences))
    v_seeds = float(np.var(differences, ddof=1)) / seeds
    df = degrees_of_freedom(v_seeds, v_examples, seeds=seeds, examples=examples)
    error = float(np.sqrt(v_seeds + v_examples))
    half = half_width(v_seeds, v_examples, df, confidence)
    from scipy import special  # noqa: PLC0415 (slow to import)

    p = float(2 * special.stdtr(df, -abs(mean) / error)) if error else float(mean == 0)
    return Interval(
        difference=mean,
        low=mean - half,
        high=mean + half,
        confidence=confidence,
        seeds=seeds,
        examples=examples,
        v_seeds=v_seeds,
        v_examples=v_examples,
        df=df,
        p=p,
        method=SEEDS_AND_EXAMPLES,
        resamples=resamples,
    )


def degrees_of_freedom(v_seeds: float, v_examples: float, *, seeds: int, examples: int) -> float:
    """Return the degrees of freedom of the sum of two variances of means.

    Source: Satterthwaite 1946.
    """
    scale = max(v_seeds, v_examples)
    if scale == 0:
        return float(seeds - 1)
    one, other = v_seeds / scale, v_examples / scale
    return (one + other) ** 2 / (one**2 / (seeds - 1) + other**2 / max(examples - 1, 1))


def half_width(v_seeds: float, v_examples: float, df: float, confidence: float) -> float:
    """Return half the width of a t interval whose two variances add up."""
    from scipy import special  # noqa: PLC0415 (slow to import)

    return float(special.stdtrit(df, (1 + confidence) / 2) * np.sqrt(v_seeds + v_examples))
