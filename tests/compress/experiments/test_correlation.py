"""Similarity to the teacher: linear CKA on hand-made features, and level by level on models."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherpress.compress.data import SyntheticFaces
from featherpress.compress.experiments.correlation import LinearCKA, correlate, record_correlation
from featherpress.compress.recipes import DistillationRecipe, load_recipe
from featherpress.errors import DataError
from featherpress.models import Detector, PriorSpec, normalize, save_weights
from featherpress.records.run import Correlation, Level


def features(count: int, width: int, seed: int) -> Tensor:
    """Return noise, (count, width)."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def cka(student: Tensor, teacher: Tensor) -> float | None:
    """Return the CKA of samples that come in three blocks."""
    measure = LinearCKA()
    for block in zip(student.chunk(3), teacher.chunk(3), strict=True):
        measure.add(*block)
    return measure.value()


def test_rotation_scale_and_offset_make_no_difference() -> None:
    """Features that are turned, scaled and shifted have a CKA of 1."""
    student = features(2000, 6, 0)
    turn = torch.linalg.qr(features(6, 6, 1)).Q
    assert cka(student, 3 * student @ turn + 5.0) == pytest.approx(1.0, abs=1e-6)


def test_worked_by_hand() -> None:
    """X = (1, -1, 0, 0) and Y = ((1, 0), (-1, 0), (0, 1), (0, -1)): |X^T Y|^2 / (2 * sqrt(8)) = 4 / sqrt(32)."""
    student = torch.tensor([[1.0], [-1.0], [0.0], [0.0]])
    teacher = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert cka(student, teacher) == pytest.approx(4 / 32**0.5)


def test_independent_features_are_about_zero_and_constant_ones_have_none() -> None:
    """Noise has a CKA of about 0; features that do not vary have none."""
    value = cka(features(8000, 6, 2), features(8000, 4, 3))
    assert value is not None
    assert value < 0.01
    assert cka(torch.full((400, 3), 7.0), features(400, 3, 4)) is None


class Pyramid(nn.Module):
    """Two levels at strides 2 and 4, of a given width."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, width, 2, stride=2)
        self.second = nn.Conv2d(3, width, 4, stride=4)
        self.levels = nn.Identity()

    def forward(self, image: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.levels([self.first(image), self.second(image)])
        return levels


def test_levels_are_apart() -> None:
    """A copy of the teacher has a CKA of 1 at every level, a smaller model less; the hooks are gone afterwards."""
    teacher, copy, small = Pyramid(12, 0).eval(), Pyramid(12, 0).eval(), Pyramid(2, 1).eval()
    images = [torch.randn(1, 3, 24, 16, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    measured = correlate({"student": copy, "control": small}, teacher, images, taps=("levels", "levels"))
    assert list(measured) == [2, 4]
    for roles in measured.values():
        assert roles["student"] == pytest.approx(1.0, abs=1e-6)
        assert roles["control"] is not None
        assert roles["control"] < 0.8
    assert not teacher.levels._forward_hooks


def test_written_record_is_read_again(tmp_path: Path) -> None:
    """A record keeps strides, values and roles."""
    levels = (Level(stride=8, cka={"student": 0.5}), Level(stride=16, cka={"student": None}))
    Correlation(images=4, levels=levels).save(tmp_path / "correlation.json")
    read = Correlation.load(tmp_path / "correlation.json")
    assert read.levels == levels
    assert read.roles == ("student",)


class Tapped(Detector):
    """A detector of which only a module of some name gives features."""

    def __init__(self, name: str) -> None:
        super().__init__(PriorSpec())
        torch.manual_seed(0)
        self.add_module(name, nn.Conv2d(3, 2, 2, stride=2))
        self.tapped = name

    def forward(self, images: Tensor) -> Any:
        return self.get_submodule(self.tapped)(images)


@pytest.mark.parametrize(("images", "used"), [(2, 2), (1, 1), (24, 8)])
def test_a_runs_correlation_by_its_files(tmp_path: Path, images: int, used: int) -> None:
    """The weights of both arms against the teacher, at the taps of each; broken images are left out."""
    faces = SyntheticFaces(length=9, seed=0, size=(32, 32))

    class Broken:
        def __len__(self) -> int:
            return len(faces)

        def __getitem__(self, index: int) -> Any:
            if index == 8:
                raise DataError("broken")
            return faces[index]

    term = {"loss": "pkd", "student": "ours", "teacher": "theirs"}
    recipe = load_recipe("v1_to_v2").model_copy(
        update={"distillation": DistillationRecipe.model_validate({"losses": {"f": term}})}
    )
    experiment: Any = SimpleNamespace(
        out=tmp_path,
        recipe=recipe,
        validation=Broken(),
        task=SimpleNamespace(
            build=lambda _target, _settings: Tapped("ours"),
            view=lambda images, index, _model: normalize(images[index].image[None]),
            teacher_inputs=lambda _student, _teacher: lambda images: images,
        ),
    )
    for folder in ("", "control"):
        (tmp_path / folder / "weights").mkdir(parents=True)
        save_weights(Tapped("ours"), tmp_path / folder / "weights" / "last.safetensors")
    record_correlation(experiment, Tapped("theirs"), images=images)
    found = Correlation.load(tmp_path / "eval" / "correlation.json")
    assert (found.images, dict(found.taps)) == (used, {"student": "ours", "teacher": "theirs"})
    assert [level.stride for level in found.levels] == [2]
    assert found.levels[0].cka == pytest.approx({"student": 1, "control": 1}, abs=1e-6)
    record_correlation(experiment, Tapped("theirs"), images=3 * images)
    assert Correlation.load(tmp_path / "eval" / "correlation.json").images == used
