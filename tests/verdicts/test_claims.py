"""Verdicts and their words: when there is none, what it would take, and several at once."""

from dataclasses import replace

import numpy as np
import pytest

from featherpress.reports import formats
from featherpress.verdicts import (
    Claim,
    Scores,
    adjust_holm,
    adjusted_verdicts,
    judge,
    needs_to_show,
    paired_interval,
    sentence_about,
)
from featherpress.verdicts.intervals import Interval, over_seeds_and_examples

METHOD = Claim()
FILES = Claim(files=("student.safetensors", "control.safetensors"))


def interval(difference: float, half: float, *, seeds: int = 5) -> Interval:
    """An interval over 240 images as it would be found."""
    return Interval(
        difference=difference,
        low=difference - half,
        high=difference + half,
        confidence=0.95,
        seeds=seeds,
        examples=240,
        v_seeds=(half / 2) ** 2 / 2 if seeds > 1 else None,
        v_examples=(half / 2) ** 2 / 2,
        df=8.0 if seeds > 1 else None,
        p=0.01,
        method="t",
        resamples=2000,
    )


def test_better_worse_and_not_shown() -> None:
    """A bound at 0 holds 0."""
    assert judge(interval(0.041, 0.029), METHOD, holding=200) == ("better", "")
    assert judge(interval(-0.041, 0.029), METHOD, holding=200) == ("worse", "")
    assert judge(interval(0.041, 0.041), METHOD, holding=200) == ("not shown", "")


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "undecided"), (2, "undecided"), (3, "better")])
def test_a_claim_about_a_method_takes_three_seeds(seeds: int, verdict: str) -> None:
    found, reason = judge(interval(0.041, 0.029, seeds=seeds), METHOD, holding=200)
    assert found == verdict
    assert ("a claim about a method takes 3 or more" in reason) == (seeds < 3)


def test_a_claim_about_two_files_takes_one_seed() -> None:
    assert judge(interval(0.041, 0.029, seeds=1), FILES, holding=200) == ("better", "")


@pytest.mark.parametrize(("holding", "verdict"), [(29, "undecided"), (30, "better")])
@pytest.mark.parametrize("claim", [METHOD, FILES])
def test_fewer_than_thirty_images_with_an_object_decide_nothing(claim: Claim, holding: int, verdict: str) -> None:
    found, reason = judge(interval(0.041, 0.029), claim, holding=holding)
    assert found == verdict
    assert ("29 images with something to find, and it takes 30" in reason) == (holding < 30)


@pytest.mark.parametrize(("best", "verdict"), [(0.049, "undecided"), (0.05, "better")])
def test_nothing_is_decided_where_nothing_was_learned(best: float, verdict: str) -> None:
    """One side at the least score is enough."""
    found, reason = judge(interval(0.041, 0.029), METHOD, holding=200, scores=(0.001, best), min_score=0.05)
    assert found == verdict
    assert ("neither side reaches an AP of 0.05 (0.001 and 0.049)" in reason) == (best < 0.05)


@pytest.mark.parametrize(("difference", "verdict"), [(0.00049, "undecided"), (0.0005, "better")])
def test_a_difference_that_rounds_to_nothing_is_none(difference: float, verdict: str) -> None:
    found, reason = judge(interval(difference, 0.0001), METHOD, holding=200)
    assert found == verdict
    assert ("rounds to 0.000" in reason) == (difference < 0.0005)


def test_a_reason_of_the_callers_own_comes_first() -> None:
    found = judge(interval(0.041, 0.029), METHOD, holding=200, obstacle="the arms trained 216 and 48 steps")
    assert found == ("undecided", "the arms trained 216 and 48 steps")


def test_sentences_about_a_method() -> None:
    found = interval(0.041, 0.029)
    assert sentence_about(METHOD, found, "better") == (
        "Distillation raised AP by 0.041 (95% interval 0.012 to 0.070 over 5 seeds and 240 images)."
    )
    beyond = Claim(beyond="beyond the backbone that both start from")
    assert "by 0.041 beyond the backbone that both start from (95%" in sentence_about(beyond, found, "worse")
    assert sentence_about(METHOD, interval(0.02, 0.03), "not shown").startswith(
        "A gain from distillation is not shown: AP differs by +0.020, and the 95% interval -0.010 to 0.050 over 5 "
        "seeds and 240 images holds 0; such a difference would show with "
    )
    assert sentence_about(METHOD, interval(-0.02, 0.03), "not shown").startswith(
        "A loss from distillation is not shown: "
    )
    verdict, reason = judge(interval(-0.0001, 0.03, seeds=2), METHOD, holding=200)
    assert sentence_about(METHOD, interval(-0.0001, 0.03, seeds=2), verdict, reason) == (
        "No verdict on distillation: 2 seeds, and a claim about a method takes 3 or more "
        "(AP differs by +0.000, 95% interval -0.030 to 0.030 over 2 seeds and 240 images)."
    )


def test_sentences_about_two_files_name_them_and_no_method() -> None:
    found = interval(0.017, 0.032, seeds=1)
    sentence = sentence_about(FILES, found, "not shown")
    assert sentence.startswith(
        "student.safetensors scores 0.017 higher than control.safetensors in AP (95% interval over 240 images -0.015 "
        "to 0.049): not shown; such a difference would show with "
    )
    for verdict in ("better", "worse", "not shown", "undecided"):
        assert "istill" not in sentence_about(FILES, found, verdict)  # type: ignore[arg-type]


def test_a_bound_near_0_is_not_printed_as_0() -> None:
    """A verdict of better never stands beside an interval that reads as if it held 0."""
    found = replace(interval(0.02, 0.02), low=0.00004, high=0.05)
    assert "0.00004 to 0.05000" in sentence_about(METHOD, found, "better")


def test_so_many_seeds_or_images_would_show_it() -> None:
    """They are the fewest at which half the interval is narrower than the difference."""
    found = over_seeds_and_examples(np.array([0.0, 0.02, 0.04, 0.03, 0.01]), v_examples=0.00012, examples=240)
    needs = needs_to_show(found)
    assert needs.seeds is None  # the images alone keep it from showing: 1.96 times 0.011 is 0.0215
    assert needs.examples is not None
    for count, shows in ((needs.examples, True), (needs.examples - 1, False)):
        again = over_seeds_and_examples(
            np.array([0.0, 0.02, 0.04, 0.03, 0.01]), v_examples=0.00012 * 240 / count, examples=count
        )
        assert (again.low > 0) == shows


def test_so_many_seeds_by_hand() -> None:
    """Three seeds 0, 0.02, 0.04, no noise over images: half is t * 0.02 / sqrt(S); at 6 it is 0.0210, at 7 0.0185."""
    found = over_seeds_and_examples(np.array([0.0, 0.02, 0.04]), v_examples=0.0, examples=240)
    needs = needs_to_show(found)
    assert (needs.seeds, needs.examples) == (7, None)
    assert needs.phrase("images", about_seeds=True) == "7 seeds"
    far = over_seeds_and_examples(np.array([-0.2, 0.02, 0.2]), v_examples=0.0, examples=240)
    assert needs_to_show(far).phrase("images", about_seeds=True) == "more than 100 seeds"


def test_so_many_images_for_two_files() -> None:
    """An interval over 100 examples that is twice too wide takes 400."""
    found = replace(interval(0.02, 0.04, seeds=1), examples=100)
    assert needs_to_show(found).examples in {400, 401}


def test_holm_by_hand() -> None:
    """0.01 x 4, then 0.02 x 3, then 0.03 x 2 = 0.06, and the last no less than the one before."""
    assert adjust_holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert adjust_holm([0.9, 0.8]) == [1, 1]
    assert adjust_holm([]) == []


def test_claims_that_do_not_survive_the_others_are_taken_back() -> None:
    """0.02 alone is a claim, and of three it is not."""
    found = adjusted_verdicts({"a": ("better", 0.001), "b": ("worse", 0.02), "c": ("not shown", 0.03)})
    assert [verdict for verdict, _ in found.values()] == ["better", "worse", "not shown"]
    found = adjusted_verdicts({"a": ("better", 0.001), "b": ("worse", 0.03), "c": ("not shown", 0.5)})
    assert [verdict for verdict, _ in found.values()] == ["better", "not shown", "not shown"]
    assert [p for _, p in found.values()] == pytest.approx([0.003, 0.06, 0.5])


def test_identical_models_are_no_verdict() -> None:
    """0 to 0, which rounds to nothing."""
    scores = Scores.of(np.random.default_rng(0).random((3, 50)))
    found = paired_interval(candidate=scores, baseline=scores)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert judge(found, METHOD, holding=50)[0] == "undecided"


@pytest.mark.parametrize("claim", [METHOD, FILES])
def test_halves_are_rounded_as_in_tables(claim: Claim) -> None:
    """What computing left beside 0.0875 and 0.1025 does not make the sentence differ from the table below it."""
    found = replace(interval(0.75 - 0.6625, 0.01), low=0.75 - 0.6625, high=0.10250000000000004)
    sentence = sentence_about(claim, found, "better")
    for end in (found.low, found.high):
        assert formats.change(end).lstrip("+") in sentence
        assert formats.change(end) != f"{end:+.3f}"
