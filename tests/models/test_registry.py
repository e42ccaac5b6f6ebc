"""Building by name, and what happens to names and settings that do not exist."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from featherpress.errors import CheckpointError, UsageError
from featherpress.models import create_detector, create_model, list_models, load_weights, register_model
from featherpress.models import registry as registry_module
from featherpress.models.factories import load_factory


def test_unknown_name_suggests_the_nearest() -> None:
    """A typo is answered with the name that was meant."""
    with pytest.raises(UsageError, match="did you mean featherface_v2"):
        create_model("featherface_v22")


def test_unknown_setting_lists_the_known() -> None:
    """A setting the preset does not have is refused, and those it has are named."""
    with pytest.raises(UsageError, match=r"no setting 'width'.*out_channels"):
        create_model("featherface_v2", width=3)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("featherface_v2", {"out_channels": 40}, "divisible by 16, got 40; the nearest are 32 or 48"),
        ("featherface_v1", {"out_channels": 75}, "divisible by 2, got 75"),
        ("featherface_paper", {"out_channels": 62}, "divisible by 4, got 62"),
        ("featherface_v1", {"out_channels": 0}, "at least 1"),
        ("featherface_v1", {"out_channels": 74.0}, "out_channels of featherface_v1 is 74 by default, got 74.0"),
        ("featherface_v1", {"light_pyramid": 1}, "light_pyramid of featherface_v1 is False by default, got 1"),
        ("featherface_v2", {"context": "ssh"}, "context is one of deformable, deformable_ssh, grouped_ssh, got 'ssh'"),
    ],
)
def test_impossible_widths_say_what_would_do(name: str, settings: dict[str, object], words: str) -> None:
    """A width that a block cannot split, or a choice there is not, is refused in words that help."""
    with pytest.raises(UsageError, match=words):
        create_model(name, **settings)


def test_shipped_weights_detect() -> None:
    """`pretrained` gives trained weights: two builds are equal, and unlike a fresh one they score no face in grey."""
    first, second = (create_model("featherface_v2", pretrained=True).eval() for _ in range(2))
    states = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    with torch.inference_mode():
        _, logits, _ = first(torch.zeros(1, 3, 128, 128))
    assert logits.softmax(dim=-1)[..., 1].max() < 0.3


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("featherface_v1", {}, r"no trained weights are shipped for featherface_v1 \(they are for featherface_v2\)"),
        ("featherface_v2", {"out_channels": 16}, "fit it as it is, not with out_channels=16"),
    ],
)
def test_no_other_weights_are_promised(name: str, settings: dict[str, object], words: str) -> None:
    """`pretrained` fails rather than give random weights."""
    with pytest.raises(UsageError, match=words):
        create_model(name, pretrained=True, **settings)


def test_a_model_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decorated factory is built and listed like our own, and a second one of its name is refused."""
    monkeypatch.setattr(registry_module, "_REGISTER", dict(registry_module._REGISTER))

    def tiny(*, width: int = 4) -> nn.Module:
        """Be small."""
        return nn.Linear(width, 1)

    register_model(params=5, year=2026, paper="Tiny")(tiny)
    assert "tiny" in list_models()
    assert create_model("tiny", width=7).in_features == 7
    with pytest.raises(ValueError, match="registered already"):
        register_model(params=5, year=2026, paper="Tiny")(tiny)
    with pytest.raises(UsageError, match="not a detector"):
        create_detector("tiny")


def test_a_model_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory that returns something else than a module is named, and does not stand in other models' way."""
    monkeypatch.setattr(registry_module, "_REGISTER", dict(registry_module._REGISTER))

    def forgetful() -> None:
        """Forget to return the model."""

    register_model(params=0, year=2026, paper="None")(forgetful)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="forgetful was built as a NoneType"):
        create_model("forgetful")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(create_model("retinaface_mnet025"), tmp_path / "other.pth")


def test_factories_that_a_name_cannot_build() -> None:
    """A parameter without a default, and a default that no file can name, are refused where they are registered."""

    def open_ended(width: int) -> nn.Module:
        return nn.Linear(width, 1)

    def with_a_class(*, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
        return activation()

    with pytest.raises(ValueError, match="'width' of open_ended has no default"):
        register_model(params=5, year=2026, paper="Open")(open_ended)
    with pytest.raises(ValueError, match="'activation' of with_a_class is <class"):
        register_model(params=0, year=2026, paper="Class")(with_a_class)
    assert not {"open_ended", "with_a_class"} & set(list_models())


def test_targets_outside_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`module:factory` is imported from the working directory; every way to get it wrong has its sentence."""
    (tmp_path / "my_models_for_test.py").write_text(
        "import torch\ndef net(): return torch.nn.Linear(2, 3)\ndef broken(x): return x\ndef other(): return 3\nn = 1\n"
        "def leaves(): raise SystemExit(0)\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert isinstance(load_factory("my_models_for_test:net"), torch.nn.Linear)
    for target, words in {
        "my_models_for_test:gone": "has no 'gone'",
        "no_such_module_here:net": "cannot import",
        "my_models_for_test:broken": "without arguments failed",
        "my_models_for_test:other": "returned a int",
        "my_models_for_test:n": "has a int, expected a function",
        "my_models_for_test:leaves": "SystemExit: 0",
        ":net": "expected the name of",
        "..:net": "expected the name of",
    }.items():
        with pytest.raises(UsageError, match=words):
            load_factory(target)
    assert sys.path == before
