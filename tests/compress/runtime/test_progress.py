"""Progress bars: for people at a terminal, once."""

import re

import pytest

from featherpress.compress.runtime.progress import Progress


@pytest.mark.parametrize(("rank", "shown"), [(None, True), ("0", True), ("1", False)])
def test_one_of_several_processes_shows_its_bar(
    rank: str | None, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes that torchrun started share a terminal: the first one counts there, the others are silent."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
    with Progress("counting", total=1) as progress:
        progress.advance()
    assert ("counting" in capsys.readouterr().err) is shown


def test_a_bar_inside_another_breaks_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every bar begins its own line, whatever runs at the same time; only the outer one's stays when both are done."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("RANK", raising=False)
    with Progress("outer", total=2) as outer:
        for _ in range(2):
            with Progress("inner", total=1) as inner:
                inner.advance()
            outer.advance(loss=1.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    starts = [shown[: found.start()] for found in re.finditer("outer|inner", shown)]
    assert starts
    assert all(not before or before[-1] in "\r\n" for before in starts)
    assert "inner" not in shown.rsplit("outer", 1)[-1]
    with Progress("next", total=1):
        pass
    assert "next" in capsys.readouterr().err
