"""Programs that torch.export saved: read only where nothing in them is unpickled or run."""

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featherpress.budgets.counting.exported import module_of
from featherpress.budgets.counting.inputs import Inputs
from featherpress.errors import FileError
from featherpress.extras import require_torch

#: What names, targets and expressions of a graph may be, which torch writes into code that it runs.
_PLAIN = {
    "name": re.compile(r"[\w.]*"),
    "as_name": re.compile(r"[\w.]*"),
    "target": re.compile(r"[\w.]+"),
    "fqn": re.compile(r"[\w.@]*"),
    # Calls of Symbol, Max, Mod and the like; no builtins, whose names are small, and no attributes.
    "expr_str": re.compile(r"(?!.*(__|\b[a-z]\w*\s*\(|\.\s*[A-Za-z_]))([\w\s+\-*/%()<>=,.&|~]|'\w+')*"),
}


def open_program(path: Path) -> tuple[nn.Module, Inputs]:
    """Build the module of a .pt2 file, and the inputs that it was exported with.

    Errors: FileError for a file that is none, and for one that holds anything pickled but plain tensors, or code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            small = {name: name.endswith(".json") or "/sample_inputs/" in name for name in archive.namelist()}
            files = {name.partition("/")[2]: archive.read(name) if read else b"" for name, read in small.items()}
    except (OSError, zipfile.BadZipFile) as error:
        raise FileError(f"{path} is not a program of torch.export: {error}") from error
    if "models/model.json" not in files:
        raise FileError(f"{path} is not a program of torch.export, as PyTorch 2.9 writes it: no models/model.json")
    require_torch("2.9", f"reading {path}")
    try:
        reason = _danger(files)
    except (ValueError, AttributeError, RecursionError) as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    if reason:
        raise FileError(
            f"{path} {reason}: reading it would unpickle, and could run, what its author put there; audit the module "
            "that it was exported from, or its ONNX"
        )
    try:
        program = torch.export.load(str(path))
    except Exception as error:  # whatever torch makes of a file that is broken or of another version
        raise FileError(f"{path} cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    args, kwargs = program.example_inputs or ((), {})
    return module_of(program), Inputs(tuple(args), dict(kwargs))


def _danger(files: dict[str, bytes]) -> str:
    """Tell what in a program's files is more than numbers and a plain graph; empty where nothing is."""
    for name, content in files.items():
        if name.startswith(("data/aotinductor", "data/executorch")):
            return f"holds compiled code ({name})"
        if name.startswith(("data/weights/", "data/constants/")) and name.endswith(".pt"):
            return f"holds pickled tensors ({name})"
        if "custom_obj" in name or "opaque_obj" in name:
            return f"holds a pickled object ({name})"
        if name.startswith("data/sample_inputs/") and content and not _is_plain_tensors(content):
            return f"holds pickled inputs ({name})"
        if name.startswith(("data/weights/", "data/constants/")) and name.endswith(".json"):
            config = json.loads(content).get("config", {})
            if any(each.get("use_pickle", True) for each in config.values()):
                return f"holds pickled tensors (by {name})"
    graph = json.loads(files["models/model.json"])
    unsafe = next((f"{key} {text[:40]!r}" for key, text in _texts(graph) if not _PLAIN[key].fullmatch(text)), "")
    return f"holds code in its graph ({unsafe})" if unsafe else ""


def _is_plain_tensors(content: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError):
        return False
    return True


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """List what stands under keys that become code, wherever in a graph."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _PLAIN and isinstance(item, str):
                yield key, item
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
