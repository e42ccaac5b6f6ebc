"""No two arms differ without a word: what a run began with is held against what it goes on with, and named."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps

from featherpress.compress.experiments.distill import distill, train
from featherpress.compress.recipes import load_recipe
from featherpress.compress.training.trainer import Trainer
from featherpress.errors import TrainingError
from featherpress.models import load_weights, save_weights
from featherpress.models.factories import load_factory
from featherpress.records.comparison import Comparison
from featherpress.records.run import Environment, Provenance

RECIPE = """
name = "tiny"
student = { model = "tiny_models:net", settings = { classes = 2 } }
teacher = { model = "tiny_models:net", settings = { width = 12, classes = 2 }, weights = "teacher.safetensors" }
data = { kind = "folder", root = "photos", size = 64, variants = 1 }
schedule = { epochs = 2, batch_size = 4, save_every = 0, log_every = 1 }
distillation.losses.logits = { loss = "kl" }
"""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe for a few photographs, whose run was stopped after the student's second step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featherpress.compress.tasks.classification.base._BETTER_THAN_CHANCE", 0.0)
    monkeypatch.delitem(sys.modules, "tiny_models", raising=False)
    shutil.copy(Path(__file__).with_name("tiny_models.py"), tmp_path)
    for split, count in (("train", 4), ("val", 3)):
        for number in range(2 * count):
            path = Path("photos", split, "red" if number % 2 else "blue", f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = 20 * number + (5 if split == "val" else 0)
            Image.linear_gradient("L").resize((64, 64)).point(lambda value, tone=tone: (value + tone) % 256).save(path)
    save_weights(load_factory("tiny_models:net", {"width": 12, "classes": 2}), Path("teacher.safetensors"))
    Path("tiny.toml").write_text(RECIPE)
    with monkeypatch.context() as stopping:
        stopping.setattr(Trainer, "_save", stop_after(2, Trainer._save))
        with pytest.raises(TrainingError, match="stopped at step 2 of 4"):
            distill(load_recipe("tiny.toml"), Path("run"))
    return tmp_path


def stop_after(step: int, save: Callable[[Trainer], None]) -> Callable[[Trainer], None]:
    def stop(trainer: Trainer) -> None:
        save(trainer)
        if trainer.position.step == step and not getattr(trainer, "stopped", False):
            trainer.stopped = True  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    return stop


def go_on(**options: Any) -> Path:
    return distill(load_recipe("tiny.toml"), Path("run"), **options)


def replace_teacher() -> None:
    model = load_factory("tiny_models:net", {"width": 12, "classes": 2})
    load_weights(model, Path("teacher.safetensors"))
    with torch.no_grad():
        next(model.parameters()).mul_(1.001)
    save_weights(model, Path("teacher.safetensors"))


def invert_image() -> None:
    path = Path("photos/train/red/1.png")
    ImageOps.invert(Image.open(path)).save(path)


def change_label() -> None:
    Path("photos/val/red/1.png").rename("photos/val/blue/1.png")


def edit(path: str, was: str, now: str) -> None:
    text = Path(path).read_text()
    assert was in text
    Path(path).write_text(text.replace(was, now))


CHANGES: dict[str, tuple[Callable[[], None], str]] = {
    "recipe": (lambda: edit("tiny.toml", "epochs = 2", "epochs = 3"), r"schedule\.epochs was 2 and is 3"),
    "loss": (lambda: edit("tiny.toml", '"kl"', '"kl", weight = 2.0'), r"losses\.logits\.weight was 1.0 and is 2.0"),
    "teacher": (replace_teacher, "teacher: changed"),
    "image": (invert_image, "training images: changed"),
    "label": (change_label, "validation images: changed"),
    "code": (lambda: edit("tiny_models.py", "a mean", "the mean"), "the code of tiny_models: changed"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_named(begun: Path, what: str) -> None:
    """A run whose recipe, teacher, data or code is another does not go on."""
    change, named = CHANGES[what]
    change()
    with pytest.raises(TrainingError, match=named + ".*--allow-changed"):
        go_on()


def test_a_word_lets_it_go_on(begun: Path) -> None:
    """What was allowed stands in the records, and takes the verdict."""
    replace_teacher()
    change_label()
    go_on(allow_changed=True)
    comparison = Comparison.load(begun / "run/eval/comparison.json")
    assert comparison.verdict == "undecided"
    assert "the run went on although" in comparison.sentence
    assert comparison.changed == ("validation images: changed", "teacher: changed")
    assert "; ".join(comparison.changed) == Environment.load(begun / "run/environment.json").facts["went on although"]
    go_on()


def test_what_was_kept_of_other_images_is_forgotten(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of teachers and decoded images of a run that goes on with others would be of crops that are no more."""
    kept = [
        begun / "run" / name
        for name in (
            "cache/0/known.bool",
            "control/cache/0/0.cache",
            "decoded/1.npy",
            "labels/1.json",
            "eval/teacher.npz",
        )
    ]
    for file in kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    left: list[Path] = []

    def look(_: object) -> None:
        left[:] = [file for file in kept if file.exists()]
        raise TrainingError("looked")

    monkeypatch.setattr("featherpress.compress.experiments.distill.prepare_teachers", look)
    for change, expected in ((lambda: None, kept), (invert_image, [])):
        change()
        with pytest.raises(TrainingError, match="looked"):
            go_on(allow_changed=True)
        assert left == expected


def test_threads_are_named_and_leave_the_verdict(begun: Path, more_threads: int) -> None:
    """Another machine changes last digits alone: it takes the word, and both arms are compared all the same."""
    with pytest.raises(TrainingError, match=rf"threads was {more_threads - 1} and is {more_threads}"):
        go_on()
    go_on(allow_changed=True)
    comparison = Comparison.load(begun / "run/eval/comparison.json")
    assert "although" not in comparison.sentence
    assert f"is {more_threads}" in comparison.changed[0]


def test_keys_without_effect_may_change(begun: Path) -> None:
    """Where images are kept and how often states are saved change no weight."""
    edit("tiny.toml", "save_every = 0", "save_every = 9.0, workers = 0")
    edit("tiny.toml", "variants = 1", 'variants = 1, cache = "none"')
    go_on()


def test_states_stay_where_they_belong(begun: Path) -> None:
    """A state of another run, or of another arm of this one, is refused by its name."""
    distill(load_recipe("tiny.toml", settings=["seeds=[5]"]), Path("other"), arms=["control"])
    shutil.copytree("other/control", "run/control")
    with pytest.raises(TrainingError, match=r"run/control/state/step-00000004.pt is a state of another run or arm"):
        go_on()
    shutil.rmtree("run/control")
    shutil.copytree("run/state", "run/control/state")
    with pytest.raises(TrainingError, match="state of another run or arm"):
        go_on()


def test_training_alone_is_no_distillation(begun: Path) -> None:
    """What `train` left is not taken for a distilled student."""
    train(load_recipe("tiny.toml"), Path("alone"))
    with pytest.raises(TrainingError, match="command was train and is distill"):
        distill(load_recipe("tiny.toml"), Path("alone"))


def test_states_that_say_nothing(begun: Path) -> None:
    """Without the record of what it began with, a run goes on by a word alone."""
    (begun / "run/provenance.json").unlink()
    with pytest.raises(TrainingError, match=r"does not say what it belongs to: there is no provenance\.json"):
        go_on()


@pytest.mark.usefixtures("begun")
def test_settings_are_laid_over_the_runs_own_recipe(run_command: Callable[..., Any]) -> None:
    """Without a recipe's name they are not held to the first shipped one, whose data have other keys."""
    refused = run_command("distill", "--out", "run", "--resume", "--set", "data.class_weights=balanced")
    assert refused.code == 2
    assert 'data.class_weights was "" and is "balanced"' in refused.err


def test_a_lower_rate_is_what_a_message_advises(begun: Path, run_command: Callable[..., Any]) -> None:
    """`--resume --allow-changed --set schedule.learning_rate` trains on at that rate; settings outlive a resume."""
    edit("run/recipe.toml", "learning_rate = 0.001", "learning_rate = 0.0007")
    refused = run_command("distill", "tiny.toml", "--out", "run", "--resume", "--no-preflight")
    assert refused.code == 2
    assert "schedule.learning_rate was 0.001 and is 0.0007" in refused.err
    edit("run/recipe.toml", "learning_rate = 0.0007", "learning_rate = 0.001")
    lower = ("--allow-changed", "--set", "schedule.learning_rate=0.0005")
    assert run_command("distill", "tiny.toml", "--out", "run", "--resume", *lower).code == 0
    for arm in ("", "control"):
        rates = [
            float(line.split(",")[2]) for line in (begun / "run" / arm / "metrics.csv").read_text().splitlines()[1:]
        ]
        assert max(rates[2:] if not arm else rates) <= 0.0005
    assert run_command("distill", "tiny.toml", "--out", "run", "--resume").code == 0
    assert run_command("distill", "--out", "run", "--resume").code == 0
    record = Provenance.load(begun / "run/provenance.json")
    assert record.settings == ("schedule.learning_rate=0.0005",)
    assert json.loads(record.recipe["schedule.learning_rate"]) == 0.0005


def test_another_recipe_is_refused(begun: Path, run_command: Callable[..., Any]) -> None:
    """`--resume` with another recipe's file is refused, and says in what it differs."""
    shutil.copy("tiny.toml", "other.toml")
    edit("other.toml", "width = 12", "width = 13")
    refused = run_command("distill", "other.toml", "--out", "run", "--resume")
    assert (refused.code, "teacher.settings.width was 12 and is 13" in refused.err) == (2, True)
