"""Two sides on the same images: how much they differ, and what may be said of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from featherpress.records.comparison import Arm, Difference, Knowledge, OtherArm
from featherpress.verdicts import (
    Claim,
    Interval,
    Scores,
    Verdict,
    adjusted_verdicts,
    judge,
    paired_interval,
    sentence_about,
)


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
        return make_difference(self.interval)


def make_difference(interval: Interval) -> Difference:
    """Return an interval as a record holds it."""
    return Difference.model_validate({**asdict(interval), "mean": interval.difference, "covers": interval.covers})


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


def compare_others(
    scores: Mapping[str, Scores],
    claim: Claim,
    *,
    steps: Mapping[str, tuple[int, ...]] | None = None,
    min_score: float | None = None,
    confidence: float = 0.95,
) -> tuple[OtherArm, ...]:
    """Compare every arm but the student with the control, verdicts adjusted for how many there are."""
    found = {
        arm: compare(
            baseline=scores["control"],
            candidate=each,
            claim=replace(claim, method=arm),
            min_score=min_score,
            confidence=confidence,
        )
        for arm, each in scores.items()
        if arm not in {"student", "control"}
    }
    verdicts = {arm: (each.verdict, each.interval.p) for arm, each in found.items()}
    adjusted = adjusted_verdicts(verdicts, confidence=confidence)
    return tuple(
        OtherArm(
            name=arm,
            scores=make_arm(each.candidate),
            steps=(steps or {}).get(arm, ()),
            difference=each.difference,
            verdict=adjusted[arm][0],
            p=adjusted[arm][1],
        )
        for arm, each in found.items()
    )


def compare_knowledge(
    scores: Mapping[str, Scores],
    placebos: Sequence[str],
    claim: Claim,
    *,
    min_score: float | None = None,
    confidence: float = 0.95,
) -> Knowledge | None:
    """Compare the student with the best of the placebos that were trained; None where there is none."""
    trained = [arm for arm in placebos if arm in scores]
    if not trained:
        return None
    best = max(trained, key=lambda arm: float(scores[arm].observed().mean()))
    found = compare(
        baseline=scores[best],
        candidate=scores["student"],
        claim=replace(claim, method=f"the teacher's knowledge, beyond {best},", beyond=""),
        min_score=min_score,
        confidence=confidence,
    )
    return Knowledge(placebo=best, difference=found.difference, verdict=found.verdict, sentence=found.sentence)


def make_arm(scores: tuple[float, ...]) -> Arm:
    """Return one side as a record holds it: a score a seed, their mean and deviation."""
    std = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return Arm(scores=scores, mean=float(np.mean(scores)), std=std)
