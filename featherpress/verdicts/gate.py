"""Whether a candidate is not worse than a baseline by more than a margin."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from numpy.typing import ArrayLike

from featherpress.errors import UsageError
from featherpress.verdicts.claims import MIN_EXAMPLES, MIN_SEEDS, basis
from featherpress.verdicts.intervals import Interval, Scores, paired_interval
from featherpress.verdicts.sample_size import MOST_EXAMPLES, MOST_SEEDS, needs_to_show

Outcome: TypeAlias = Literal["not worse", "worse", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """An outcome with the numbers it rests on: the difference, candidate less baseline, and both one-sided ends.

    Units: the metric's own. `confidence` is that of each end; `interval` is therefore a narrower two-sided one.
    """

    exit_codes: ClassVar[dict[Outcome, int]] = {"not worse": 0, "worse": 1, "undecided": 3}

    outcome: Outcome
    candidate: str
    baseline: str
    metric: str
    unit: str
    margin: float
    confidence: float
    scores: tuple[float, float]
    interval: Interval
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0 not worse, 1 worse, 3 undecided."""
        return self.exit_codes[self.outcome]

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        digits = max(3, 1 - math.floor(math.log10(self.margin)))
        low, high, margin = (f"{value:.{digits}f}" for value in (self.interval.low, self.interval.high, self.margin))
        size = abs(self.interval.difference)
        direction = "lower" if self.interval.difference < 0 else "higher"
        found = (
            f"{self.outcome}: {self.candidate} scores {size:.{digits}f} {direction} than {self.baseline} in "
            f"{self.metric}"
        )
        sure = f"{100 * self.confidence:g}% sure over {basis(self.interval, self.unit)}"
        if self.outcome == "not worse":
            return f"{found}; the difference is above {low}, and the margin is {margin} ({sure})."
        if self.outcome == "worse":
            return f"{found}; the difference is below {high}, and the margin is {margin} ({sure})."
        return (
            f"{found}; the difference is between {low} and {high}, and the margin is {margin} ({sure}); {self.reason}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record `featherpress.gate/1`."""
        return {
            "schema": "featherpress.gate/1",
            "outcome": self.outcome,
            "sentence": self.sentence,
            "candidate": {"name": self.candidate, "score": self.scores[0]},
            "baseline": {"name": self.baseline, "score": self.scores[1]},
            "metric": self.metric,
            "margin": self.margin,
            "difference": self.interval.difference,
            "low": self.interval.low,
            "high": self.interval.high,
            "confidence": self.confidence,
            "covers": list(self.interval.covers),
            "seeds": self.interval.seeds,
            "examples": self.interval.examples,
            "method": self.interval.method,
        }


def gate(
    candidate: ArrayLike | Scores,
    baseline: ArrayLike | Scores,
    *,
    margin: float,
    confidence: float = 0.95,
    metric: str = "score",
    names: tuple[str, str] = ("the candidate", "the baseline"),
    unit: str = "examples",
) -> GateResult:
    """Decide whether the candidate is worse than the baseline by more than a margin, higher scores being better.

    Each side is one value per example, or `Scores` of any metric that can be recomputed on resampled examples.

    Shapes: (examples,) for one model, (seeds, examples) for several; examples in the same order on both sides.
    Units: `margin` is in the metric's own; `confidence` is that of the one-sided interval.
    Errors: UsageError for a margin that is not positive, or a confidence that is not between 0.5 and 1; DataError for
    sides that cannot be compared.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise UsageError(f"a margin is a positive number in the unit of {metric}, got {margin:g}")
    if not 0.5 < confidence < 1:
        raise UsageError(f"a confidence is above 0.5 and below 1, as 0.95, got {confidence:g}")
    sides = [side if isinstance(side, Scores) else Scores.of(side) for side in (candidate, baseline)]
    interval = paired_interval(candidate=sides[0], baseline=sides[1], confidence=2 * confidence - 1)
    outcome, reason = _decide(interval, margin=margin, holding=sides[1].holding, unit=unit)
    return GateResult(
        outcome=outcome,
        candidate=names[0],
        baseline=names[1],
        metric=metric,
        unit=unit,
        margin=margin,
        confidence=confidence,
        scores=(float(sides[0].observed().mean()), float(sides[1].observed().mean())),
        interval=interval,
        reason=reason,
    )


def _decide(interval: Interval, *, margin: float, holding: int, unit: str) -> tuple[Outcome, str]:
    if interval.seeds == 2:
        return "undecided", f"2 seeds are too few for their spread: give one of each side, or {MIN_SEEDS} or more"
    if holding < MIN_EXAMPLES:
        return "undecided", f"{holding} {unit} with something to find are too few: give {MIN_EXAMPLES} or more"
    if interval.low > -margin:
        return "not worse", ""
    if interval.high < -margin:
        return "worse", ""
    needs = needs_to_show(interval, apart_from=-margin)
    if needs.seeds or needs.examples:
        return "undecided", f"{needs.phrase(unit, about_seeds=False)} would decide, if the difference stays"
    seeds = f"{MOST_SEEDS} seeds or " if interval.seeds > 1 else ""
    return "undecided", f"not even {seeds}{MOST_EXAMPLES:,} {unit} would decide, if the difference stays"
