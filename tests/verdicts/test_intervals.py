"""The interval over seeds and examples: hand-worked numbers, what it covers, and how often it claims too much."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from featherpress.errors import DataError, UsageError
from featherpress.verdicts import Scores, paired_interval, score_interval, simulation
from featherpress.verdicts.intervals import over_seeds_and_examples
from featherpress.verdicts.simulation import claim_rate, over_examples_alone


def test_two_equal_variances_by_hand() -> None:
    """With v_seeds = v_examples = v, 3 seeds and 31 examples: df = 4 / (1/2 + 1/30) = 7.5, error = sqrt(2 v)."""
    v = 0.0001 / 3  # the variance of 0.01, 0.02, 0.03 is 0.0001
    found = over_seeds_and_examples(np.array([0.01, 0.02, 0.03]), v_examples=v, examples=31)
    assert found.difference == pytest.approx(0.02)
    assert found.v_seeds == pytest.approx(v)
    assert found.df == pytest.approx(7.5)
    half = 2.333038 * 0.00816497  # t at 0.975 and 7.5 degrees; the root of 2 v
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-6)
    assert found.covers == ("seeds", "examples")


def test_the_documented_seeds_do_not_show_a_gain() -> None:
    """Gains of 0.071, 0.003 and 0.047 alone give -0.045 to 0.126: t at 2 degrees is 4.303."""
    found = over_seeds_and_examples(np.array([0.071, 0.003, 0.047]), v_examples=0.0, examples=240)
    assert found.df == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((-0.045, 0.126), abs=1e-3)


def test_the_variance_over_examples_is_that_of_the_mean_over_seeds() -> None:
    """Of what two seeds have of their own, half the variance is left; of what they share, all of it."""
    own = np.random.default_rng(0).standard_normal((2, 400))
    shared = np.vstack([own[0], own[0]])
    zeros = np.zeros((2, 400))
    found = [paired_interval(candidate=Scores.of(each), baseline=Scores.of(zeros)) for each in (own, shared)]
    assert found[0].v_examples * 400 == pytest.approx(own.mean(axis=0).var(), rel=0.15)
    assert found[1].v_examples * 400 == pytest.approx(own[0].var(), rel=0.15)


def test_one_pair_has_a_percentile_interval_over_examples_alone() -> None:
    """It leaves seeds out, and says so."""
    values = np.linspace(0, 1, 100)
    found = paired_interval(candidate=Scores.of(values), baseline=Scores.of(np.zeros(100)))
    assert found.covers == ("examples",)
    assert (found.v_seeds, found.df) == (None, None)
    error = values.std() / 10
    assert (found.low, found.high) == pytest.approx((0.5 - 1.96 * error, 0.5 + 1.96 * error), abs=0.01)
    assert found.p < 0.002


def test_any_metric_that_can_be_resampled_will_do() -> None:
    """A ratio of sums is no mean of values per example; sets that hold nothing to find are left out."""
    hits, faces = np.array([1.0, 0, 3, 0]), np.array([2, 0, 3, 0])
    recall = Scores(metrics=(lambda weights: weights @ hits / (weights @ faces),), objects=faces)
    nothing = Scores(metrics=(lambda weights: np.zeros(len(weights)),), objects=faces)
    found = paired_interval(candidate=recall, baseline=nothing)
    assert found.difference == pytest.approx(4 / 5)
    assert 0.5 <= found.low < found.high <= 1
    assert np.isfinite(found.v_examples)


def test_a_baseline_of_one_model_is_paired_with_every_candidate() -> None:
    """The shipped model has one seed; other numbers than one or the same cannot be paired."""
    rows = np.random.default_rng(1).random((3, 50))
    broadcast = paired_interval(candidate=Scores.of(rows), baseline=Scores.of(rows[0]))
    written_out = paired_interval(candidate=Scores.of(rows), baseline=Scores.of(np.vstack([rows[0]] * 3)))
    assert broadcast == written_out
    with pytest.raises(UsageError, match="3 seeds of one side cannot be paired with 2"):
        paired_interval(candidate=Scores.of(rows), baseline=Scores.of(rows[:2]))


@pytest.mark.parametrize(
    ("values", "message"),
    [(["a", "b"], "Expected numbers"), ([1.0, float("nan")], "finite"), ([], "shape"), (np.zeros((2, 2, 2)), "shape")],
)
def test_scores_that_are_none_are_refused(values: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Scores.of(values)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="same images"):
        paired_interval(candidate=Scores.of([1.0]), baseline=Scores.of([1.0, 2.0]))


def test_the_same_seed_repeats_the_interval() -> None:
    rows = np.random.default_rng(2).random((2, 3, 60))
    sides = [Scores.of(each) for each in rows]
    first, again, other = (paired_interval(candidate=sides[0], baseline=sides[1], seed=seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the resamples, which is enough to count claims."""
    monkeypatch.setattr(simulation, "paired_interval", partial(paired_interval, resamples=400))


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.03), (5, 0.03), (3, 0.0)])
def test_little_is_claimed_where_nothing_differs(seeds: int, spread: float) -> None:
    """Of 400 comparisons at most a tenth claim something, whether seeds differ or images alone."""
    assert claim_rate(seeds=seeds, seed_spread=spread, comparisons=400) <= 0.10


@pytest.mark.usefixtures("fewer_resamples")
def test_an_interval_over_images_alone_claims_far_too_much() -> None:
    """Four in ten at this spread over seeds: the simulation can tell the two apart."""
    assert claim_rate(seeds=3, seed_spread=0.03, comparisons=200, rule=over_examples_alone) > 0.3


@pytest.mark.usefixtures("fewer_resamples")
def test_a_gain_that_is_there_is_mostly_found() -> None:
    """0.05 at a spread of 0.01, three seeds: an interval that claims nothing would be calibrated too."""
    assert claim_rate(seeds=3, seed_spread=0.01, gain=0.05, comparisons=100) > 0.85


def test_no_torch_is_imported() -> None:
    code = (
        "from featherpress.verdicts import gate; gate([1.0] * 30, [1.0] * 30, margin=0.1); "
        "import sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_interval_of_a_score_is_that_of_its_difference_to_nothing() -> None:
    """Over seeds and examples by hand; and over examples alone for one seed."""
    values = np.random.default_rng(0).random((4, 200))
    found = score_interval(Scores.of(values))
    assert found.difference == pytest.approx(values.mean())
    assert found.v_seeds == pytest.approx(values.mean(axis=1).var(ddof=1) / 4)
    assert found.v_examples == pytest.approx(values.mean(axis=0).var() / 200, rel=0.1)
    assert score_interval(Scores.of(values[0])).covers == ("examples",)
