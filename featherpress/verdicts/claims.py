"""What may be said of a difference: of a method, over seeds; or of two files."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from featherpress.verdicts.intervals import Interval
from featherpress.verdicts.sample_size import needs_to_show

Verdict: TypeAlias = Literal["better", "worse", "not shown", "undecided"]

MIN_SEEDS = 3
MIN_EXAMPLES = 30
DIGITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a difference is said of, and in which words.

    A claim about a `method` needs seeds, one about two `files` (the candidate's name, then the baseline's) does not.
    `beyond` qualifies the method, as "beyond the backbone that both start from".
    """

    metric: str = "AP"
    unit: str = "images"
    method: str = "distillation"
    beyond: str = ""
    files: tuple[str, str] | None = None


def judge(
    interval: Interval,
    claim: Claim,
    *,
    holding: int,
    scores: tuple[float, float] | None = None,
    min_score: float | None = None,
    obstacle: str = "",
) -> tuple[Verdict, str]:
    """Return the verdict on a difference and, where there is none, the reason.

    `holding` counts the examples that hold an object; `scores` are those of both sides, which say nothing where both
    are below `min_score`; an `obstacle` is a reason of the caller's own.
    """
    reason = obstacle or _reason(interval, claim, holding=holding, scores=scores, min_score=min_score)
    if reason:
        return "undecided", reason
    if interval.low > 0:
        return "better", ""
    return ("worse" if interval.high < 0 else "not shown"), ""


def _reason(
    interval: Interval, claim: Claim, *, holding: int, scores: tuple[float, float] | None, min_score: float | None
) -> str:
    if claim.files is None and interval.seeds < MIN_SEEDS:
        return f"{_count(interval.seeds, 'seeds')}, and a claim about a method takes {MIN_SEEDS} or more"
    if holding < MIN_EXAMPLES:
        return f"{_count(holding, claim.unit)} with something to find, and it takes {MIN_EXAMPLES} or more"
    if scores is not None and min_score is not None and max(scores) < min_score:
        return (
            f"neither side reaches an {claim.metric} of {min_score:g} ({scores[0]:.3f} and {scores[1]:.3f}), so that "
            "nothing was learned to compare"
        )
    if abs(interval.difference) < 0.5 * 10**-DIGITS:
        return f"the difference in {claim.metric} rounds to {0:.{DIGITS}f}"
    return ""


def sentence_about(claim: Claim, interval: Interval, verdict: Verdict, reason: str = "") -> str:
    """Return the verdict in words, with the numbers it rests on; a half of the last digit is rounded as reports do."""
    ends = {name: round(getattr(interval, name), 12) for name in ("difference", "low", "high")}
    interval = replace(interval, **ends)
    return _of_files(claim, interval, verdict, reason) if claim.files else _of_method(claim, interval, verdict, reason)


def _of_method(claim: Claim, interval: Interval, verdict: Verdict, reason: str) -> str:
    beyond = f" {claim.beyond}" if claim.beyond else ""
    bounds = f"{_bounds(interval)} over {basis(interval, claim.unit)}"
    differs = f"{claim.metric} differs by {signed(interval.difference)}"
    if verdict == "undecided":
        return f"No verdict on {claim.method}: {reason} ({differs}, {bounds})."
    if verdict == "not shown":
        sign = "gain" if interval.difference > 0 else "loss"
        return (
            f"A {sign} from {claim.method}{beyond} is not shown: {differs}, and the {bounds} holds 0; such a "
            f"difference would show with {needs_to_show(interval).phrase(claim.unit, about_seeds=True)}."
        )
    verb = "raised" if verdict == "better" else "lowered"
    method = f"{claim.method[0].upper()}{claim.method[1:]}"
    return f"{method} {verb} {claim.metric} by {abs(interval.difference):.{DIGITS}f}{beyond} ({bounds})."


def _of_files(claim: Claim, interval: Interval, verdict: Verdict, reason: str) -> str:
    assert claim.files is not None
    candidate, baseline = claim.files
    size = f"{abs(interval.difference):.{DIGITS}f} {'lower' if interval.difference < 0 else 'higher'}"
    digits = _digits(interval)
    found = (
        f"{candidate} scores {size} than {baseline} in {claim.metric} ({interval.confidence:.0%} interval over "
        f"{basis(interval, claim.unit)} {interval.low:.{digits}f} to {interval.high:.{digits}f})"
    )
    if verdict == "undecided":
        return f"{found}: undecided, {reason}."
    if verdict == "not shown":
        needs = needs_to_show(interval).phrase(claim.unit, about_seeds=False)
        return f"{found}: not shown; such a difference would show with {needs}."
    return f"{found}: {verdict}."


def basis(interval: Interval, unit: str) -> str:
    """Return what an interval is over in words, as "5 seeds and 240 images"."""
    examples = _count(interval.examples, unit)
    return f"{_count(interval.seeds, 'seeds')} and {examples}" if "seeds" in interval.covers else examples


def signed(value: float) -> str:
    """Return a difference with its sign, never as -0.000."""
    return f"{round(value, DIGITS) + 0.0:+.{DIGITS}f}"


def _bounds(interval: Interval) -> str:
    digits = _digits(interval)
    return f"{interval.confidence:.0%} interval {interval.low:.{digits}f} to {interval.high:.{digits}f}"


def _digits(interval: Interval) -> int:
    """Return the decimals at which a bound that is not 0 does not print as 0."""
    bounds = [abs(bound) for bound in (interval.low, interval.high) if bound != 0]
    return next((digits for digits in range(DIGITS, 9) if all(bound >= 0.5 * 10**-digits for bound in bounds)), 9)


def _count(number: int, plural: str) -> str:
    return f"{number:,} {plural[:-1] if number == 1 else plural}"
