"""The commands as people type them: what they print, and how they end."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featherpress.models import create_model, find_model, save_weights
from featherpress.reports.blocks import typeset
from tests.recipes import DRAWN_FACES

Run = Callable[..., Any]


@pytest.fixture
def run(run_command: Run) -> Run:
    """Run a command in an empty folder."""
    return run_command


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("featherface_v1", 485_599, 950_000_000), ("featherface_v2", 256_812, 450_000_000)],
)
def test_audits_sum_up_and_are_within(run: Run, name: str, params: int, macs: int) -> None:
    """Both shipped audits end with 0, and their rows sum to exact totals below the limit on MACs."""
    ending = run("audit", name, "--json")
    record = json.loads(ending.out)
    assert ending.code == 0
    assert record["verdict"] == "within"
    assert record["total"]["params"] == params == sum(row["params"] for row in record["components"])
    assert record["total"]["macs"] == sum(row["macs"] for row in record["components"]) <= macs
    assert record["claims"]


def test_an_audit_keeps_what_the_model_is_built_from(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two audits of one factory with other arguments are told apart by their records; a preset's are there too."""
    (tmp_path / "built.py").write_text("from torch import nn\ndef net(out=8, odd=None): return nn.Conv2d(3, out, 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    ending = run("audit", "built:net", "--input", "8", "--set", "out=4", "--set", r"odd=b'\xff'", "--json")
    assert json.loads(ending.out)["settings"] == {"out": 4, "odd": r"b'\xff'"}
    assert "settings" not in json.loads(run("audit", "built:net", "--input", "8", "--json").out)
    settings = json.loads(run("audit", "featherface_v2", "--set", "bifpn_repeats=1", "--json").out)["settings"]
    assert settings == {**find_model("featherface_v2").settings, "bifpn_repeats": 1}


def test_audit_table_fits_eighty_columns(run: Run) -> None:
    """Without a terminal the table has no colour, fits 80 columns and prints exact parameters."""
    ending = run("audit", "featherface_v2")
    assert "256,812" in ending.out
    assert "\x1b" not in ending.out
    assert max(map(len, ending.out.splitlines())) <= 80


def test_a_pin_is_named(run: Run) -> None:
    """Who pins learns that nothing was compared; what a program reads holds no such line."""
    assert (
        "wrote costs.json; `--baseline costs.json` fails" in run("audit", "featherface_v2", "--pin", "costs.json").out
    )
    assert json.loads(run("audit", "featherface_v2", "--pin", "costs.json", "--json").out)


def test_over_budget_is_one(run: Run, tmp_path: Path) -> None:
    """A model over its budget ends with 1 and says by how much and where to look."""
    (tmp_path / "tight.toml").write_text(
        'model = "featherface_v2"\ninput = [1, 3, 640, 640]\n[total]\nparams = { max = 256000 }\n'
    )
    ending = run("audit", "featherface_v2", "--budget", "tight.toml")
    assert ending.code == 1
    assert "812" in ending.out
    assert "tight.toml" in ending.out


def test_budget_from_a_model(run: Run, tmp_path: Path) -> None:
    """`--init` writes a budget that holds the model to what it is, and does not overwrite one."""
    assert run("audit", "featherface_v2", "--init", "b.toml").code == 0
    assert run("audit", "featherface_v2", "--budget", "b.toml").code == 0
    assert run("audit", "featherface_v1", "--budget", "b.toml").code == 1
    assert run("audit", "featherface_v2", "--init", "b.toml").code == 2


def spoil(folder: Path) -> None:
    """Write files and folders that are not what a command asks for."""
    (folder / "broken.toml").write_text("model = \n")
    (folder / "unknown.toml").write_text('model = "x"\ninput = [1, 3, 64, 64]\n[total]\nparms = { max = 3 }\n')
    (folder / "rubbish.pth").write_bytes(b"rubbish")
    (folder / "full").mkdir()
    (folder / "full" / "recipe.toml").write_text("x")
    Image.effect_noise((64, 64), 50).save(folder / "good.png")
    broken = create_model("featherface_v2")
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    save_weights(broken, folder / "nan.safetensors")
    picture = folder / "cut.jpg"
    Image.effect_noise((64, 64), 50).save(picture)
    picture.write_bytes(picture.read_bytes()[:600])


#: Every way to get it wrong, with words of the answer.
MISTAKES: dict[str, tuple[list[str], str]] = {
    "model": (["audit", "featherface_v9"], "no model is named 'featherface_v9'"),
    "target": (["audit", "no_such_module:net"], "cannot import"),
    "missing budget": (["audit", "featherface_v2", "--budget", "gone.toml"], "gone.toml"),
    "broken budget": (["audit", "featherface_v2", "--budget", "broken.toml"], "broken.toml"),
    "unknown key": (["audit", "featherface_v2", "--budget", "unknown.toml"], "parms"),
    "recipe": (["train", "gone.toml"], "no recipe 'gone.toml'"),
    "setting": (["distill", DRAWN_FACES, "--set", "schedule.epocs=2"], "unknown key 'epocs' in schedule"),
    "full folder": (["distill", DRAWN_FACES, "--out", "full"], "not empty"),
    "nothing to resume": (["distill", DRAWN_FACES, "--out", "new", "--resume"], "no run in new"),
    "data": (["evaluate", "featherface_v2", "--weights", "v2.safetensors", "--data", "nowhere"], "nowhere"),
    "weights": (["detect", "cut.jpg", "--weights", "gone.safetensors"], "no weights file"),
    "broken weights": (["detect", "cut.jpg", "--weights", "rubbish.pth", "--model", "featherface_v2"], "rubbish"),
    "truncated image": (["detect", "cut.jpg", "--weights", "v2.safetensors"], "cut.jpg"),
    "missing image": (["detect", "gone.jpg", "--weights", "v2.safetensors"], "gone.jpg"),
    "report": (["report", "nowhere"], "nowhere"),
    "evaluate nothing": (["evaluate"], "evaluate needs --data"),
    "set without recipe": (["evaluate", "my:net", "--set", "width=3"], "name it with --recipe"),
    "unknown file": (["audit", "table.csv"], "yours is package.module:factory"),
    "name": (["distill", DRAWN_FACES, "--set", "name=a b"], "name: expected text of the form"),
    "no repository": (["diff", "main...HEAD", "--target", "my:net"], "(or any of the parent directories): .git\n"),
    "half a pair": (["evaluate", "--predictions", "full"], "go together"),
    "no folder": (["detect", "good.png", "--weights", "v2.safetensors", "--out", "cut.jpg"], "cut.jpg"),
    "no place": (["audit", "featherface_v2", "--init", "cut.jpg/b.toml"], "cut.jpg"),
    "no place for a graph": (["export", "featherface_v2", "--out", "cut.jpg/x.onnx"], "cut.jpg is a file"),
    "scale": (["detect", "good.png", "--weights", "v2.safetensors", "--long-side", "1"], "32 to 16384"),
    "contradiction": (["train", DRAWN_FACES, "--resume", "--overwrite", "--out", "full"], "choose one"),
    "no teacher": (["train", DRAWN_FACES], "student.backbone"),
    "tap": (["distill", DRAWN_FACES, "--set", "distillation.losses.feature.student=heads"], "cannot be compared"),
    "diverged": (["detect", "good.png", "--weights", "nan.safetensors"], "not finite"),
    "side": (["audit", "featherface_v2", "--input", "9999999999"], "of sizes from 1 to 65536"),
    "no file": (["audit", "featherface_v2@"], "names no file after its @"),
    "no file to bench": (
        ["bench", "featherface_v2@", "--size", "64", "--rounds", "1"],
        "names no file after its @",
    ),
    "file to fit": (["fit", "cut.jpg", "--params", "9"], "cut.jpg is a file"),
    "file to export": (["export", "cut.jpg"], "cut.jpg is a file"),
    "file to bench": (["bench", "cut.jpg"], "cut.jpg is a file"),
    "accuracy alone": (["audit", "mine:net", "--accuracy", "full"], "name its file with --budget"),
    "fit weights": (["fit", "mine:net@w.pth", "--params", "9"], "name mine:net alone, without w.pth"),
    "knob": (["fit", "featherface_v2", "--params", "9", "--knob", "n=1:99999999999"], "10,000 values at most"),
    "folder for a file": (["bench", "featherface_v2", "--out", "full"], "full is a folder; name a file"),
    "file for a folder": (["evaluate", "--data", "full", "--out", "cut.jpg/new"], "cut.jpg is a file"),
    "pin": (["audit", "featherface_v2", "--pin", "full"], "full is a folder; name a file"),
    "choice": (["train", DRAWN_FACES, "--cache", "x"], "invalid value for '--cache': 'x' is not one of"),
    "weights of a folder": (
        ["distill", DRAWN_FACES, "--set", "teacher.weights=full"],
        "teacher.weights needs full",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_sentence(run: Run, tmp_path: Path, weights: Path, case: str) -> None:
    """A mistake is one line on standard error that names it, and exit code 2."""
    spoil(tmp_path)
    arguments, words = MISTAKES[case]
    ending = run(*arguments)
    assert ending.code == 2
    assert words in ending.err
    assert len(ending.err.strip().splitlines()) == 1
    assert "Traceback" not in ending.err
    assert ending.out == ""


@pytest.mark.parametrize(
    ("ask", "size"),
    [
        (lambda: torch.empty(2**58, dtype=torch.uint8), " for 288230376151711744 bytes"),
        (lambda: np.empty(2**58, dtype=np.uint8), " for 256. PiB"),
        (lambda: bytes(2**58), ""),
    ],
)
def test_too_little_memory_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object], size: str
) -> None:
    """Whoever allocates, what does not fit is a mistake of the command; other errors of programs stay what they are."""
    monkeypatch.setattr("featherpress.cli.app", lambda **_: ask())
    ending = run("bench")
    assert ending.code == 2
    assert ending.err == f"featherpress: there is too little memory{size}: smaller images or batches take less\n"


def test_a_programs_error_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not about memory is no mistake of the command's."""
    monkeypatch.setattr("featherpress.cli.app", lambda **_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match"):
        run("bench")


def test_models_lists_the_zoo(run: Run) -> None:
    """Every preset is listed with exact parameters."""
    record = json.loads(run("models", "--json").out)
    params = {row["name"]: row["params"] for row in record["models"]}
    assert params["featherface_v1"] == 485_599
    assert params["featherface_v2"] == 256_812
    assert "485,599" in run("models").out


def test_models_show_draws_one(run: Run) -> None:
    """One model is drawn as a tree or printed as JSON; a typo is answered with the nearest name."""
    assert "├── backbone MobileNetV1Quarter" in run("models", "show", "featherface_v2", "--input", "64").out
    record = json.loads(run("models", "show", "featherface_v2", "--input", "64", "--json").out)
    assert record["tree"]["params"] == record["params"] == 256_812
    assert "did you mean featherface_v2" in run("models", "show", "featherface_v22").err
    assert run("models", "--json", "show", "featherface_v2").code == 2


def test_detect_draws_and_prints(run: Run, wider: Path, weights: Path, tmp_path: Path) -> None:
    """Detections are drawn beside, or printed as JSON with boxes inside the image."""
    image = wider / "WIDER_val" / "images" / "0--Test" / "val_0.jpg"
    record = json.loads(run("detect", image, "--weights", weights, "--threshold", 0.3, "--json").out)
    for face in record["images"][0]["faces"]:
        assert 0.3 <= face["score"] <= 1
        assert 0 <= face["box"][0] <= face["box"][2] <= 96
    ending = run("detect", image, "--weights", weights)
    assert ending.code == 0
    with Image.open(tmp_path / "detections" / "val_0.png") as drawn:
        assert drawn.size == (96, 96)


def test_evaluate_prints_the_protocol(run: Run, wider: Path, weights: Path) -> None:
    """An evaluation says AP, by height and overall, and how it was measured."""
    record = json.loads(run("evaluate", "featherface_v2", "--weights", weights, "--data", wider, "--json").out)
    assert record["data"]["images"] == 4
    assert 0 <= record["ap"] <= 1
    assert sum(row["faces"] for row in record["by_height"]) == record["data"]["faces"]
    table = run("evaluate", "featherface_v2", "--weights", weights, "--data", wider)
    assert "scale original" in table.out


def test_evaluate_refuses_a_truncated_image(run: Run, wider: Path, weights: Path) -> None:
    """A score over fewer images than asked for is not given: a truncated one ends the evaluation with its name."""
    image = wider / "WIDER_val" / "images" / "0--Test" / "val_2.jpg"
    image.write_bytes(image.read_bytes()[:500])
    ending = run("evaluate", "featherface_v2", "--weights", weights, "--data", wider)
    assert ending.code == 2
    assert "val_2.jpg" in ending.err


TINY = (
    "data.size=64",
    "schedule.epochs=1",
    "schedule.batch_size=2",
    "schedule.log_every=1",
    "schedule.evaluate_every=1",
)


def settings(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--set", pair)]


def test_training_skips_a_broken_image(run: Run, wider: Path, tmp_path: Path) -> None:
    """A truncated image does not end a training: it is skipped with a warning and counted."""
    image = wider / "WIDER_train" / "images" / "0--Test" / "train_1.jpg"
    image.write_bytes(image.read_bytes()[:500])
    data = ("data.kind=widerface", f"data.root={wider}", "data.train_images=0", "data.validation_images=0")
    ending = run("train", DRAWN_FACES, "--out", "run", "--allow-leak", *settings(*TINY, *data, 'student.backbone=""'))
    assert ending.code == 0
    assert "train_1.jpg" in ending.err
    assert "1 broken image" in ending.err
    assert (tmp_path / "run" / "weights" / "last.safetensors").exists()


def test_distil_from_start_to_report(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path at its smallest: teacher, student, control, comparison, report; and resuming finds it done."""
    monkeypatch.setattr("featherpress.compress.tasks.detection.task.DetectionTask.min_teacher_score", 0.0)
    small = ("data.train_images=4", "data.validation_images=3", "data.image_size=64", "teacher.model=featherface_v2")
    own = ("teacher.schedule.epochs=1", "teacher.schedule.batch_size=2")
    ending = run("distill", DRAWN_FACES, "--out", "run", *settings(*TINY, *small, *own))
    assert ending.code == 0, ending.err
    folder = tmp_path / "run"
    comparison = json.loads((folder / "eval" / "comparison.json").read_text())
    assert comparison["verdict"] == "undecided"
    assert json.loads((folder / "budget.json").read_text())["student"]["total"]["params"] == 256_812
    for name in ("weights/last.safetensors", "control/weights/best.safetensors", "eval/gallery/gallery.json"):
        assert (folder / name).exists()
    for record in ("eval/validation.json", "control/eval/validation.json"):
        assert json.loads((folder / record).read_text())["macs"] == 429_603_776
    log = (folder / "log.txt").read_text()
    assert comparison["sentence"] in log
    written = run("report", "run")
    assert written.code == 0, written.err
    text = (folder / "report" / "report.md").read_text()
    assert "256,812" in text
    assert typeset(comparison["sentence"]) in text
    before = (folder / "weights" / "last.safetensors").stat().st_mtime_ns
    began = json.loads((folder / "environment.json").read_text())
    assert run("distill", "--out", "run", "--resume").code == 0
    assert (folder / "weights" / "last.safetensors").stat().st_mtime_ns == before
    ended = json.loads((folder / "environment.json").read_text())
    assert ended["command"] == began["command"]
    assert ended["seconds"] > began["seconds"]


def test_over_budget_student_does_not_start(run: Run, tmp_path: Path) -> None:
    """A student that breaks its budget is not trained, unless that is allowed by name."""
    ending = run(
        "distill", DRAWN_FACES, "--out", "run", *settings("student.model=featherface_v1", "budget=featherface_v2")
    )
    assert ending.code == 2
    assert "--allow-over-budget" in ending.err
    assert not (tmp_path / "run").exists()


def test_overwrite_keeps_the_old_run_until_the_new_one_can_start(run: Run, tmp_path: Path) -> None:
    """A recipe that cannot start is refused before the run it was to replace is removed."""
    small = ("data.train_images=4", "data.validation_images=2", "data.image_size=64", 'student.backbone=""')
    assert run("train", DRAWN_FACES, "--out", "run", *settings(*TINY, *small)).code == 0
    ending = run("train", DRAWN_FACES, "--out", "run", "--overwrite", *settings(*TINY, *small, "schedule.batch_size=9"))
    assert ending.code == 2
    assert "do not fill one batch of 9" in ending.err
    assert (tmp_path / "run" / "weights" / "last.safetensors").exists()
    again = ("train", DRAWN_FACES, "--out", "run", "--resume", *settings(*TINY, *small))
    assert run(*again).code == 0
    assert run(*again, "--set", "schedule.epochs=2").code == 2


def test_drawing_never_overwrites(run: Run, weights: Path, tmp_path: Path) -> None:
    """An image that was given, or another drawing, is not drawn over: one that shares a stem keeps its suffix."""
    for name in ("a.png", "a.jpg"):
        Image.effect_noise((64, 64), 50).save(tmp_path / name)
    before = (tmp_path / "a.png").read_bytes()
    assert run("detect", "a.png", "--weights", weights, "--out", ".").code == 2
    assert (tmp_path / "a.png").read_bytes() == before
    assert run("detect", "a.png", "a.jpg", "--weights", weights).code == 0
    assert {path.name for path in (tmp_path / "detections").iterdir()} == {"a.png.png", "a.jpg.png"}


def test_dry_run_prints_the_recipe(run: Run, tmp_path: Path) -> None:
    """`--dry-run` prints what would be run as TOML, below it what that comes to, and runs nothing."""
    ending = run("distill", DRAWN_FACES, "--dry-run", "--set", "seeds=[7]")
    assert "seeds = [\n    7,\n]" in ending.out
    assert tomllib.loads(ending.out)["seeds"] == [7]
    assert "# student: featherface_v2, 256,812 parameters, 429.6 M MACs at 640x640, within the budget" in ending.out
    assert "# models: student, control\n" in ending.out
    assert "# memory: at most 4,295 MB of crops and decoded images kept; all crops would take 157 MB\n" in ending.out
    assert "# files: none needed" in ending.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("teacher.weights=empty.safetensors", "empty.safetensors"),
        ("distillation.losses.feature.student=neck", "has no module 'neck'"),
    ],
)
def test_a_dry_run_of_what_cannot_start_says_so(run: Run, tmp_path: Path, setting: str, words: str) -> None:
    """Where every file is there and a run would be refused all the same, its sentence follows, and exit code 2."""
    (tmp_path / "empty.safetensors").touch()
    ending = run("distill", DRAWN_FACES, "--dry-run", "--set", setting)
    assert (ending.code, tomllib.loads(ending.out)["name"]) == (2, "demo")
    assert words in ending.err
    assert ending.err.count("\n") == 1


def test_missing_files_name_the_variable(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a shipped recipe's files are missing, its sentence and its dry run say where they are looked for."""
    weights = "weights/featherface_v1_c56_ssh_489015.pth"
    monkeypatch.setenv("FEATHERPRESS_SHARED", "nowhere")
    ending = run("distill", "v1_to_v2")
    assert (ending.code, ending.out, len(ending.err.splitlines())) == (2, "", 1)
    assert f"data/widerface and {weights} in the folder that FEATHERPRESS_SHARED names" in ending.err
    assert "FEATHERPRESS_SHARED is 'nowhere'" in ending.err
    listed = run("distill", "v1_to_v2", "--dry-run")
    assert listed.code == 0
    assert "# files: 5 needed, 5 missing" in listed.out
    assert f"#   missing nowhere/{weights} (teacher.weights)" in listed.out
    (tmp_path / weights).parent.mkdir()
    (tmp_path / weights).touch()
    monkeypatch.setenv("FEATHERPRESS_SHARED", str(tmp_path))
    listed = run("distill", "v1_to_v2", "--dry-run")
    assert "# files: 5 needed, 4 missing, 1 empty" in listed.out
    assert f"#   empty   {tmp_path / weights} (teacher.weights)" in listed.out
    monkeypatch.delenv("FEATHERPRESS_SHARED")
    assert "FEATHERPRESS_SHARED is not set: ../shared is taken" in run("preflight", "v1_to_v2").err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["diff"], "missing argument 'before'; see `featherpress diff --help`"),
        (["audit", "featherface_v2", "--inputs", "3"], "no such option: --inputs"),
        (["models", "--input", "wide"], "invalid value for '--input'"),
        (["audits"], "no such command 'audits'"),
    ],
)
def test_a_misspelt_command_line_is_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    """Words that make no sense end in one line on stderr and exit code 2."""
    ending = run(*arguments)
    assert (ending.code, ending.out) == (2, "")
    assert ending.err.startswith(f"featherpress: {sentence}")
    assert ending.err.count("\n") == 1


def test_every_command_shows_examples_that_parse() -> None:
    """Each command's help has examples that fit eighty columns, and the command takes them as they stand."""
    from typer.main import get_command

    from featherpress.cli import app

    program = get_command(app)
    for name, command in program.commands.items():
        text = command.callback.__doc__ or ""
        lines = [line.strip() for line in text.splitlines() if line.strip().startswith("featherpress ")]
        assert lines, name
        for line in lines:
            assert len(line) <= 76, line
            words = shlex.split(line)[1:]
            assert words[0] == name
            command.make_context(name, words[1:])


def test_help_fits_eighty_columns_and_says_every_choice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of every command fits eighty columns uncut, and names each value that a choice may have."""
    from typer.main import get_command

    from featherpress.cli import app

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    commands = get_command(app).commands
    assert "Audit: what models cost" in run("--help").out
    for name, command in commands.items():
        text = run(name, "--help").out
        assert max(map(len, text.splitlines())) <= 80, name
        assert "…" not in text, name
        words = set(re.findall(r"[\w-]+", text))
        for option in command.params:
            missing = set(option.type_descriptor.choices or ()) - words
            assert not missing, (name, option.name, missing)
