"""A loss that another package brings, installed by pip: in a recipe and in a loop, like the ten."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "outside-losses"
version = "1.0"
[project.entry-points."featherpress.losses"]
anything = "outside_losses"
[tool.setuptools]
py-modules = ["outside_losses"]
"""

LOSSES = '''
from __future__ import annotations

from typing import TYPE_CHECKING

from featherpress.compress import register_loss
from featherpress.compress.distillation.losses.bounds import Weight

if TYPE_CHECKING:
    from torch import Tensor


@register_loss("outside")
def outside(student: Tensor, teacher: Tensor, *, labels: Tensor, power: int = 2, scale: Weight = 1.0, shift=0.5):
    """Pull logits together, those of the label apart."""
    return scale * ((student - teacher).abs().pow(power).mean() + shift) + 0 * labels.sum()


@register_loss("between", kind="features", adapter="any")
def between(student, teacher, *, power=2.0):
    return (student.mean() - teacher.mean()).abs().pow(power)
'''

RECIPE = """
name = "tiny"
[student]
model = "tiny_models:net"
[teacher]
model = "tiny_models:net"
settings = { width = 12 }
schedule = { epochs = 1, batch_size = 4 }
[data]
kind = "shapes"
image_size = 64
classes = 3
variants = 1
train_images = 8
validation_images = 30
[schedule]
epochs = 1
batch_size = 4
log_every = 1
[distillation]
ramp_steps = 0
[distillation.losses]
mine = { loss = "outside", power = 1, scale = 2.0, shift = 0 }
other = { loss = "between", student = "1", teacher = "1" }
"""

REFUSED = """
import sys
from featherpress.compress.recipes import load_recipe
from featherpress.errors import RecipeError
for change in sys.argv[1:]:
    try:
        load_recipe("tiny.toml", settings=[f"distillation.losses.{change}"])
    except RecipeError as error:
        print(" ".join(str(error).split()))
"""

IN_A_LOOP = """
import json, torch
from featherpress.compress import Distiller, Features, Logits
from tiny_models import net
student, teacher, x, y = net(), net(width=12), torch.zeros(2, 3, 64, 64), torch.tensor([0, 1])
terms = {"mine": Logits("outside", power=1, scale=2.0), "other": Features("between", student="1", teacher="1")}
with Distiller(student, teacher, terms, example=x) as kd:
    with kd.step(x) as step:
        out = student(x)
    step.loss(out, labels=y).backward()
    expected = 2 * ((out - teacher(x)).abs().mean() + 0.5)
    print(json.dumps([step.parts["mine"].item(), expected.item()]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its models, and in `site` the package as pip leaves it."""
    folder = tmp_path_factory.mktemp("outside")
    source = folder / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "outside_losses.py").write_text(LOSSES)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(source)], check=True)
    (folder / "tiny.toml").write_text(RECIPE)
    models = Path(__file__).parents[1] / "experiments" / "tiny_models.py"
    (folder / "tiny_models.py").write_text(models.read_text())
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(folder / "site"), str(folder), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_it_is_a_term_of_a_recipe(folder: Path) -> None:
    """With its options, in a few steps that are checked like any recipe's: both terms count."""
    ending = run(folder, "-m", "featherpress.cli", "preflight", "tiny.toml")
    assert ending.returncode == 0, ending.stdout + ending.stderr
    for name in ("kd_mine", "kd_other"):
        assert f"ok    {name} is at most " in ending.stdout


def test_it_is_a_term_in_a_loop(folder: Path) -> None:
    """With its options and the context that it names."""
    ending = run(folder, "-c", IN_A_LOOP)
    assert ending.returncode == 0, ending.stderr
    found, expected = json.loads(ending.stdout)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_schema_of_recipes_names_it(folder: Path) -> None:
    """Editors complete its name and its options, with their bounds and what they are unless given."""
    ending = run(folder, "-m", "featherpress.cli", "distill", "--schema")
    assert ending.returncode == 0, ending.stderr
    definitions: dict[str, Any] = json.loads(ending.stdout)["$defs"]
    options = definitions["OutsideTerm"]["properties"]
    assert options["loss"]["const"] == "outside"
    assert (options["power"]["type"], options["power"]["default"]) == ("integer", 2)
    assert (options["scale"]["type"], options["scale"]["minimum"]) == ("number", 0)
    assert options["shift"]["type"] == "number"
    assert definitions["BetweenTerm"]["properties"]["power"]["type"] == "number"
    assert not definitions["OutsideTerm"]["additionalProperties"]


def test_what_it_does_not_take_is_a_sentence(folder: Path) -> None:
    """An unknown option, one out of bounds, one of another type, and its name misspelt."""
    expected = {
        "mine.wrong=1": "unknown key 'wrong' in distillation.losses.mine; expected one of loss, weight",
        "mine.scale=-1": "distillation.losses.mine.scale: ",
        "mine.power='a'": "distillation.losses.mine.power: ",
        "mine.loss='outsied'": "no loss is named 'outsied'; did you mean 'outside'",
    }
    ending = run(folder, "-c", REFUSED, *expected)
    assert ending.returncode == 0, ending.stderr
    for line, words in zip(ending.stdout.splitlines(), expected.values(), strict=True):
        assert words in line
