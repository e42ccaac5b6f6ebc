"""Recipes: what may be said, and what is answered to the rest."""

from pathlib import Path

import pytest

from featherpress.compress.recipes import load_recipe, recipe_to_toml, shipped_recipes
from featherpress.compress.recipes.files import expand_path
from featherpress.errors import RecipeError

MINIMAL = """
name = "mine"
[student]
model = "featherface_v2"
[data]
kind = "synthetic"
train_images = 8
validation_images = 4
[schedule]
epochs = 1
"""


@pytest.mark.parametrize("name", ["demo", "v1_to_v2"])
def test_shipped_recipes_are_whole(name: str) -> None:
    """A shipped recipe loads, and what is written of it loads to the same."""
    assert name in shipped_recipes()
    recipe = load_recipe(name)
    assert recipe.teacher is not None


def test_round_trip(tmp_path: Path) -> None:
    """A recipe as resolved reads back equal, nested tables included."""
    recipe = load_recipe("demo", settings=["seeds=[3, 4]", "data.root=a b"])
    (tmp_path / "again.toml").write_text(recipe_to_toml(recipe))
    assert load_recipe(tmp_path / "again.toml") == recipe


def test_settings_are_laid_over(tmp_path: Path) -> None:
    """`key=value` takes TOML values, plain text, and makes tables that are not there."""
    (tmp_path / "r.toml").write_text(MINIMAL)
    recipe = load_recipe(
        tmp_path / "r.toml", settings=["schedule.epochs=7", "name=other", "losses.box=0.5", "control=false"]
    )
    assert (recipe.schedule.epochs, recipe.name, recipe.losses.box, recipe.control) == (7, "other", 0.5, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("schedule.epocs=3", "no key schedule.epocs; did you mean epochs"),
        (
            'teacher={model="a", weights="b", schedule={epochs=1, epocs=3}}',
            "no key teacher.schedule.epocs; did you mean epochs",
        ),
        ("zzz=3", "no key zzz; there are name, seeds"),
        ("a=" + "[" * 5000, "no key a"),
        ("schedule.epochs=0", "schedule.epochs: .*greater than or equal to 1"),
        ("schedule.epochs", "written key=value"),
        ("name.first=1", "not a table"),
        ("seeds=[1, 1]", "seed twice"),
        ("seeds=[]", "at least 1"),
        ("data.kind=widerface", "needs a `root`"),
        ("data.train_images=0", "needs `train_images`"),
        ('student.backbone="teacher"', "there is no teacher"),
        ('teacher.model="featherface_v1"', "needs `weights`, or a `schedule`"),
        ('teacher={model="a", weights="b", cache=true}', "never repeat cannot be cached"),
        ("losses.box=nan", "finite"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, change: str, words: str) -> None:
    """Each way to contradict oneself is one sentence that names the place."""
    (tmp_path / "r.toml").write_text(MINIMAL)
    with pytest.raises(RecipeError, match=words):
        load_recipe(tmp_path / "r.toml", settings=[change])


def test_broken_files(tmp_path: Path) -> None:
    """A missing file, broken TOML and other encodings are one sentence each."""
    with pytest.raises(RecipeError, match="shipped are demo"):
        load_recipe("nonsense")
    (tmp_path / "broken.toml").write_text("name = 1 2\n")
    with pytest.raises(RecipeError, match=r"not valid TOML.*line 1"):
        load_recipe(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(tmp_path / "latin.toml")


def test_shared_folder_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """FEATHERPRESS_SHARED is ../shared unless it is set."""
    monkeypatch.delenv("FEATHERPRESS_SHARED", raising=False)
    assert expand_path("$FEATHERPRESS_SHARED/data") == Path("../shared/data")
    monkeypatch.setenv("FEATHERPRESS_SHARED", "/elsewhere")
    assert expand_path("${FEATHERPRESS_SHARED}/data") == Path("/elsewhere/data")
