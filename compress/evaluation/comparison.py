"""Two sides on the same images: how much they differ, and what may be said of it."""

from dataclasses import asdict, dataclass

import numpy as np

from featherpress.records.comparison import Arm, Difference
from featherpress.verdicts import Claim, Interval, Scores, Verdict, judge, paired_interval, sentence_about


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The scores of both sides by seed, the interval of their difference, the verdict and its sentence."""

    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    interval: Interval
    verdict: Verdict
    sentence: str

    @property
    def difference(self) -> Difference:
        """The difference and its interval as a record holds them."""
        fields = {**asdict(self.interval), "mean": self.interval.difference, "covers": self.interval.covers}
        return Difference.model_validate(fields)


def compare(
    *,
    baseline: Scores,
    candidate: Scores,
    claim: Claim,
    min_score: float | None = None,
    obstacle: str = "",
    confidence: float = 0.95,
) -> Compared:
    """Compare two sides of one metric; an `obstacle` is why there can be no verdict.

    Errors: UsageError and DataError as `paired_interval`.
    """
    interval = paired_interval(candidate=candidate, baseline=baseline, confidence=confidence)
    ours, theirs = candidate.observed(), baseline.observed()
    means = (float(theirs.mean()), float(ours.mean()))
    verdict, reason = judge(
        interval, claim, holding=baseline.holding, scores=means, min_score=min_score, obstacle=obstacle
    )
    return Compared(
        baseline=tuple(theirs.tolist()),
        candidate=tuple(ours.tolist()),
        interval=interval,
        verdict=verdict,
        sentence=sentence_about(claim, interval, verdict, reason),
    )


def make_arm(scores: tuple[float, ...]) -> Arm:
    """Return one side as a record holds it: a score a seed, their mean and deviation."""
    std = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return Arm(scores=scores, mean=float(np.mean(scores)), std=std)
