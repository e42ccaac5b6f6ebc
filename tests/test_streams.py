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
    "reader gone": ("| true; exit ${PIPESTATUS[0]}", 2),
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
    if name == "reader gone":
        assert ended.stderr == ""
    if name == "stdout full":
        assert ended.stderr == "featherpress: standard output cannot be written: No space left on device\n"


def test_a_name_that_the_console_lacks_is_written_out(tmp_path: Path) -> None:
    """No encoding of a console fails a check."""
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\ndef net():\n    model = nn.Sequential()\n"
        "    model.add_module('caf\u00e9', nn.Linear(2, 2))\n    return model\n",
        encoding="utf-8",
    )
    around = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "featherpress.cli", "audit", "nets:net", "--input", "1x2", "--format"]
    for style in ("table", "markdown", "csv"):
        ended = subprocess.run([*command, style], check=False, cwd=tmp_path, capture_output=True, text=True, env=around)
        assert (ended.returncode, ended.stderr, "caf\\xe9" in ended.stdout) == (0, "", True)
