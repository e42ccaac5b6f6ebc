"""How many seeds or examples it would take for an observed difference to show."""

from collections.abc import Callable
from dataclasses import dataclass

from featherpress.verdicts.intervals import Interval, degrees_of_freedom, half_width

MOST_SEEDS = 100
MOST_EXAMPLES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The fewest seeds, and the fewest examples, that would do; None where no reasonable number would."""

    seeds: int | None
    examples: int | None

    def phrase(self, unit: str, *, about_seeds: bool) -> str:
        """Return the numbers in words, as "9 seeds, or 1,200 images"."""
        parts = [f"{self.seeds} seeds"] if self.seeds else []
        parts += [f"{self.examples:,} {unit}"] if self.examples else []
        if parts:
            return ", or ".join(parts)
        return f"more than {MOST_SEEDS} seeds" if about_seeds else f"more than {MOST_EXAMPLES:,} {unit}"


def needs_to_show(interval: Interval, *, apart_from: float = 0.0) -> Needs:
    """Return how many seeds, or examples, would keep the interval clear of a value, if the difference stays.

    Variances stay as they were estimated; seeds are tried with these examples, and examples with these seeds.
    """
    distance = abs(interval.difference - apart_from)
    if distance == 0:
        return Needs(seeds=None, examples=None)
    if interval.v_seeds is None:
        below = interval.difference > apart_from
        toward = interval.difference - interval.low if below else interval.high - interval.difference
        count = interval.examples * (toward / distance) ** 2
        return Needs(seeds=None, examples=int(count) + 1 if count < MOST_EXAMPLES else None)
    return Needs(
        seeds=_first(lambda seeds: _half(interval, seeds=seeds) < distance, interval.seeds + 1, MOST_SEEDS),
        examples=_first(lambda count: _half(interval, examples=count) < distance, interval.examples + 1, MOST_EXAMPLES),
    )


def _half(interval: Interval, *, seeds: int = 0, examples: int = 0) -> float:
    assert interval.v_seeds is not None
    seeds, examples = seeds or interval.seeds, examples or interval.examples
    v_seeds = interval.v_seeds * interval.seeds / seeds
    v_examples = interval.v_examples * interval.examples / examples
    df = degrees_of_freedom(v_seeds, v_examples, seeds=seeds, examples=examples)
    return half_width(v_seeds, v_examples, df, interval.confidence)


def _first(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the smallest number from `low` to `high` that is enough, where more is never worse."""
    if low > high or not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
