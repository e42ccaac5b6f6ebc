"""The demo as a stranger sees it, at its smallest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from featherpress.commands.reporting import DEMO, explain
from featherpress.compress.recipes import load_recipe
from featherpress.records.run import Environment
from featherpress.reports.blocks import typeset

SMALL = (
    "data.size=64",
    "data.image_size=64",
    "data.variants=1",
    "seeds=[0]",
    "data.train_images=4",
    "data.unlabelled.images=3",
    "data.unlabelled.per_batch=1",
    "data.validation_images=3",
    "teacher.model=featherface_v2",
    *(
        f"{part}.{key}"
        for part in ("schedule", "teacher.schedule")
        for key in ("epochs=2", "batch_size=2", "evaluate_every=2")
    ),
)


def test_demo_says_what_it_does_and_ends_with_its_report(
    run_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more_threads: int
) -> None:
    """Each step is announced in 80 columns without colour, losses and AP are shown, the last line names the report.

    It trains with one thread, whatever there are.
    """
    small = load_recipe("demo", settings=SMALL)
    monkeypatch.setattr("featherpress.commands.reporting.find_recipe", lambda *_, **__: small)
    monkeypatch.setattr("featherpress.compress.tasks.detection.task.DetectionTask.min_teacher_score", 0.0)
    ending = run_command("demo", "--out", "run")
    assert ending.code == 0, ending.err
    assert "\x1b" not in ending.out + ending.err
    assert max(map(len, ending.out.splitlines())) <= 80
    words = " ".join(ending.out.split())
    assert [words.find(text) for text in DEMO] == sorted(words.index(text) for text in DEMO)
    assert words.count("verdict: within") == 2
    # The teacher learns the labels of seven pictures, student and control know those of four.
    for role, steps in (("teacher in training", 6), ("student", 4), ("control", 4)):
        assert f"{role}: epoch 2 of 2, loss " in ending.err
        assert f"{role}: {steps} steps in 0 min " in ending.err
    comparison = json.loads((tmp_path / "run" / "eval" / "comparison.json").read_text())
    assert explain(comparison) in words
    assert Environment.load(tmp_path / "run" / "environment.json").facts["threads"] == "1"
    assert torch.get_num_threads() == more_threads
    assert ending.out.splitlines()[-1] == "report: run/report/report.md"
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert typeset(comparison["sentence"]) in text
    assert "Where the parameters went" in text


@pytest.mark.parametrize(
    ("verdict", "low", "high", "words"),
    [
        ("better", 0.01, 0.05, "+0.010 to +0.050 (95% interval), all of it above 0, so that on such pictures the tea"),
        ("worse", -0.05, -0.01, "-0.050 to -0.010 (95% interval), all of it below 0, so that on such pictures the te"),
        (
            "undecided",
            0.01,
            0.05,
            "+0.010 to +0.050 (95% interval), and with another start it could differ mor",
        ),
        ("not shown", -0.05, 0.01, "-0.050 to +0.010 (95% interval), which holds 0: whether the teacher helped, thi"),
    ],
)
def test_the_verdict_in_everyday_words(verdict: str, low: float, high: float, words: str) -> None:
    """Each verdict names the interval, what it means, and that the pictures are drawn."""
    found = explain(
        {
            "verdict": verdict,
            "data": {"images": 60},
            "teacher": {"score": 0.5},
            "distilled": {"mean": 0.45},
            "control": {"mean": 0.4},
            "difference": {"mean": (low + high) / 2, "low": low, "high": high, "confidence": 0.95},
        }
    )
    assert words in found
    assert "60 drawn pictures" in found
