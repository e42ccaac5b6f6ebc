"""The latency of a forward: all backends are measured in turns, so that a busy machine disturbs them equally."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from featherpress import __version__
from featherpress.compress.deployment.backends import (
    PLAN,
    Backend,
    Work,
    prepare,
    why_not,
    write_onnx_files,
)
from featherpress.compress.deployment.graphs import GraphOptions, find_subject
from featherpress.compress.deployment.memory import peak_memory
from featherpress.compress.deployment.parity import example_images
from featherpress.compress.deployment.quiet import quiet
from featherpress.compress.runtime.environment import software
from featherpress.compress.runtime.progress import Progress
from featherpress.compress.runtime.threads import computing_threads
from featherpress.errors import UsageError
from featherpress.models.saving import load_named
from featherpress.records.deployment import Bench, Latency, LeftOut, Plan, Timing

Key = TypeVar("Key")

_WARM_UP = 3


def interleave(works: Mapping[Key, Work], *, rounds: int, warm_up: int = 0, label: str = "") -> dict[Key, list[float]]:
    """Run all in turns, first unmeasured, then measured; return the seconds of every round of each."""
    seconds: dict[Key, list[float]] = {key: [] for key in works}
    with Progress(label or "measuring", total=rounds + warm_up) as progress:
        for number in range(rounds + warm_up):
            for key, work in works.items():
                began = time.perf_counter()
                work()
                if number >= warm_up:
                    seconds[key].append(time.perf_counter() - began)
            progress.advance()
    return seconds


Costs = Mapping[str, Mapping[int, tuple[int, int | None]]]
"""What models cost, by name and size: (parameters, MACs or None)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """A benchmark to run: all models at all sizes in all backends, `rounds` forwards of a batch each."""

    models: Costs
    backends: Sequence[Backend]
    sizes: Sequence[int]
    batch: int = 1
    rounds: int = 20
    threads: int = 1
    memory: bool = True


Case = tuple[str, int, Backend]


@torch.inference_mode()
def bench(request: BenchRequest) -> dict[str, Any]:
    """Measure latency, throughput and memory with random weights, and return the record.

    Errors: `UsageError` when no backend can run here; `ExportError` for a model that ONNX cannot express.
    """
    left_out = [LeftOut(backend=each, reason=reason) for each in request.backends if (reason := why_not(each))]
    backends = [each for each in request.backends if not why_not(each)]
    results = []
    with computing_threads(request.threads), tempfile.TemporaryDirectory() as folder, quiet():
        files = _write_files(request, backends, Path(folder))
        for size in request.sizes:
            works, failed = _prepare_all(request, backends, size, files)
            left_out += [each for each in failed if each not in left_out]
            seconds = interleave(works, rounds=request.rounds, warm_up=_WARM_UP, label=f"measuring at {size}")
            results += [_row(request, case, seconds[case], files) for case in works]
    if not results:
        raise UsageError(f"nothing to measure: {left_out[0].backend} is left out, {left_out[0].reason}")
    return Bench(
        featherpress=__version__,
        environment=software("onnxruntime"),
        rounds=request.rounds,
        warm_up=_WARM_UP,
        threads=request.threads,
        batch=request.batch,
        memory="resident memory of a child process at its peak while it runs, above what its libraries take",
        left_out=tuple(left_out),
        **({"plan": Plan(by=PLAN)} if any(each.backend == "onnx-int8" for each in results) else {}),
        results=tuple(results),
    ).to_dict()


Files = Mapping[tuple[str, Backend], Path]


def _write_files(request: BenchRequest, backends: Sequence[Backend], folder: Path) -> Files:
    """Export what the ONNX backends need, a folder a model."""
    files: dict[tuple[str, Backend], Path] = {}
    if not any(each.startswith("onnx") for each in backends):
        return files
    with Progress("exporting", total=len(request.models)) as progress, torch.inference_mode(mode=False):
        for number, name in enumerate(request.models):
            own = folder / str(number)
            own.mkdir()
            subject = find_subject(name, None, options=GraphOptions(), side=request.sizes[0], model=load_named(name))
            written = write_onnx_files(subject, own, int8="onnx-int8" in backends)
            files |= {(name, backend): path for backend, path in written.items()}
            progress.advance()
    return files


def _prepare_all(
    request: BenchRequest, backends: Sequence[Backend], size: int, files: Files
) -> tuple[dict[Case, Work], list[LeftOut]]:
    """Prepare every model in every backend; where one cannot be compiled, that is left out, with the reason."""
    images = example_images((request.batch, 3, size, size))
    works: dict[Case, Work] = {}
    failed = []
    for name in request.models:
        torch.manual_seed(0)
        model = load_named(name).eval()
        for backend in backends:
            file = files.get((name, backend))
            try:
                works[name, size, backend] = prepare(backend, model, images, file=file, threads=request.threads)
            except UsageError as error:
                failed.append(LeftOut(backend=backend, reason=f"as for {name} {error}"))
    return works, failed


def _row(request: BenchRequest, case: Case, seconds: Sequence[float], files: Files) -> Timing:
    target, size, backend = case
    params, macs = request.models[target][size]
    low, median, high = (float(each) * 1000 for each in np.percentile(seconds, (10, 50, 90)))
    memory = None
    if request.memory and backend != "compiled":  # compiling takes memory of its own
        file = files.get((target, backend))
        memory = peak_memory(target, backend, size=size, batch=request.batch, threads=request.threads, file=file)
    return Timing(
        model=target,
        params=params,
        macs=macs,
        size=size,
        batch=request.batch,
        backend=backend,
        latency_ms=Latency(median=median, p10=low, p90=high),
        images_per_second=1000 * request.batch / median,
        peak_memory_bytes=memory,
    )
