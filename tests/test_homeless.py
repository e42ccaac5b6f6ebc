"""Where no home can be written, libraries neither warn nor keep anything there; and nothing is sent to anybody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARIES = """
from featherpress.compress.runtime.logs import log_to_stderr
import featherpress.compress.deployment
log_to_stderr()
import matplotlib, onnxruntime
matplotlib.get_cachedir()
onnxruntime.get_available_providers()
onnxruntime.SessionOptions()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make another")
def test_libraries_say_nothing() -> None:
    """A home that cannot be written is not spoken of; onnxruntime's telemetry, which would try to, is off."""
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    around = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL", "ORT_"))}
    around |= {"HOME": "/proc/nowhere", "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run([sys.executable, "-c", LIBRARIES], check=False, capture_output=True, text=True, env=around)
    assert (ended.returncode, ended.stderr) == (0, "")
