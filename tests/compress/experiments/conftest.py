"""A tiny experiment between classifiers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from featherpress.compress.recipes import Recipe, load_recipe

from .test_preflight import RECIPE


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """A recipe between tiny classifiers, in a folder where their module is found; a teacher need not be good."""
    shutil.copy(Path(__file__).with_name("tiny_models.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featherpress.compress.tasks.classification.base._BETTER_THAN_CHANCE", 0.0)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return lambda *settings: load_recipe(tmp_path / "tiny.toml", settings=settings)
