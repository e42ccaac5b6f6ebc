"""Backends: the ways to run a model on this machine, each prepared as a function without arguments."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from featherpress.compress.deployment.conversion import LEAST_TORCH, capture, convert
from featherpress.compress.deployment.graphs import Subject
from featherpress.compress.deployment.parity import example_images
from featherpress.compress.deployment.quantization import Quantization, quantize
from featherpress.compress.deployment.quiet import quiet
from featherpress.compress.deployment.sessions import Session
from featherpress.errors import UsageError
from featherpress.extras import missing_packages
from featherpress.models import fuse

Backend = Literal["eager", "fused", "compiled", "onnx", "onnx-int8"]

Work = Callable[[], object]

PLAN = "all"
"""What is in eight bits in `onnx-int8`: what `auto` would choose takes a minute or two a model to find."""

_CALIBRATION_SIDE = 320


def why_not(backend: Backend) -> str:
    """Return why a backend cannot run here; empty if it can."""
    if backend == "compiled" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "as there is no C++ compiler on this machine"
    if backend.startswith("onnx") and missing_packages("export"):
        return f"as {', '.join(missing_packages('export'))} are not installed: pip install 'featherpress[export]'"
    if backend.startswith("onnx") and torch.__version__ < LEAST_TORCH:
        return f"as it takes PyTorch {LEAST_TORCH} or newer"
    return ""


def write_onnx_files(subject: Subject, folder: Path, *, int8: bool) -> dict[Backend, Path]:
    """Write the files that the ONNX backends run; ranges are of random images, as speed does not depend on them."""
    files: dict[Backend, Path] = {"onnx": folder / "float32.onnx"}
    files["onnx"].write_bytes(convert(subject, capture(subject)).SerializeToString())
    if int8:
        shape = (1, 3, _CALIBRATION_SIDE, _CALIBRATION_SIDE) if subject.detector else subject.shapes[0]
        files["onnx-int8"] = folder / "int8.onnx"
        images = iter([example_images(shape).numpy()])
        quantize(files["onnx"], files["onnx-int8"], images, count=1, how=Quantization(plan=PLAN, calibration="minmax"))
    return files


def prepare(
    backend: Backend, model: nn.Module | None, images: Tensor, *, file: Path | None = None, threads: int = 1
) -> Work:
    """Prepare one forward: by torch from a model, by onnxruntime from a file.

    Errors: `UsageError` for a model that cannot be compiled here.
    """
    if file is not None:
        return partial(Session(file, threads=threads).run, images.numpy())
    assert model is not None
    with quiet():
        if backend in {"fused", "compiled"}:
            # In the layout in which oneDNN needs no reordering; what `fuse` returns is a copy.
            model = fuse(model).to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
        return _compile(model, images) if backend == "compiled" else partial(model, images)


def _compile(model: nn.Module, images: Tensor) -> Work:
    work = partial(torch.compile(model, dynamic=False), images)
    try:
        work()
    except Exception as error:  # compilers and their caches raise what they like
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"torch.compile fails here: {reason[:200]}") from error
    return work
