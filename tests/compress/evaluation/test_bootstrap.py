"""The paired bootstrap: what it shows, what it refuses to show, and that it adds up."""

from dataclasses import replace

import numpy as np
import pytest

from featherpress.compress.evaluation import bootstrap
from featherpress.compress.evaluation.bootstrap import (
    Comparison,
    SeedScores,
    compare,
    weighted_average_precision,
)
from featherpress.compress.evaluation.metrics.average_precision import Matches, average_precision
from featherpress.errors import DataError, UsageError


def simulate(*, seed: int, images: int = 40, skill: float = 0.5, ties: bool = False) -> Matches:
    """Detections of which a share `skill` are hits, a few an image, surer when they are hits."""
    rng = np.random.default_rng(seed)
    faces = np.arange(images) % 4
    owner = np.repeat(np.arange(images), 6)
    slot = np.tile(np.arange(6), images)
    hits = (slot < faces[owner]) & (rng.random(len(owner)) < skill)
    scores = rng.random(len(owner)) * 0.8 + 0.2 * hits
    return Matches(
        scores=np.round(scores, 1) if ties else scores,
        hits=hits,
        counted=hits | (rng.random(len(owner)) < 0.7),
        images=owner,
        faces=faces,
    )


def ap(matches: Matches) -> float:
    score = average_precision(matches)
    assert score.ap is not None
    return score.ap


def repeat(matches: Matches, times: list[int]) -> Matches:
    """The set that really holds each image that many times."""
    parts = [np.flatnonzero(matches.images == image) for image, count in enumerate(times) for _ in range(count)]
    rows = np.concatenate(parts)
    return Matches(
        scores=matches.scores[rows],
        hits=matches.hits[rows],
        counted=matches.counted[rows],
        images=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        faces=np.repeat(matches.faces, times),
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("block", [2**22, 7])
def test_weights_stand_for_repeated_images(ties: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight of n is n copies of the image, whatever the block size."""
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    matches = simulate(seed=1, images=8, ties=ties)
    weights = np.random.default_rng(2).integers(0, 4, (9, 8))
    expected = np.array([ap(repeat(matches, row.tolist())) for row in weights])
    assert weighted_average_precision(matches, weights.astype(float)) == pytest.approx(expected, abs=1e-12)


def test_a_model_without_hits_has_ap_0_in_every_resample() -> None:
    """Nothing found, nothing detected: 0, not a division by 0."""
    silent = Matches(
        scores=np.empty(0),
        hits=np.empty(0, bool),
        counted=np.empty(0, bool),
        images=np.empty(0, int),
        faces=np.array([1, 2]),
    )
    assert weighted_average_precision(silent, np.ones((3, 2))).tolist() == [0, 0, 0]


def test_resamples_without_a_face_are_left_out() -> None:
    """With one face in two images a quarter of the resamples hold none; the rest find it always."""
    matches = Matches(
        scores=np.array([0.9]),
        hits=np.array([True]),
        counted=np.array([True]),
        images=np.array([0]),
        faces=np.array([1, 0]),
    )
    blind = replace(matches, hits=np.array([False]))
    result = compare(control=[blind], distilled=[matches], resamples=50)
    assert (result.low, result.high) == (1, 1)


def test_identical_models_differ_by_nothing() -> None:
    """Paired resamples of one model against itself give 0 to 0, which is not shown."""
    matches = simulate(seed=3)
    result = compare(control=[matches], distilled=[matches], resamples=100)
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    assert result.verdict == "not shown"
    assert "is not shown" in result.sentence


def test_equally_good_models_are_not_told_apart() -> None:
    """Two draws of one skill give an interval that holds 0."""
    result = compare(control=[simulate(seed=4)], distilled=[simulate(seed=5)], resamples=300)
    assert result.low < 0 < result.high
    assert result.verdict == "not shown"


def test_a_clearly_better_model_is_shown_to_be_and_the_other_way_round() -> None:
    """Skill 0.9 against 0.3 leaves 0 out, on the right side of it."""
    weak, strong = simulate(seed=6, skill=0.3), simulate(seed=7, skill=0.9)
    gain = compare(control=[weak], distilled=[strong], resamples=300)
    loss = compare(control=[strong], distilled=[weak], resamples=300)
    assert 0 < gain.low < gain.difference < gain.high
    assert (gain.verdict, loss.verdict) == ("better", "worse")
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low))
    assert gain.sentence.startswith("Distillation raised AP by ")
    assert loss.sentence.startswith("Distillation lowered AP by ")


def test_the_interval_depends_on_the_seed_alone() -> None:
    """The same seed repeats it to the bit, another seed does not."""
    control, distilled = [simulate(seed=8)], [simulate(seed=9)]
    first, again, other = (
        compare(control=control, distilled=distilled, resamples=100, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_seeds_are_averaged_on_both_sides() -> None:
    """The difference is that of the means over seeds, with their spread beside it."""
    control = [simulate(seed=10), simulate(seed=11)]
    distilled = [simulate(seed=12, skill=0.6), simulate(seed=13, skill=0.6)]
    result = compare(control=control, distilled=distilled, resamples=50)
    expected = [ap(each) for each in control]
    assert result.control.to_dict() == {
        "ap": expected,
        "mean": pytest.approx(np.mean(expected)),
        "std": pytest.approx(abs(expected[0] - expected[1]) / np.sqrt(2)),
    }
    assert result.difference == pytest.approx(result.distilled.mean - result.control.mean)
    assert result.sentence.endswith("40 images, 2 seeds).")


def comparison(difference: float, low: float, high: float) -> Comparison:
    return Comparison(
        control=SeedScores(ap=(0.5,)),
        distilled=SeedScores(ap=(0.5 + difference,)),
        difference=difference,
        low=low,
        high=high,
        confidence=0.95,
        resamples=2000,
        images=1240,
    )


def test_the_record_holds_what_the_report_needs() -> None:
    """The difference, its interval and method, the verdict and its sentence, and None for the spread of one seed."""
    record = comparison(0.031, 0.012, 0.05).to_dict()
    assert record["difference"] == {
        "mean": 0.031,
        "low": 0.012,
        "high": 0.05,
        "confidence": 0.95,
        "resamples": 2000,
        "method": "paired bootstrap over images",
    }
    assert record["verdict"] == "better"
    assert record["control"]["std"] is None
    assert record["sentence"] == (
        "Distillation raised AP by 0.031 (95% interval of the difference 0.012 to 0.050, 1,240 images, 1 seed)."
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.01, 0.05, "not shown"), (0.0, 0.05, "not shown"), (-0.05, 0.0, "not shown"), (-0.05, -0.001, "worse")],
)
def test_the_verdict_comes_from_the_interval_alone(low: float, high: float, verdict: str) -> None:
    """An end at 0 holds 0, whatever the observed difference says."""
    assert comparison(0.02, low, high).verdict == verdict


def test_a_bound_near_0_is_not_printed_as_0() -> None:
    """A verdict of better never stands beside an interval that reads as if it held 0."""
    assert "0.00004 to 0.05000" in comparison(0.02, 0.00004, 0.05).sentence


def test_models_scored_on_different_images_are_not_compared() -> None:
    """Other faces, no faces and no models each end in one sentence."""
    matches, fewer = simulate(seed=14), simulate(seed=14, images=12)
    with pytest.raises(DataError, match="same images"):
        compare(control=[matches], distilled=[fewer])
    with pytest.raises(UsageError, match="none of one side"):
        compare(control=[matches], distilled=[])
    empty = simulate(seed=14, images=1)
    with pytest.raises(DataError, match="at least one face"):
        compare(control=[empty], distilled=[empty])
