"""A few hundred broken files of every kind, each answered by a sentence; `make fuzz` reads ten thousand."""

from .running import run
from .targets import TARGETS


def test_broken_files_are_answered_by_sentences() -> None:
    """No other error, none that takes long, none that fills memory."""
    assert [*run(cases=14 * len(TARGETS), seed=1)] == []
