"""The registry of tasks: by kind, by a dotted name, and from installed packages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from featherpress.compress import Task, register_task
from featherpress.compress.recipes import kinds as kinds_module
from featherpress.compress.recipes import load_recipe, recipe_schema
from featherpress.compress.recipes.data import DataRecipe
from featherpress.compress.recipes.kinds import find_task, list_kinds
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.errors import RecipeError, UsageError
from tests.recipes import DRAWN_FACES

OUTSIDE = """
from typing import Literal

from featherpress.compress import Task, register_task
from featherpress.compress.recipes.data import DataRecipe


class Options(DataRecipe):
    kind: Literal["sound"]
    rate: int = 16


@register_task("sound")
class Sound(Task):
    Data = Options
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that brings data of the kind `sound`."""
    (tmp_path / "outside_tasks.py").write_text(OUTSIDE)
    info = tmp_path / "outside_tasks-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-tasks\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[featherpress.tasks]\nanything = outside_tasks\n")
    monkeypatch.syspath_prepend(tmp_path)
    for kind in kinds_module._OWN:
        find_task(kind)  # the package's own register themselves once, as their modules are loaded
    monkeypatch.setattr(kinds_module, "_REGISTER", dict(kinds_module._REGISTER))
    kinds_module._load_others.cache_clear()
    yield tmp_path
    kinds_module._load_others.cache_clear()


def test_our_own_are_registered() -> None:
    """Every kind of ours has a task, whose options name the kind."""
    for kind in ("coco", "shapes", "synthetic", "widerface"):
        assert issubclass(find_task(kind), Task)
        assert kind in list_kinds()
    assert find_task("synthetic") is DetectionTask


def test_an_installed_package_brings_a_kind(outside: Path) -> None:
    """Its options are the recipe's `[data]`, checked like ours, and are in the recipes' JSON Schema."""
    assert "sound" in list_kinds()
    settings = ["data.kind=sound", "data.rate=8"]
    with pytest.raises(RecipeError, match="unknown key 'image_size' in data"):
        load_recipe(DRAWN_FACES, settings=["data.kind=sound", "data.image_size=3"])
    text = (Path(kinds_module.__file__).parent / "classifier.toml").read_text()
    own = outside / "own.toml"
    own.write_text(text.split("[data]")[0] + "[data]\nvariants = 2\n[schedule]" + text.split("\n[schedule]")[1])
    recipe = load_recipe(own, settings=settings)
    assert type(recipe.data).__name__ == "Options"
    assert recipe.data.model_dump()["rate"] == 8
    assert '"sound"' in recipe_schema()


def test_a_task_is_named_by_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`module:Class` in the working directory is imported; what is not a task is refused in a sentence."""
    (tmp_path / "mine_for_kinds.py").write_text(
        "from featherpress.compress import Task\n\nclass Mine(Task):\n    pass\n\ndef other():\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    assert find_task("mine_for_kinds:Mine").Data is DataRecipe
    with pytest.raises(UsageError, match="mine_for_kinds:other is not a task"):
        find_task("mine_for_kinds:other")
    with pytest.raises(UsageError, match="has no 'Absent'"):
        find_task("mine_for_kinds:Absent")


def test_a_kind_that_nobody_knows() -> None:
    """The nearest one is suggested, and nothing falls back to faces."""
    with pytest.raises(RecipeError, match="no task is for data of kind 'shape'; did you mean 'shapes'"):
        load_recipe(DRAWN_FACES, settings=["data.kind=shape"])


def test_a_kind_has_one_task() -> None:
    """Another task for a kind that is taken is refused."""
    with pytest.raises(UsageError, match="has a task already"):

        @register_task("shapes")
        class Other(Task):
            pass
