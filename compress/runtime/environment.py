"""The environment that a run was made in, for its record."""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from featherpress import __version__
from featherpress.compress.runtime.devices import default_device
from featherpress.records.run import Environment


def software(*packages: str) -> dict[str, Any]:
    """Return the versions and the processor that results depend on, with the versions of other packages."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        **{name: version(name) for name in packages if find_spec(name)},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability() + _vnni(),
    }


_CPUINFO = Path("/proc/cpuinfo")


def _vnni() -> str:
    """Return whether an x86 processor has VNNI, on which products of eight bits turn; empty where nothing says so."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return f" {'with' if {'avx512_vnni', 'avx_vnni'} & {*flags} else 'without'} VNNI" if flags else ""


def write_environment(out: Path, seconds: float, *, changed: Mapping[str, str]) -> None:
    """Write `environment.json`: versions, processor, threads, device, command and the time taken, in seconds.

    A run that was resumed keeps what it began with, and its seconds add up; what `changed` on the way stands there too.
    """
    path = out / "environment.json"
    began = {
        "featherpress": __version__,
        **software(),
        "threads": torch.get_num_threads(),
        "device": str(default_device()),
        "command": ("featherpress", *sys.argv[1:]),
        "seconds": 0.0,
    }
    record = Environment.find(path) or Environment.model_validate(began)
    ended: dict[str, Any] = {"seconds": round(record.seconds + seconds, 1)}
    if changed:
        ended["went on although"] = "; ".join(changed.values())
    record.model_copy(update=ended).save(path)
