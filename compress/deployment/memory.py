"""The memory that a forward takes, measured in a process of its own, without torch where torch is not used.

`python -m featherpress.compress.deployment.memory JSON` is that process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_FORWARDS = 3
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def peak_memory(target: str, backend: str, *, size: int, batch: int, threads: int, file: Path | None) -> int | None:
    """Return the bytes by which resident memory at its peak exceeds what the libraries took; None where unknown.

    The child loads the libraries, then the model, runs it, and says how far its memory rose.
    """
    if not _STATUS.exists():
        return None
    wanted = {"target": target, "backend": backend, "shape": [batch, 3, size, size], "threads": threads}
    request = json.dumps({**wanted, "file": None if file is None else str(file)})
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-m", __name__, request]
    child = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)  # noqa: S603
    return int(child.stdout) if child.returncode == 0 and child.stdout.strip().isdecimal() else None


def _resident(name: str) -> int:
    """Read a line of the process's status, in bytes: VmRSS now, VmHWM at its peak."""
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def _measure_session(request: dict[str, Any]) -> int:
    import numpy as np  # noqa: PLC0415  (only what runs is loaded)
    import onnxruntime  # noqa: PLC0415

    before = _begin()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    session = onnxruntime.InferenceSession(request["file"], options, providers=["CPUExecutionProvider"])
    images = np.zeros(request["shape"], np.float32)
    for _ in range(_FORWARDS):
        session.run(None, {session.get_inputs()[0].name: images})
    return _resident("VmHWM") - before


def _measure_torch(request: dict[str, Any]) -> int:
    import torch  # noqa: PLC0415

    from featherpress.compress.deployment.backends import prepare  # noqa: PLC0415
    from featherpress.models.saving import load_named  # noqa: PLC0415

    torch.set_num_threads(request["threads"])
    before = _begin()
    with torch.inference_mode():
        work = prepare(request["backend"], load_named(request["target"]).eval(), torch.zeros(request["shape"]))
        for _ in range(_FORWARDS):
            work()
    return _resident("VmHWM") - before


def _begin() -> int:
    """Reset the peak, and return the memory that is resident now."""
    _RESET.write_text("5")
    return _resident("VmRSS")


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    # What somebody's module prints must not look like the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    answer.write(str(_measure_session(wanted) if wanted["file"] else _measure_torch(wanted)))
