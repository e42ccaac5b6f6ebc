"""Where and how a run was made, for its record."""

import json
import platform
import sys
from pathlib import Path

import torch
import torchvision

from featherpress import __version__
from featherpress.compress.building import default_device
from featherpress.compress.runs import write_json

__all__ = ["write_environment"]


def write_environment(out: Path, seconds: float) -> None:
    """Write `environment.json`: versions, processor, threads, device, command and the time taken, in seconds.

    A run that was resumed keeps what it began with, and its seconds add up.
    """
    path = out / "environment.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record = {
        "schema": "featherpress.environment/1",
        "featherpress": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": str(default_device()),
        "command": ["featherpress", *sys.argv[1:]],
        "seconds": 0.0,
    }
    write_json(path, record | before | {"seconds": round(before.get("seconds", 0.0) + seconds, 1)})
