"""Correlation with the teacher: what a linear map explains, on other positions than it was fitted on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherpress.compress.data import SyntheticFaces
from featherpress.compress.experiments.correlation import LevelFit, correlate, record_correlation
from featherpress.compress.recipes import DistillationRecipe, load_recipe
from featherpress.errors import DataError
from featherpress.models import Detector, PriorSpec, save_weights
from featherpress.records import Correlation, Level


def features(count: int, width: int, seed: int) -> Tensor:
    """Return noise, (count, width)."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def halves(student: Tensor, teacher: Tensor) -> list[float]:
    """Fit on the first half of the positions and return r on the second."""
    fits = []
    for ours, theirs in zip(student.chunk(2), teacher.chunk(2), strict=True):
        fit = LevelFit(student.shape[1], teacher.shape[1])
        for block in zip(ours.chunk(3), theirs.chunk(3), strict=True):
            fit.add(*block)
        fits.append(fit)
    return fits[1].correlate(fits[0].solve())


def test_what_a_linear_map_explains_is_one() -> None:
    """Teacher channels that are combinations of the student's, offset and all, have r 1."""
    student = features(2000, 6, 0)
    teacher = student @ features(6, 9, 1) + 3.0
    assert halves(student, teacher) == pytest.approx([1.0] * 9, abs=1e-5)


def test_what_has_nothing_in_common_is_about_zero() -> None:
    """Independent noise is not explained, since the map is fitted elsewhere: r is 0 within chance."""
    found = halves(features(8000, 6, 2), features(8000, 4, 3))
    assert max(map(abs, found)) < 0.06


def test_half_explained_is_what_it_should_be() -> None:
    """Signal and noise of equal variance give r = sqrt(1/2), as numpy would say of the best map."""
    student = features(20_000, 1, 4)
    teacher = student + features(20_000, 1, 5)
    assert halves(student, teacher) == pytest.approx([0.5**0.5], abs=0.02)


def test_channels_that_do_not_vary_are_left_out() -> None:
    """A dead channel of the teacher has no correlation; one of the student does no harm."""
    student = features(400, 3, 6)
    student[:, 1] = 0.5
    teacher = torch.stack([student[:, 0], torch.full((400,), 7.0)], dim=1)
    assert halves(student, teacher) == pytest.approx([1.0], abs=1e-4)


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


def test_levels_are_told_apart_and_modes_restored() -> None:
    """A copy of the teacher has r 1 at every level, a smaller model less; afterwards all are in their old modes."""
    teacher, copy, small = Pyramid(12, 0), Pyramid(12, 0), Pyramid(2, 1)
    small.eval()
    images = [torch.randn(1, 3, 24, 16, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    found = correlate({"student": copy, "control": small}, teacher, images, taps=("levels", "levels"))
    assert list(found) == [2, 4]
    for roles in found.values():
        assert roles["student"] == pytest.approx([1.0] * 12, abs=1e-4)
        assert sum(roles["control"]) / 12 < 0.8
    assert teacher.training
    assert copy.training
    assert not small.training
    assert not teacher.levels._forward_hooks


def test_written_record_is_read_again(tmp_path: Path) -> None:
    """The means in a record are those of its channels, as its class checks."""
    teacher, student = Pyramid(5, 0), Pyramid(3, 1)
    images = [torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    found = correlate({"student": student}, teacher, images, taps=("levels", "levels"))
    levels = tuple(Level.of(stride, roles) for stride, roles in found.items())
    Correlation(levels=levels).save(tmp_path / "correlation.json")
    read = Correlation.load(tmp_path / "correlation.json")
    assert read.levels == levels
    assert [level.stride for level in read.levels] == [2, 4]
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


@pytest.mark.parametrize(("images", "used"), [(2, 2), (1, 1), (24, 4)])
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
    recipe = load_recipe("v1_to_v2", settings=["distillation.default_losses=false"]).model_copy(
        update={"distillation": DistillationRecipe.model_validate({"default_losses": False, "losses": {"f": term}})}
    )
    experiment: Any = SimpleNamespace(
        out=tmp_path,
        recipe=recipe,
        validation=Broken(),
        task=SimpleNamespace(build=lambda _target, _settings: Tapped("ours")),
    )
    for folder in ("", "control"):
        (tmp_path / folder / "weights").mkdir(parents=True)
        save_weights(Tapped("ours"), tmp_path / folder / "weights" / "last.safetensors")
    record_correlation(experiment, Tapped("theirs"), images=images)
    found = Correlation.load(tmp_path / "eval" / "correlation.json")
    assert (found.images, dict(found.taps)) == (used, {"student": "ours", "teacher": "theirs"})
    assert [level.stride for level in found.levels] == [2]
    assert found.levels[0].student == pytest.approx(1, abs=1e-3)
    assert found.levels[0].control == pytest.approx(1, abs=1e-3)
    record_correlation(experiment, Tapped("theirs"), images=3 * images)
    assert Correlation.load(tmp_path / "eval" / "correlation.json").images == used
