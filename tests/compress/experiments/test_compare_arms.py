"""Student against control in anyone's loop."""

import json
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from featherpress.compress import compare_arms
from featherpress.compress.distillation.placebos import PLACEBOS
from featherpress.errors import DataError, TrainingError, UsageError
from featherpress.reports import write_report
from featherpress.reports.blocks import typeset
from featherpress.verdicts import Scores, paired_interval

EXAMPLES = np.random.default_rng(0).normal(size=200)


def build(_seed: int) -> nn.Module:
    return nn.Linear(1, 1)


def train(student: nn.Module, arm: str, seed: int) -> None:
    """Leave the arm's worth in the bias: a gain of 0.5 that differs a little by seed."""
    worth = {"student": 0.5, "control": 0.0, "shuffled": -0.1, "smoothing": 0.3, "compute": 0.1}[arm]
    with torch.no_grad():
        student.bias.fill_(worth + 0.01 * seed)  # type: ignore[operator, union-attr]


def score(student: nn.Module) -> torch.Tensor:
    return torch.from_numpy(EXAMPLES) + student.bias.item()  # type: ignore[operator, union-attr]


def test_the_interval_is_that_of_verdicts() -> None:
    """Seeds are paired; numbers, words and what they cover are those of `paired_interval` on the same values."""
    found = compare_arms(build, train, score, seeds=(3, 1, 2), metric="worth")
    sides = [Scores.of([EXAMPLES + worth + 0.01 * seed for seed in (3, 1, 2)]) for worth in (0.5, 0.0)]
    expected = paired_interval(candidate=sides[0], baseline=sides[1])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert found.difference == pytest.approx(0.5, abs=1e-6)
    assert (found.verdict, found.covers, found.seeds, found.examples) == (
        "better",
        ("seeds", "examples"),
        (3, 1, 2),
        200,
    )
    assert found.sentence.startswith("Distillation raised worth by 0.500 (95% interval ")
    assert found.sentence.endswith("over 3 seeds and 200 examples).")
    assert found.student == pytest.approx([EXAMPLES.mean() + 0.5 + 0.01 * seed for seed in (3, 1, 2)])
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_one_seed_is_no_claim_about_a_method() -> None:
    found = compare_arms(build, train, score, seeds=[0])
    assert (found.verdict, found.sentence[:25]) == ("undecided", "No verdict on distillatio")


def test_every_arm_starts_and_draws_alike() -> None:
    """Before build and train all random states are the seed's, whatever was drawn in between."""
    drawn: list[tuple[str, Any]] = []

    def note(student: nn.Module, arm: str, seed: int) -> None:
        numbers = np.random.rand(), random.random()  # noqa: NPY002, S311 (what a user's loop draws from)
        drawn.append((arm, (student.weight.item(), torch.rand(1).item(), *numbers)))  # type: ignore[operator, union-attr]
        train(student, arm, seed)

    compare_arms(build, note, score, seeds=(4, 5))
    values = [value for _, value in drawn]
    assert values[0] == values[1] != values[2] == values[3]
    assert [arm for arm, _ in drawn] == ["student", "control"] * 2


def test_a_build_that_differs_between_arms_is_refused() -> None:
    calls: list[int] = []

    def differs(_seed: int) -> nn.Module:
        calls.append(1)
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, len(calls))
        return model

    with pytest.raises(UsageError, match=r"build\(0\) gave control other weights than student"):
        compare_arms(differs, train, score)


def test_placebos_stand_beside_the_control_and_knowledge_is_what_is_left() -> None:
    """The best placebo is smoothing at 0.3: 0.2 of the 0.5 are the teacher's."""
    found = compare_arms(build, train, score, placebos=PLACEBOS)
    assert list(found.placebos) == ["shuffled", "smoothing", "compute"]
    assert found.placebos["shuffled"]["verdict"] == "worse"
    assert found.placebos["smoothing"]["difference"] == pytest.approx(0.3, abs=1e-6)
    assert found.knowledge.startswith("The teacher's knowledge, beyond smoothing, raised score by 0.200")
    with pytest.raises(UsageError, match="no placebo is named 'sugar'; there are shuffled, smoothing, compute"):
        compare_arms(build, train, score, placebos=["sugar"])


def test_a_metric_that_is_no_mean_is_computed_again_on_resampled_records() -> None:
    """The median of records, a pair of them and a function."""

    def records(student: nn.Module) -> Any:
        return [{"value": value} for value in score(student).tolist()], lambda rows: float(
            np.median([row["value"] for row in rows])
        )

    found = compare_arms(build, train, records, seeds=(0, 1, 2))
    assert found.control == pytest.approx([np.median(EXAMPLES) + 0.01 * seed for seed in (0, 1, 2)])
    assert found.v_examples == pytest.approx(0, abs=1e-9)


def test_weights_that_are_not_finite_are_no_result() -> None:
    """A class is found in NaN too, so that the scores alone do not show it."""

    def diverges(student: nn.Module, arm: str, seed: int) -> None:
        if arm == "student":
            nn.init.constant_(next(student.parameters()), math.nan)

    with pytest.raises(TrainingError, match="student, seed 0: weights are not finite"):
        compare_arms(build, diverges, score)


@pytest.mark.parametrize(("worths", "twins"), [((1, 1, 0), "control, .*student"), ((1, 0, 0), "shuffled, .*control")])
def test_a_loop_that_does_the_same_for_two_arms_is_refused(worths: tuple[int, ...], twins: str) -> None:
    """One that forgets the teacher, or the placebo, gives a difference of exactly 0, which says nothing of either."""

    def forgets(student: nn.Module, arm: str, seed: int) -> None:
        with torch.no_grad():
            student.bias.fill_(worths[("student", "control", "shuffled").index(arm)])  # type: ignore[operator, union-attr]

    with pytest.raises(UsageError, match=f"{twins}: it does the same for both arms"):
        compare_arms(build, forgets, score, placebos=("shuffled",))


def test_an_interrupted_comparison_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was trained is not trained again, and the end is the same as without a break."""
    trained: list[tuple[str, int]] = []

    def breaks(student: nn.Module, arm: str, seed: int) -> None:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((arm, seed))
        train(student, arm, seed)

    with pytest.raises(KeyboardInterrupt):
        compare_arms(build, breaks, score, out=tmp_path)
    assert (
        caplog.messages[-1] == f"stopped; 3 trainings are kept in {tmp_path / 'arms.json'}, and the same call goes on"
    )
    assert len(json.loads((tmp_path / "arms.json").read_text())["done"]) == 3
    rest: list[tuple[str, int]] = []
    found = compare_arms(
        build, lambda student, arm, seed: (rest.append((arm, seed)), train(student, arm, seed)), score, out=tmp_path
    )
    assert trained + rest == [(arm, seed) for seed in (0, 1, 2) for arm in ("student", "control")]
    assert found == compare_arms(build, train, score)
    assert json.loads((tmp_path / "comparison.json").read_text())["sentence"] == found.sentence
    with pytest.raises(UsageError, match="holds another comparison"):
        compare_arms(build, train, score, out=tmp_path, metric="other")
    with pytest.raises(UsageError, match=r"arms.json holds results of another build\(0\); name another folder"):
        compare_arms(lambda seed: nn.Linear(2, 1), train, score, out=tmp_path)


def test_an_interruption_that_keeps_nothing_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a folder nothing is kept, and of records nothing is either."""

    def breaks(student: nn.Module, arm: str, seed: int) -> None:
        if arm == "control":
            raise KeyboardInterrupt
        train(student, arm, seed)

    for out, scored, words in (
        (None, score, "stopped; without `out` nothing is kept"),
        (tmp_path, lambda student: (list(score(student)), len), "stopped; records, .* nothing is kept"),
    ):
        with pytest.raises(KeyboardInterrupt):
            compare_arms(build, breaks, scored, out=out)
        assert re.match(words, caplog.messages[-1])
    assert not list(tmp_path.iterdir())


def test_a_bar_at_every_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line before each, with what is done and the score before; what a loop prints or draws stands between."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("RANK", raising=False)

    def prints(student: nn.Module, arm: str, seed: int) -> None:
        print(f"\r{arm} trains", end="", file=sys.stderr)
        train(student, arm, seed)
        print(file=sys.stderr)

    compare_arms(build, prints, score, seeds=(3, 4), metric="worth")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).splitlines()
    bars = [re.sub(r"\s*[\u2501\u2578\u257a ]+", " ", line).strip() for line in lines if "\u2501" in line]
    assert [re.sub(r" [-\d:]+$", "", bar) for bar in bars] == [
        "student, seed 3 0/4",
        f"control, seed 3 1/4 student, seed 3: worth {EXAMPLES.mean() + 0.53:.3f}",
        f"student, seed 4 2/4 control, seed 3: worth {EXAMPLES.mean() + 0.03:.3f}",
        f"control, seed 4 3/4 student, seed 4: worth {EXAMPLES.mean() + 0.54:.3f}",
    ]
    assert [line for line in lines if "trains" in line] == ["student trains", "control trains"] * 2


def test_placebos_are_adjusted_at_the_confidence_asked_for() -> None:
    """What holds at 80% need not hold at 95%, for an adjusted verdict as for the main one."""
    noise = np.random.default_rng(1).normal(size=200)

    def noisy(student: nn.Module) -> Any:
        bias = student.bias.item()  # type: ignore[operator, union-attr]
        return EXAMPLES + bias + (0.8 * noise if 0.05 < bias < 0.2 else 0)

    found = [compare_arms(build, train, noisy, placebos=["compute"], confidence=level) for level in (0.5, 0.99)]
    assert [each.placebos["compute"]["verdict"] for each in found] == ["better", "not shown"]


def test_the_report_reads_the_record(tmp_path: Path) -> None:
    """`featherpress report` writes up what is left in the folder: the same sentence, metric, placebos and figure."""
    found = compare_arms(build, train, score, out=tmp_path, metric="worth", placebos=["shuffled"], confidence=0.9)
    text = write_report([tmp_path]).read_text(encoding="utf-8")
    assert f"**{typeset(found.sentence)}**" in text
    assert typeset(found.knowledge) in text
    assert "Its 90 % interval" in text
    assert "| `shuffled` |" in text
    assert (tmp_path / "report/figures/differences.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("scored", "words"),
    [
        ([1.0, float("nan")], "a finite value per example; student, seed 0, got NaN or infinity"),
        (np.zeros((2, 2)), r"a finite value per example; student, seed 0, got \(2, 2\)"),
        (["right", "wrong"], "a number per example; student, seed 0: could not convert"),
        ({"accuracy": 0.5}, "a number per example; student, seed 0: "),
    ],
)
def test_scores_that_are_none_are_refused(scored: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        compare_arms(build, train, lambda _student: scored)


def test_models_are_scored_on_as_many_examples() -> None:
    sizes = iter([200, 200, 100, 100])
    with pytest.raises(DataError, match="different numbers of examples"):
        compare_arms(build, train, lambda student: score(student)[: next(sizes)], seeds=(0, 1))


def test_scores_and_seeds_may_be_of_any_kind() -> None:
    """Scores in half precision, which numpy does not know, and seeds that it counted, are as good as others."""
    scored, kept = torch.arange(200) / 256, []
    for seeds, kind in (((0, 1, 2), torch.float32), (np.arange(3), torch.bfloat16)):
        found = compare_arms(build, train, lambda _student, kind=kind: scored.to(kind), seeds=seeds)  # type: ignore[arg-type]
        kept.append((found.student, found.seeds))
    assert kept[0] == kept[1]


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_confidence_is_a_fraction(confidence: float) -> None:
    """A percentage is refused before anything is trained."""
    with pytest.raises(UsageError, match="`confidence` lies between 0 and 1"):
        compare_arms(lambda _seed: pytest.fail("built"), train, score, confidence=confidence)


def test_seeds_stand_once() -> None:
    for seeds in ([], [1, 1]):
        with pytest.raises(UsageError, match="expected seeds, each once"):
            compare_arms(build, train, score, seeds=seeds)
