"""Recipes: what may be said, and what is answered to the rest."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from featherpress.compress.distillation.losses.registry import list_losses
from featherpress.compress.recipes import (
    DataRecipe,
    DistillationRecipe,
    LossRecipe,
    Recipe,
    ScheduleRecipe,
    StudentRecipe,
    TeacherRecipe,
    load_recipe,
    recipe_schema,
    recipe_to_toml,
    shipped_recipes,
)
from featherpress.compress.recipes.data import CropsRecipe, UnlabelledRecipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.schema import PruneRecipe
from featherpress.compress.recipes.terms import FeatureTerm, OutputTerm, Term
from featherpress.compress.tasks.classification.options import DigitsData, FolderData, ShapesData
from featherpress.compress.tasks.detection.options import CocoData, FaceData
from featherpress.compress.tasks.segmentation.options import MasksData
from featherpress.errors import RecipeError
from tests.recipes import DRAWN_FACES

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
    odd = ['data.root="\\u2028 \U0001f4f7 b"', 'student.settings={"größe.x"=1, "a b"=true}', "distillation.losses={}"]
    recipe = load_recipe(DRAWN_FACES, settings=["seeds=[3, 4]", *odd])
    (tmp_path / "again.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "again.toml") == recipe


def test_one_may_be_several(tmp_path: Path) -> None:
    """Roots, sizes and scales are one or a list; several roots share alike unless told; what cannot be is refused."""
    several = ['data.root=["a", "b"]', "data.size=[256, 320]", 'data.unlabelled={root=["a", "b"], long_side=[0, 640]}']
    recipe = load_recipe("v1_to_v2_photos", settings=several)
    (tmp_path / "again.toml").write_text(recipe_to_toml(recipe))
    data = load_recipe(tmp_path / "again.toml").data
    assert data == recipe.data
    assert (data.roots, data.sizes, data.root_shares) == (("a", "b"), (256, 320), (1.0, 1.0))
    assert data.unlabelled is not None
    assert (data.unlabelled.roots, data.unlabelled.long_sides) == (("a", "b"), (0, 640))
    one = load_recipe("v1_to_v2_photos").data
    assert (len(one.roots), one.sizes, one.root_shares) == (1, (320,), ())
    assert load_recipe("v1_to_v2_photos", settings=["data.balance=true"]).data.root_shares == (1.0,)
    for wrong, message in (
        (("v1_to_v2", "data.shares=[1, 2]"), "2 numbers for 1 roots"),
        (("demo", "data.balance=true"), "neither roots nor events"),
        (("v1_to_v2", "data.crops.native_probability=0.8"), "more than 1"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(wrong[0], settings=[wrong[1]])


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
        ("schedule.epocs=3", "unknown key 'epocs' in schedule; did you mean 'epochs'"),
        (
            'teacher={model="a", weights="b", schedule={epochs=1, epocs=3}}',
            "unknown key 'epocs' in teacher.schedule; did you mean 'epochs'",
        ),
        ("zzz=3", "unknown key 'zzz' in the top level; expected one of name, seeds"),
        ("a=" + "[" * 5000, "unknown key 'a' in the top level"),
        ("schedule.epochs=0", "schedule.epochs: expected at least 1, got 0"),
        ("schedule.epochs", "written key=value"),
        ("name.first=1", "not a table"),
        ("seeds=[1, 1]", "seed twice"),
        ("seeds=[]", "at least 1"),
        ("data.kind=widerface", "needs a `root`"),
        ("data.train_images=0", "needs `train_images`"),
        ('student.backbone="teacher"', "there is no teacher"),
        ('teacher.model="featherface_v1"', "needs `weights`, or a `schedule`"),
        ('teacher={model="a", weights="b", cache=true}', "never repeat cannot be cached"),
        ("data.crops.zoom_in=[0.8, 0.4]", "`zoom_in` goes from 0.8 to 0.4"),
        ("losses.box=nan", "finite"),
        ('distillation.losses.x={loss="fgd", student="a", teacher="a", background=inf}', "background.*finite"),
        (
            "distillation.losses.feature.weigth=2",
            "unknown key 'weigth' in distillation.losses.feature; did you mean 'weight'",
        ),
        (
            "distillation.losses.feature.temperature=2",
            "'temperature' in distillation.losses.feature; expected one of loss, weight",
        ),
        ("distillation.losses.x={weight=1}", "distillation.losses.x: a term needs a `loss`, one of attention, binary"),
        ('distillation.losses.x={loss="pdk"}', "distillation.losses.x: no loss is named 'pdk'; did you mean 'pkd'"),
        ('distillation.losses.x={loss="pkd"}', "key 'student' is missing in distillation.losses.x"),
        ('distillation.losses.box.output="x"', "distillation.losses.box.output: .*'boxes' or 'landmarks'"),
        ('distillation.losses.ratio={loss="margin"}', "cannot be named ratio"),
        ('distillation.losses.Kd={loss="margin"}', "distillation.losses.Kd: "),
        ("distillation.losses=3", "distillation.losses: expected a table, got 3"),
        ("distillation.losses.feature=3", "distillation.losses.feature: .*(dictionary|table)"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, change: str, words: str) -> None:
    """Each way to contradict oneself is one sentence that names the place."""
    (tmp_path / "r.toml").write_text(MINIMAL)
    with pytest.raises(RecipeError, match=words):
        load_recipe(tmp_path / "r.toml", settings=[change])


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("dkd", "dkd is refused for two classes.*non-target term is always 0"),
        ("kl", "kl compares a classifier's logits; for a detector of faces use margin, and for one of other"),
    ],
)
def test_losses_that_a_detector_cannot_have(loss: str, words: str) -> None:
    """A classifier's loss between detectors is refused with the reason and the way out."""
    with pytest.raises(RecipeError, match=words):
        load_recipe(DRAWN_FACES, settings=[f"distillation.losses.x.loss={loss}"])


def test_default_terms_are_laid_under(tmp_path: Path) -> None:
    """The four terms are there with their weights; a table changes only what it gives; or none is there."""
    (tmp_path / "r.toml").write_text(MINIMAL)
    losses = load_recipe(tmp_path / "r.toml").distillation.losses
    assert {name: term.weight for name, term in losses.items()} == {
        "feature": 4.0,
        "class": 1.0,
        "box": 0.5,
        "landmark": 0.25,
    }
    settings = ["distillation.losses.feature.loss=cwd", "distillation.losses.class.temperature=2"]
    changed = load_recipe(tmp_path / "r.toml", settings=settings).distillation.losses
    assert (changed["feature"].loss, changed["feature"].weight) == ("cwd", 4.0)
    assert isinstance(changed["feature"], FeatureTerm)
    assert changed["feature"].student == "shuffle"
    assert isinstance(changed["class"], OutputTerm)
    assert (changed["class"].temperature, changed["class"].weight) == (2.0, 1.0)
    assert changed["box"] == losses["box"]
    without = load_recipe(tmp_path / "r.toml", settings=["distillation.default_losses=false"])
    assert without.distillation.losses == {}
    with pytest.raises(RecipeError, match=r"there is none: leave default_losses out, or add one, .*margin"):
        load_recipe(DRAWN_FACES, settings=["distillation.default_losses=false"])


@pytest.mark.parametrize("name", shipped_recipes())
def test_default_terms_are_for_detectors_of_faces(name: str) -> None:
    """They are there where a recipe's student is one, and nowhere else, unless it says so itself."""
    recipe, faces = load_recipe(name), name == "demo" or "_to_v2" in name
    assert recipe.distillation.default_losses is faces
    assert recipe == load_recipe(name, settings=[f"distillation.default_losses={str(faces).lower()}"])
    assert faces == ({"feature", "class", "box", "landmark"} <= recipe.distillation.losses.keys())


def test_the_schema_for_editors_knows_every_key() -> None:
    """A table of a default term may leave its loss out, and no table takes unknown keys."""
    definitions = json.loads(recipe_schema())["$defs"]
    assert "loss" not in definitions["PkdTerm"]["required"]
    assert all(not part.get("additionalProperties", False) for part in definitions.values())


def test_terms_and_losses_are_the_same_list() -> None:
    """Every registered loss can be named in a recipe, and every term's loss is registered."""
    names = [get_args(kind.model_fields["loss"].annotation)[0] for kind in get_args(get_args(Term)[0])]
    assert sorted(names) == list_losses()


def test_broken_files(tmp_path: Path) -> None:
    """A missing file, broken TOML and other encodings are one sentence each."""
    with pytest.raises(RecipeError, match="shipped are ants_bees, blood_cells, classifier, demo, digits"):
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


REFERENCE = Path(__file__).parents[3] / "docs" / "recipes.md"
SECTIONS = {
    "## The recipe": Recipe,
    "## `[student]`": StudentRecipe,
    "## `[student.prune]`": PruneRecipe,
    "## `[teacher]`": TeacherRecipe,
    "## `[data]`\n": DataRecipe,
    "## `[data]`, faces": FaceData,
    "## `[data]`, objects": CocoData,
    "## `[data]`, folders of classes": FolderData,
    "## `[data]`, digits": DigitsData,
    "## `[data]`, drawn shapes": ShapesData,
    "## `[data]`, images with masks": MasksData,
    "## `[data.crops]`": CropsRecipe,
    "## `[data.unlabelled]`": UnlabelledRecipe,
    "## `[schedule]`": ScheduleRecipe,
    "## `[losses]`": LossRecipe,
    "## `[distillation]`": DistillationRecipe,
    "Keys of every term": OutputTerm,
}


def default_of(field: FieldInfo) -> str:
    """Write a default as the reference does."""
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "*all defaults*"
    return "*none*" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_reference_knows_every_key(heading: str) -> None:
    """`docs/recipes.md` lists each table's keys with their defaults, all of them and no other."""
    table = REFERENCE.read_text().split(f"\n{heading}", 1)[1].split("| key |", 1)[1].split("\n\n", 1)[0]
    written = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, flags=re.MULTILINE))
    fields, common = SECTIONS[heading].model_fields, DataRecipe.model_fields
    if issubclass(SECTIONS[heading], DataRecipe) and SECTIONS[heading] is not DataRecipe:
        # A task's table says what it adds, and what it has in another way.
        fields = {key: field for key, field in fields.items() if repr(common.get(key)) != repr(field)}
    assert written == {key: default_of(field) for key, field in fields.items()}


def test_the_reference_knows_every_loss() -> None:
    """So are the losses, each with the keys that it has beside the common ones."""
    text = REFERENCE.read_text()
    table = text.split("\nKeys of those between features", 1)[1].split("| key |", 1)[1].split("\n\n", 1)[0]
    written = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, flags=re.MULTILINE))
    common = OutputTerm.model_fields
    own = {key: default_of(field) for key, field in FeatureTerm.model_fields.items() if key not in common}
    assert written == own
    losses = text.split("| loss | key |", 1)[1]
    rows = set(re.findall(r"^\| `(\w+)` \| *`?(\w*)`? *\| *(.*?) *\|", losses, flags=re.MULTILINE))
    expected = set()
    for kind in get_args(get_args(Term)[0]):
        keys = {key: field for key, field in kind.model_fields.items() if key not in {*common, *own}}
        (name,) = get_args(kind.model_fields["loss"].annotation)
        expected |= {(name, key, default_of(field)) for key, field in keys.items()} or {(name, "", "")}
    assert rows == expected


def test_the_reference_knows_every_shipped_recipe() -> None:
    """And the recipes that are shipped."""
    table = REFERENCE.read_text().split("| shipped |", 1)[1].split("\n\n", 1)[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == shipped_recipes()


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    """A recipe that Notepad saved is read."""
    (tmp_path / "mine.toml").write_text("\ufeff" + MINIMAL, encoding="utf-8")
    assert load_recipe(tmp_path / "mine.toml").name == "mine"
