"""Exports of a recipe's model: scored by its task in eight bits, with its input and classes in the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherpress.commands.recipe_exports import TaskInt8
from featherpress.compress.deployment.graphs import GraphOptions, find_subject
from featherpress.compress.deployment.sessions import Session, SessionModel
from featherpress.compress.experiments.build import input_settings
from featherpress.compress.recipes import load_recipe
from featherpress.compress.tasks import task_of
from featherpress.errors import DataError
from featherpress.models import create_model, save_weights
from featherpress.models.inputs import ModelInput, input_of, remember_input

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.needs_torch("2.9", "exporting")
Run = Callable[..., Any]
SMALL = ("data.train_images=12", "data.validation_images=30")
NETS = """
from torch import nn

def tiny(classes=3):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""


def save_student(recipe: str, file: Path) -> nn.Module:
    """Save a recipe's student as it starts."""
    loaded = load_recipe(recipe)
    own, task = loaded.student, task_of(loaded)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = task.build(own.model, own.settings, **input_settings(own))
    save_weights(model, file)
    return model.eval()


def test_a_classifier_ships_in_eight_bits(tmp_path: Path, run_command: Run) -> None:
    """Both files are scored by the task on all validation images, and say what they take and their classes."""
    save_student("classifier", tmp_path / "last.safetensors")
    settings = [word for each in SMALL for word in ("--set", each)]
    options = ["--recipe", "classifier", "--weights", "last.safetensors", "--out", "c.onnx", "--int8"]
    ending = run_command("export", *options, "--calibration-images", "4", *settings)
    assert ending.code == 0, ending.err
    record = json.loads((tmp_path / "c.export.json").read_text())
    evaluation = record["evaluation"]
    assert evaluation["metric"] == {"key": "accuracy", "name": "accuracy"}
    assert evaluation["data"]["images"] == 30
    assert evaluation["difference"] == evaluation["int8"]["score"] - evaluation["float32"]["score"]
    assert "accuracy" in evaluation["gate"]
    assert "partial" not in evaluation["gate"]
    task = task_of(load_recipe("classifier", settings=SMALL))
    model = save_student("classifier", tmp_path / "again.safetensors")
    assert evaluation["float32"]["score"] == task.evaluate(model, task.open("val"), label="").score
    for name in ("c.onnx", "c.int8.onnx"):
        about = {each.key: each.value for each in onnx.load(tmp_path / name).metadata_props}
        takes = json.loads(about["takes"])
        assert (takes["classes"][0], takes["size"], takes["mean"]) == ("disc", 64, [0.5, 0.5, 0.5])
        assert about["preprocessing"] == "RGB, 0..1, minus (0.5, 0.5, 0.5), over (0.5, 0.5, 0.5), 64 pixels a side"
    assert "accuracy: " in ending.out


def test_a_broken_image_does_not_stop_calibration(caplog: pytest.LogCaptureFixture) -> None:
    """Training skips it with a warning, so calibration takes the next one and warns too; without any it stops."""

    class Images(list[Tensor | None]):
        def view(self, dataset: Any, index: int, model: Any) -> Tensor:
            if self[index] is None:
                raise DataError(f"image {index} is broken")
            return self[index]  # type: ignore[return-value]

    def calibration(*images: Tensor | None) -> TaskInt8:
        data: Any = Images(images)
        unused: Any = None
        return TaskInt8(task=data, model=unused, training=data, validation=data, count=2, limit=0, how=unused)

    given = torch.zeros(1), torch.ones(1), None, None
    assert [float(each[0]) for each in calibration(*given).images()] == [0.0, 0.0]
    assert "skipped a broken image: image 2 is broken" in caplog.text
    with pytest.raises(DataError, match="all are broken"):
        calibration(None).images()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--recipe", "classifier"), "export --recipe needs --weights"),
        (("featherface_v2", "--recipe", "classifier", "--weights", "x.safetensors"), "MODEL is student or teacher"),
        (("--set", "data.size=32"), "--set changes a recipe"),
        (("own_nets:tiny", "--threshold", "0.5"), "--threshold has no effect without --nms"),
        (("own_nets:tiny", "--int8-plan", "all"), "--int8-plan has no effect without --int8"),
        (("own_nets:tiny", "--calibration", "minmax"), "--calibration has no effect without --int8"),
        (("own_nets:tiny", "--calibration-images", "5"), "--calibration-images has no effect without --int8"),
        (("own_nets:tiny", "--limit", "5"), "--limit has no effect without --int8"),
        (("own_nets:tiny", "--data", "x"), "--data has no effect without --int8"),
        (("own_nets:tiny", "--int8", "--calibration", "none", "--calibration-images", "5"), "looks at no images"),
        (("own_nets:tiny", "--no-onnx"), "--no-onnx leaves nothing to write; add --program"),
        (("own_nets:tiny", "--no-onnx", "--int8"), "--int8 quantises the ONNX file; leave --no-onnx out"),
        (("own_nets:tiny", "--no-onnx", "--program", "--opset", "17"), "--opset is ONNX's and has no effect"),
        (
            ("own_nets:tiny", "--input", "640x480"),
            "--input is one image: the side of a square in pixels, as 640, or its",
        ),
        (("own_nets:tiny", "--input", "1x3x8x0"), "--input is one image"),
        (("own_nets:tiny", "--input", "1x3x8x8x8"), "--input is one image"),
        (("own_nets:tiny", "--int8", "--input", "1x3x8x9"), "images that fill a square: give --input one side"),
        (
            ("own_nets:tiny@a.safetensors", "--weights", "b.safetensors"),
            "names its weights, and --weights b.safetensors",
        ),
        (("own_nets:tiny", "--int8", "--int8-plan", "x.json"), "x.json: No such file or directory; a plan is auto,"),
        (("own_nets:tiny", "--int8", "--input", "32"), "give --recipe, whose task says how to score own_nets:tiny"),
    ],
)
def test_what_does_not_go_together_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Run, words: tuple[str, ...], sentence: str
) -> None:
    """Each ends in one sentence, and nothing is written."""
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    ending = run_command("export", *words)
    assert ending.code == 2
    assert sentence in " ".join(ending.err.split())
    assert not [*tmp_path.glob("*.onnx")]


def test_a_size_that_is_no_square_and_weights_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Run
) -> None:
    """A shape is one image of that height and width, and `NAME@FILE` the weights of the file."""
    (tmp_path / "wide_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    from wide_nets import tiny  # type: ignore[import-not-found]

    save_weights(tiny(), tmp_path / "tiny.safetensors")
    ending = run_command("export", "wide_nets:tiny@tiny.safetensors", "--input", "1x3x16x40", "--json")
    record = json.loads(ending.out)
    assert record["input"]["shape"] == record["files"][0]["parity"]["checked"][0]["shape"] == [1, 3, 16, 40]
    assert (record["model"], record["weights"]["file"]) == ("wide_nets:tiny", "tiny.safetensors")
    assert (tmp_path / "tiny.onnx").is_file()
    size = find_subject(
        "", None, options=GraphOptions(), side=(96, 64), fixed=True, model=create_model("featherface_v2")
    )
    assert size.shapes == ((1, 3, 96, 64),)


def test_weights_say_what_a_model_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model named by its factory is traced at the size that its weights say, and keeps its classes."""
    (tmp_path / "named_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    from named_nets import tiny  # type: ignore[import-not-found]

    model, takes = tiny(), ModelInput(size=48, classes=("a", "b", "c"))
    remember_input(model, takes)
    save_weights(model, tmp_path / "tiny.safetensors")
    subject = find_subject("named_nets:tiny", tmp_path / "tiny.safetensors", options=GraphOptions())
    assert subject.example == (2, 3, 48, 48)
    assert input_of(subject.original) == takes
    larger = find_subject("named_nets:tiny", tmp_path / "tiny.safetensors", options=GraphOptions(), side=64)
    assert larger.example == (2, 3, 64, 64)


class Both(nn.Module):
    """A model that gives a dictionary, as torchvision's segmenters do."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return sums and means."""
        return {"out": images.sum((1, 2, 3)), "aux": images.mean((1, 2, 3))}


class FakeSession(Session):
    """What `SessionModel` asks of a session, computed by torch, with a note of every batch."""

    def __init__(self, *, free_batch: bool) -> None:
        self.free_batch, self.batches = free_batch, list[int]()

    def run(self, images: Any) -> list[Any]:
        """Compute both outputs."""
        self.batches.append(len(images))
        return [each.numpy() for each in Both()(torch.from_numpy(images)).values()]


@pytest.mark.parametrize(("free", "batches"), [(True, [3]), (False, [1, 1, 1])])
def test_an_exported_model_returns_what_the_model_does(free: bool, batches: list[int]) -> None:
    """Outputs keep their names; a file of fixed batch gets images one by one."""
    session, images = FakeSession(free_batch=free), torch.rand(3, 3, 4, 4)
    found = SessionModel(session, Both(), (1, 3, 4, 4))(images)
    assert session.batches == batches
    assert [*found] == ["out", "aux"]
    for name, expected in Both()(images).items():
        torch.testing.assert_close(found[name], expected)
