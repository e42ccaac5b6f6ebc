"""Progress bars: for people at a terminal, once."""

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
        monkeypatch.setenv("RANK", rank)
    with Progress("counting", total=1) as progress:
        progress.advance()
    assert ("counting" in capsys.readouterr().err) is shown
