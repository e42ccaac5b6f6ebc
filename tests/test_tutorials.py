"""The tutorials do what they say: their files are written, their commands run, and their output compared."""

import fnmatch
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import Ending

REPOSITORY = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.md"))

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_DECIMAL = re.compile(r"\d+\.\d+")
_EXIT = re.compile(r"#\s*exit (\d)\s*$")
_FRAMEWORK = re.compile(r"^from (accelerate|lightning|transformers)\b|^import (lightning)$", re.MULTILINE)
SHORTER = {
    "distil": (
        ("epochs = 100", "epochs = 4"),
        ("epochs = 8", "epochs = 4"),
        ("100 steps", "4 steps"),
        ("Distillation raised accuracy by 0.160 (95% interval 0.098 to 0.222 over 3 seeds and 450 images).\n", ""),
    ),
    "prune": (
        ("seeds = [0, 1, 2]", "seeds = [0]"),
        ("epochs = 4", "epochs = 1"),
        ("epochs = 8", "epochs = 2"),
        (
            "12 (2 budgets, 2 arms: student, control; 3 seeds) of 104",
            "4 (2 budgets, 2 arms: student, control; 1 seed) of 26",
        ),
        ("of 208 steps", "of 52 steps"),
    ),
}
"""What a test shortens on a page, and what then does not come out; numbers that are shown do not count there."""
PROGRAMS = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run"]}


@dataclass(frozen=True)
class Command:
    """A line after `$`, how it is said to end, and what it is said to print."""

    line: str
    code: int
    shown: str


def commands(body: str) -> Iterator[Command]:
    """Split a console block at its prompts."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        ending = _EXIT.search(line)
        yield Command(line=_EXIT.sub("", line).strip(), code=int(ending[1]) if ending else 0, shown=shown)


def same(shown: str, printed: str) -> bool:
    """Compare what is shown with what was printed; `...` stands for anything, and any space is one space."""
    wanted, found = (re.sub(r"\s+", " ", text).strip() for text in (shown, printed))
    pattern = re.sub(r"([\[\]?*])", r"[\1]", wanted).replace("...", "*")
    return fnmatch.fnmatchcase(found, pattern)


def read_page(page: Path) -> str:
    """Return a page as a test runs it."""
    text = page.read_text()
    for long, short in SHORTER.get(page.stem, ()):
        assert long in text
        text = text.replace(long, short)
    return text


def run_program(program: str, arguments: list[str]) -> Ending:
    """Run Python, in one process or in several, without a GPU; what it logs does not count as long as it ends well."""
    command, hidden = [*PROGRAMS[program], *arguments], {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, check=False, env=hidden, capture_output=True, text=True)
    return Ending(ended.returncode, ended.stdout, ended.stderr if ended.returncode else "")


def skip_without_frameworks(page: Path) -> None:
    """Skip a page whose framework is not installed, or whose PyTorch is too old for what it exports."""
    if "featherpress export" in page.read_text() and torch.__version__ < "2.9":
        pytest.skip("needs PyTorch 2.9 or newer: exporting")
    for names in _FRAMEWORK.findall(page.read_text()):
        name = next(filter(None, names))
        if find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install 'featherpress[test]'")


def lies_below(module: object, folder: Path) -> bool:
    """Whether a module was imported from a folder."""
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_run_as_they_stand(
    page: Path, run_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of a tutorial ends and prints as shown, and its Python runs."""
    skip_without_frameworks(page)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = 0
    for block in _FENCE.finditer(read_page(page)):
        kind, _, title = block["info"].partition(" title=")
        if title:
            (tmp_path / title).write_text(block["body"])
        elif kind == "python":
            exec(compile(block["body"], str(page), "exec"), {})  # noqa: S102 -- our own documentation
            ran += 1
        elif kind == "console":
            for command in commands(block["body"]):
                line, _, file = command.line.partition(" > ")
                program, *arguments = shlex.split(line)
                ending = run_program(program, arguments) if program in PROGRAMS else run_command(*arguments)
                if file:
                    (tmp_path / file).write_text(ending.out)
                    ending = ending._replace(out="")
                assert program in {*PROGRAMS, "featherpress"}
                assert ending.code == command.code, f"{command.line}: {ending.err}"
                # What is logged comes before or after what is printed, as a command goes; here they are two streams.
                orders = (ending.out + ending.err, ending.err + ending.out)
                shown = _DECIMAL.sub("...", command.shown) if page.stem in SHORTER else command.shown
                assert any(same(shown, text) for text in orders), (
                    f"{command.line} printed\n{orders[1]}\nbut the page shows\n{shown}"
                )
                ran += 1
    for name in [name for name, module in sys.modules.items() if lies_below(module, tmp_path)]:
        del sys.modules[name]
    assert ran


def test_first_example_is_short_and_shows_a_gain(capsys: pytest.CaptureFixture[str]) -> None:
    """The README and the page on distillation begin with the same 25 lines, not counting empty ones."""
    first = next(_FENCE.finditer((REPOSITORY / "docs" / "distillation.md").read_text()))["body"]
    assert f"```python\n{first}```" in (REPOSITORY / "README.md").read_text()
    assert len([line for line in first.splitlines() if line]) <= 25
    exec(compile(first, "distillation.md", "exec"), {})  # noqa: S102 -- our own documentation
    assert capsys.readouterr().out.startswith("Distillation raised score by ")


def test_the_tutorial_distils_the_shipped_digits() -> None:
    """Its recipe is `digits` but for the name, whose numbers stand in the results too."""
    page = (REPOSITORY / "docs" / "tutorials" / "distil.md").read_text()
    written = next(block["body"] for block in _FENCE.finditer(page) if block["info"] == "toml title=mine.toml")
    shipped = (REPOSITORY / "compress" / "recipes" / "digits.toml").read_text()
    assert tomllib.loads(written) | {"name": "digits"} == tomllib.loads(shipped)
    assert "0.160 (0.098 to 0.222)" in (REPOSITORY / "docs" / "results.md").read_text()
