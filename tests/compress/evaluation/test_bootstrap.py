"""Average precision of resampled sets: that it adds up, and how two models are compared by it."""

from dataclasses import replace

import numpy as np
import pytest

from featherpress.compress.evaluation import bootstrap
from featherpress.compress.evaluation.bootstrap import weighted_average_precision
from featherpress.compress.evaluation.comparison import compare, make_arm
from featherpress.compress.evaluation.metrics.average_precision import Matches, average_precision
from featherpress.compress.evaluation.saved_scores import matched_scores
from featherpress.errors import DataError, UsageError
from featherpress.verdicts import Claim, Scores


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
    result = compare(baseline=matched_scores([blind]), candidate=matched_scores([matches]), claim=Claim())
    assert (result.interval.low, result.interval.high) == (1, 1)


def test_seeds_are_paired_and_averaged() -> None:
    """The difference is that of the means over seeds, and the interval covers both."""
    control = [simulate(seed=seed) for seed in (10, 11, 12)]
    distilled = [simulate(seed=seed, skill=0.9) for seed in (13, 14, 15)]
    result = compare(baseline=matched_scores(control), candidate=matched_scores(distilled), claim=Claim())
    assert result.baseline == pytest.approx([ap(each) for each in control])
    assert result.interval.difference == pytest.approx(np.mean(result.candidate) - np.mean(result.baseline))
    assert result.difference.covers == ("seeds", "examples")
    assert (result.verdict, result.difference.seeds, result.difference.examples) == ("better", 3, 40)
    assert result.sentence.startswith("Distillation raised AP by ")


def test_models_scored_on_different_images_are_not_compared() -> None:
    """Other faces, no faces and no models each end in one sentence."""
    matches, fewer = simulate(seed=14), simulate(seed=14, images=12)
    with pytest.raises(DataError, match="same images"):
        compare(baseline=matched_scores([matches]), candidate=matched_scores([fewer]), claim=Claim())
    with pytest.raises(DataError, match="same images"):
        matched_scores([matches, fewer])
    with pytest.raises(UsageError, match="none of one side"):
        Scores(metrics=(), objects=matches.faces)
    with pytest.raises(DataError, match="at least one object"):
        matched_scores([simulate(seed=14, images=1)])


def test_an_arm_by_hand() -> None:
    """Seeds 0.2 and 0.6 have a mean of 0.4 and a sample deviation of sqrt(0.08); one seed has none."""
    arm = make_arm((0.2, 0.6))
    assert arm.to_dict()["scores"] == [0.2, 0.6]
    assert (arm.mean, arm.std) == pytest.approx((0.4, 0.08**0.5))
    assert make_arm((0.5,)).std is None
