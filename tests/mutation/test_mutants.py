"""Which faults are put into code, which are not, and that each is one."""

from pathlib import Path
from typing import Any

import pytest

from .contexts import follow
from .mutants import Mutant, compile_mutant, draw, list_mutants, show

CODE = '''"""A module."""
import logging
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    LIMIT = 3
__all__ = ["grow"]
logger = logging.getLogger("x")
Kind = Literal["a", "b"]


def grow(size: int, by: int = 2, *, kind: Kind = "a") -> bool:
    """Grow by 2."""
    assert by != 9
    logger.info("%d", 1 + size)
    if size < by and kind:
        raise ValueError(f"{size + 1}")
    size += by
    note = dict(zip([size], [by], strict=True))
    return max(size, by) > 4 and not note.get(0)
'''

FAULTS = [
    "def grow(size: int, by: int=3, *, kind: Kind='a') -> bool:",
    "def grow(size: int, by: int=1, *, kind: Kind='a') -> bool:",
    "if not (size < by and kind):",
    "if size < by or kind:",
    "if size <= by and kind:",
    "if size >= by and kind:",
    "size -= by",
    "pass",
    "note = dict(zip([by], [size], strict=True))",
    "pass",
    "return True",
    "return False",
    "return max(size, by) > 4 or not note.get(0)",
    "return max(size, by) >= 4 and (not note.get(0))",
    "return max(size, by) <= 4 and (not note.get(0))",
    "return max(by, size) > 4 and (not note.get(0))",
    "return max(size, by) > 5 and (not note.get(0))",
    "return max(size, by) > 3 and (not note.get(0))",
    "return max(size, by) > 4 and note.get(0)",
    "return max(size, by) > 4 and (not note.get(1))",
    "return max(size, by) > 4 and (not note.get(-1))",
]


@pytest.fixture
def mutants(tmp_path: Path) -> list[Mutant]:
    """The faults of a module."""
    (tmp_path / "m.py").write_text(CODE)
    return list_mutants(tmp_path, "m.py")


def test_every_kind_of_fault(mutants: list[Mutant], tmp_path: Path) -> None:
    """Operators, constants, arguments, conditions, statements and returns; no text, type, log, assertion or raise."""
    assert sorted(show(tmp_path, mutant)[1] for mutant in mutants) == sorted(FAULTS)
    assert all(len(set(show(tmp_path, mutant))) == 2 for mutant in mutants)
    assert not any(mutant.at_import for mutant in mutants)


def test_a_fault_is_in_what_is_compiled(mutants: list[Mutant], tmp_path: Path) -> None:
    """A default of 3 in place of 2 is the function's when the module has run."""
    (wider,) = (mutant for mutant in mutants if "by: int=3" in show(tmp_path, mutant)[1])
    names: dict[str, Any] = {}
    exec(compile_mutant(tmp_path / "m.py", wider.number), names)  # noqa: S102
    assert names["grow"].__defaults__ == (3,)


def test_lines_are_those_that_run_a_fault(mutants: list[Mutant], tmp_path: Path) -> None:
    """A default's are the whole function's, a condition's its own line."""
    lines = {show(tmp_path, mutant)[1]: mutant.lines for mutant in mutants}
    assert lines[FAULTS[0]] == range(12, 21)
    assert lines[FAULTS[3]] == range(16, 17)


def test_what_is_drawn_stays_drawn(mutants: list[Mutant], tmp_path: Path) -> None:
    """A function more above changes no name, so that those drawn before are drawn but for the new one's."""
    (tmp_path / "m.py").write_text(CODE.replace("\n\ndef", "\n\ndef other() -> int:\n    return 1\n\n\ndef", 1))
    before, after = draw(mutants, 10, 0), draw(list_mutants(tmp_path, "m.py"), 13, 0)
    assert {mutant.name for mutant in before} <= {mutant.name for mutant in after}
    assert draw(mutants, 10, 1) != before


def test_lines_that_moved_are_followed() -> None:
    """Past an inserted line all move by one; a changed line is the same line, a lost one is none."""
    assert follow("a\nb\nc\nd\n", "new\na\nB\nc\nd") == {1: 2, 2: 3, 3: 4, 4: 5}
    assert follow("a\nb\nc", "a\nc") == {1: 1, 3: 2}
