"""The tutorials do what they say: their files are written, their commands run, and their output compared."""

import fnmatch
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.md"))

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"#\s*exit (\d)\s*$")


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


def lies_below(module: object, folder: Path) -> bool:
    """Whether a module was imported from a folder."""
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_run_as_they_stand(
    page: Path, run_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of a tutorial ends and prints as shown, and its Python runs."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = 0
    for block in _FENCE.finditer(page.read_text()):
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
                assert program == "featherpress"
                ending = run_command(*arguments)
                if file:
                    (tmp_path / file).write_text(ending.out)
                    ending = ending._replace(out="")
                assert ending.code == command.code, f"{command.line}: {ending.err}"
                # What is logged comes before or after what is printed, as a command goes; here they are two streams.
                orders = (ending.out + ending.err, ending.err + ending.out)
                assert any(same(command.shown, text) for text in orders), (
                    f"{command.line} printed\n{orders[1]}\nbut the page shows\n{command.shown}"
                )
                ran += 1
    for name in [name for name, module in sys.modules.items() if lies_below(module, tmp_path)]:
        del sys.modules[name]
    assert ran
