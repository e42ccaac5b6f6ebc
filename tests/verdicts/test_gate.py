"""The gate: its three outcomes at their borders, with hand-worked numbers."""

import numpy as np
import pytest

from featherpress.errors import DataError, UsageError
from featherpress.verdicts import Scores, gate

BASE = np.zeros((3, 40))
# Three seeds 0.01, 0.02, 0.03, alike on all examples: error 0.01 / sqrt(3), and t at 0.95 and 2 degrees is 2.919986.
SEEDS = np.array([[0.01], [0.02], [0.03]]) + np.zeros((3, 40))
HALF = 2.919986 * 0.01 / np.sqrt(3)


@pytest.mark.parametrize(
    ("shift", "outcome", "code"),
    [
        (HALF - 0.02 - 0.005 + 1e-6, "not worse", 0),  # the lower end just above -0.005
        (HALF - 0.02 - 0.005 - 1e-6, "undecided", 3),
        (-HALF - 0.02 - 0.005 + 1e-6, "undecided", 3),
        (-HALF - 0.02 - 0.005 - 1e-6, "worse", 1),  # the upper end just below -0.005
    ],
)
def test_the_outcomes_at_their_borders(shift: float, outcome: str, code: int) -> None:
    """The ends are one-sided at 0.95, so that t is 2.92, not 4.30."""
    found = gate(SEEDS + shift, BASE, margin=0.005)
    assert (found.outcome, found.exit_code) == (outcome, code)


def test_an_end_on_the_margin_decides_nothing() -> None:
    """Twice the same score less a quarter, at a margin of a quarter: all in powers of two, so exact."""
    assert gate(np.zeros(40), np.full(40, 0.25), margin=0.25).outcome == "undecided"


def test_one_pair_is_decided_by_percentiles_over_examples() -> None:
    """Of 400 examples 40 got worse by one: -0.1, with an error of 0.015 and ends 1.645 of them away."""
    candidate = np.ones(400)
    candidate[:40] = 0
    assert gate(candidate, np.ones(400), margin=0.13).outcome == "not worse"
    assert gate(candidate, np.ones(400), margin=0.12).outcome == "undecided"
    assert gate(candidate, np.ones(400), margin=0.08).outcome == "undecided"
    assert gate(candidate, np.ones(400), margin=0.07).outcome == "worse"


def test_undecided_says_how_many_examples_would_decide() -> None:
    """As many as move the end to the margin: (0.0247 / 0.02) squared times 400 is about 610."""
    candidate = np.ones(400)
    candidate[:40] = 0
    found = gate(candidate, np.ones(400), margin=0.12, metric="accuracy", names=("new", "old"), unit="images")
    assert found.sentence.startswith(
        "undecided: new scores 0.100 lower than old in accuracy; the difference is between -0.12"
    )
    count = int(found.reason.split()[0])
    assert 500 < count < 750
    assert "images would decide, if the difference stays" in found.sentence


def test_undecided_says_where_neither_seeds_nor_examples_would_decide() -> None:
    """Three seeds that differ by much, around the margin itself."""
    seeds = np.stack([np.full(40, 0.0), np.full(40, 0.25), np.full(40, -0.25)])
    found = gate(seeds, np.full((3, 40), 0.25), margin=0.25, unit="images")
    assert found.outcome == "undecided"
    assert found.reason == "not even 100 seeds or 1,000,000 images would decide, if the difference stays"


def test_the_margin_is_printed_where_it_decides() -> None:
    sentence = gate(SEEDS, BASE, margin=0.005, metric="AP", names=("a.csv", "b.csv")).sentence
    assert sentence == (
        "not worse: a.csv scores 0.0200 higher than b.csv in AP; the difference is above 0.0031, and the margin is "
        "0.0050 (95% sure over 3 seeds and 40 examples)."
    )


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (np.full(29, 2.0), "29 examples with something to find are too few"),
        (np.full((2, 40), 2.0), "2 seeds are too few"),
    ],
)
def test_too_few_examples_or_seeds_decide_nothing(candidate: np.ndarray, reason: str) -> None:
    found = gate(candidate, np.zeros(candidate.shape), margin=0.1)
    assert found.outcome == "undecided"
    assert reason in found.sentence


def test_a_metric_that_is_recomputed_will_do() -> None:
    """A function of the resampled sets, as average precision is."""
    objects = np.full(40, 2)
    one = Scores(metrics=(lambda weights: np.full(len(weights), 0.75),), objects=objects)
    other = Scores(metrics=(lambda weights: np.full(len(weights), 0.5),), objects=objects)
    assert gate(one, other, margin=0.01).outcome == "not worse"
    assert gate(other, one, margin=0.01).outcome == "worse"


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_a_margin_is_a_positive_number(margin: float) -> None:
    with pytest.raises(UsageError, match="a margin is a positive number in the unit of score"):
        gate(BASE, BASE, margin=margin)


def test_bad_confidence_and_other_examples_are_refused() -> None:
    with pytest.raises(UsageError, match="a confidence is above"):
        gate(BASE, BASE, margin=0.1, confidence=95)
    with pytest.raises(DataError, match="same images"):
        gate(BASE, np.zeros(39), margin=0.1)


def test_the_record_has_what_a_build_reads() -> None:
    record = gate(SEEDS, BASE, margin=0.005).to_dict()
    assert (record["schema"], record["outcome"], record["margin"]) == ("featherpress.gate/1", "not worse", 0.005)
    assert record["covers"] == ["seeds", "examples"]
    assert record["low"] == pytest.approx(0.02 - HALF, abs=1e-6)
