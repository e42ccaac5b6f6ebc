"""Where a command writes, and what is missing around it: one sentence, and never the exit code of a failed check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PLACES = {
    "stdout closed": (">&-", 0),
    "stderr closed": ("2>&-", 0),
    "stdin closed": ("<&-", 0),
    "all closed": ("<&- >&- 2>&-", 0),
    "stdout full": (">/dev/full", 2),
    "stderr full, a mistake": ("--nothing 2>/dev/full", 2),
    "reader gone": ("| true", 0),
    "no home": ("", 0),
    "twenty columns": ("", 0),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", PLACES)
def test_streams(name: str, tmp_path: Path) -> None:
    """Closed, full, narrow: no traceback; what could not be written is said where that can be."""
    words, code = PLACES[name]
    changed = {"HOME": "/nowhere", "COLUMNS": "20", "PYTHONPATH": str(REPOSITORY)}
    around = {**os.environ, **changed}
    if name == "no home":
        del around["HOME"]
    command = ["/bin/bash", "-c", f"{sys.executable} -m featherpress.cli models {words}"]
    ended = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, env=around)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    if name == "stdout full":
        assert ended.stderr == "featherpress: standard output cannot be written: No space left on device\n"
