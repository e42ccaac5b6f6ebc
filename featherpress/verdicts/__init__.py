"""Whether models differ by more than chance: intervals, verdicts, and a gate for builds; without torch."""

from featherpress.verdicts.claims import MIN_EXAMPLES, MIN_SEEDS, Claim, Verdict, judge, sentence_about
from featherpress.verdicts.gate import GateResult, gate
from featherpress.verdicts.holm import adjust_holm, adjusted_verdicts
from featherpress.verdicts.intervals import Interval, Metric, Scores, paired_interval, resample, score_interval
from featherpress.verdicts.sample_size import Needs, needs_to_show

__all__ = [
    "MIN_EXAMPLES",
    "MIN_SEEDS",
    "Claim",
    "GateResult",
    "Interval",
    "Metric",
    "Needs",
    "Scores",
    "Verdict",
    "adjust_holm",
    "adjusted_verdicts",
    "gate",
    "judge",
    "needs_to_show",
    "paired_interval",
    "resample",
    "score_interval",
    "sentence_about",
]
