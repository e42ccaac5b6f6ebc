"""Fixtures shared by all tests."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# A slow machine is no failure: speed lives in benchmarks.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs and public checkpoints, or a skip that says how to name it."""
    folder = Path(os.environ.get("FEATHERPRESS_SHARED", REPOSITORY / ".." / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs real photographs and checkpoints: set FEATHERPRESS_SHARED (looked in {folder})")
    return folder.resolve()


class Ending(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Ending]]:
    """Run the command line in this process, in an empty folder, and say how it ended."""
    from featherpress import cli

    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("featherpress")
    before = list(logger.handlers)

    def call(*arguments: str | Path) -> Ending:
        monkeypatch.setattr("sys.argv", ["featherpress", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
        captured = capsys.readouterr()
        return Ending(code, captured.out, captured.err)

    yield call
    logger.handlers[:] = before
