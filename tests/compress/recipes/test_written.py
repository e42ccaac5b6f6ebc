"""Every recipe that is accepted is written as TOML that reads back equal; what could not be is refused."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherpress.compress.recipes import Recipe, load_recipe, recipe_to_toml
from featherpress.errors import RecipeError
from tests.recipes import DRAWN_FACES

texts = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["a.b", 'a "b"', "\ud800", "\x00", "\u2028", "größe", "'''"]
)
floats = st.floats(0, 1e9)
values = st.booleans() | st.integers() | st.floats() | texts


@given(
    name=st.text(st.sampled_from("ab1._-"), min_size=1, max_size=5),
    root=texts,
    model_settings=st.dictionaries(texts, values, max_size=3),
    freeze=st.lists(texts, max_size=2),
    numbers=st.tuples(floats, floats, st.floats(0, 1)),
    seeds=st.lists(st.integers(0, 2**33), min_size=1, max_size=2),
)
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recipes_read_back(  # noqa: PLR0917
    tmp_path: Path,
    name: str,
    root: str,
    model_settings: dict[str, object],
    freeze: list[str],
    numbers: tuple[float, float, float],
    seeds: list[int],
) -> None:
    """Texts of any letters, keys with dots and quotes, the largest and smallest numbers."""
    decay, save_every, learning_rate = numbers
    content = {
        "name": name,
        "seeds": seeds,
        "student": {"model": "featherface_v2", "settings": model_settings, "backbone": root},
        "teacher": {"model": "featherface_v1", "weights": root or "x"},
        "data": {"kind": "synthetic", "root": root},
        "schedule": {
            "epochs": 1,
            "freeze": freeze,
            "weight_decay": decay,
            "save_every": save_every,
            "learning_rate": learning_rate,
        },
    }
    try:
        recipe = Recipe.model_validate(content)
        text = recipe_to_toml(recipe).encode()
    except (ValueError, UnicodeEncodeError):
        return
    file = tmp_path / "written.toml"
    file.write_bytes(text)
    assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.root=\udcff", "no Unicode"),
        ("student.settings={x=nan}", "a finite number"),
        ("student.settings={x=inf}", "a finite number"),
        ("schedule.save_every=inf", "a finite number"),
        (f"schedule.epochs={'[' * 5000}", "a valid integer"),
        (f"schedule.epochs={'9' * 5000}", "maximum size"),
        (f"schedule.epochs={'9' * 400}", "at most"),
    ],
)
def test_what_cannot_be_written_is_refused(setting: str, said: str) -> None:
    """Halves of letters, numbers that are none, nesting and digits without end: one sentence each."""
    with pytest.raises(RecipeError, match=said) as refused:
        load_recipe(DRAWN_FACES, settings=[setting])
    assert len(str(refused.value)) < 300
