"""Which convolutions are worth eight bits on this machine: sets of them are tried, and their time is measured."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.compress.deployment.quantization import (
    Chosen,
    Images,
    Quantization,
    hurt_convolutions,
    quantize,
)
from featherpress.compress.deployment.rewriting import attribute
from featherpress.compress.deployment.sessions import Session
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import FileError, UsageError

if TYPE_CHECKING:
    import onnx

FASTER = 0.98
"""What is to be called faster takes at most this share of float's time."""

WEIGHTS = "weights alone"
_POINTWISE = {"pointwise": 0, "pointwise from 32 channels": 32, "pointwise from 64 channels": 64}
"""Sets of pointwise convolutions, by the channels that all of theirs have at least."""

_SECONDS = 60.0
_ROUNDS = 25
_POOLS = {"GlobalAveragePool", "GlobalMaxPool"}

Measure = Callable[[Mapping[str, Path], Images], Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Some convolutions in eight bits: what they are, their nodes, and the time of the whole over float's.

    Without `nodes` the weights of all are, and activations stay in float; `outputs` as `quantize`.
    """

    kind: str
    nodes: tuple[str, ...] | None
    time: float
    outputs: bool = True


def least_times(files: Mapping[str, Path], images: Images, *, rounds: int = _ROUNDS) -> dict[str, float]:
    """Return the least processor time of one forward of each file, on one thread, all by turns.

    Units: seconds.
    """
    sessions = {name: Session(file, threads=1) for name, file in files.items()}
    best = dict.fromkeys(sessions, math.inf)
    for number in range(rounds + 1):
        for name, session in sessions.items():
            began = time.process_time()
            session.run(images)
            if number:  # the first is to warm up
                best[name] = min(best[name], time.process_time() - began)
    return best


def try_plans(
    source: Path, images: Images, folder: Path, *, seconds: float = _SECONDS, measure: Measure = least_times
) -> list[Trial]:
    """Quantise sets of convolutions, and measure each against float: the fastest first.

    Pointwise ones by their width, then the fastest set with the other kinds; sets are tried until `seconds` are over.
    """
    import onnx  # noqa: PLC0415  (optional)

    began, kinds = time.monotonic(), group_convolutions(onnx.load(source))
    sets: dict[str, tuple[str, ...] | None] = {WEIGHTS: None}
    sets |= {kind: kinds[kind] for kind in _POINTWISE if kinds[kind]}
    found = _try_sets(source, images, folder, sets, until=began + seconds / 2, measure=measure)
    best = min((each for each in found if each.nodes), key=lambda each: each.time, default=None)
    if best is not None and best.nodes:
        others = {f"{best.kind}, {kind}": (*best.nodes, *kinds[kind]) for kind in ("depthwise", "other") if kinds[kind]}
        found += _try_sets(source, images, folder, others, until=began + seconds, measure=measure)
    found = sorted(found, key=lambda each: each.time)
    # The least of several is too low by chance: what seems to be faster must be so twice.
    sure = [_again(source, images, folder, each, measure) if each.time <= FASTER else each for each in found[:2]]
    return sorted([*sure, *found[2:]], key=lambda each: each.time)


def _again(source: Path, images: Images, folder: Path, trial: Trial, measure: Measure) -> Trial:
    sets = {trial.kind: trial.nodes}
    [again] = _try_sets(source, images, folder, sets, until=math.inf, measure=measure)
    return trial if again.time < trial.time else again


def _try_sets(
    source: Path,
    images: Images,
    folder: Path,
    sets: Mapping[str, tuple[str, ...] | None],
    *,
    until: float,
    measure: Measure,
) -> list[Trial]:
    files = {"float": source}
    with Progress("trying eight bits", total=len(sets)) as progress:
        for number, (kind, nodes) in enumerate(sets.items()):
            if time.monotonic() < until or len(files) == 1:
                files[kind] = folder / f"{number}.onnx"
                # Speed does not depend on ranges: one image is enough to find some.
                how = Quantization(calibration="none" if nodes is None else "minmax")
                quantize(source, files[kind], iter([images]), count=1, how=how, nodes=nodes)
            progress.advance()
    times = measure(files, images)
    return [Trial(kind=kind, nodes=sets[kind], time=times[kind] / times["float"]) for kind in files if kind != "float"]


def group_convolutions(proto: "onnx.ModelProto") -> dict[str, tuple[str, ...]]:
    """Group the convolutions that may be in eight bits by kind: pointwise by width, depthwise, and others.

    Left out are those that eight bits hurt, and those that see one pooled value a channel.
    """
    sizes = {each.name: tuple(each.dims) for each in proto.graph.initializer}
    hurt = {*hurt_convolutions(proto, share=Quantization().first), *_pooled(proto)}
    groups: dict[str, list[str]] = {kind: [] for kind in (*_POINTWISE, "depthwise", "other")}
    for node in proto.graph.node:
        if node.op_type == "Conv" and node.name not in hurt and node.input[1] in sizes:
            for kind in _kinds(sizes[node.input[1]], attribute(node, "group", 1)):
                groups[kind].append(node.name)
    return {kind: tuple(nodes) for kind, nodes in groups.items()}


def _kinds(shape: tuple[int, ...], group: int) -> list[str]:
    """Name the groups of a convolution by its weights' shape; none where it is too narrow or not over a plane."""
    if len(shape) != 4 or min(shape[0], shape[1] * group) < 8:
        return []
    if group == shape[0]:
        return ["depthwise"]
    if group > 1 or shape[2:] != (1, 1):
        return ["other"]
    return [kind for kind, least in _POINTWISE.items() if min(shape[:2]) >= least]


def _pooled(proto: "onnx.ModelProto") -> Iterator[str]:
    """Name the convolutions between a global pool and what it weighs."""
    pooled = set[str]()
    for node in proto.graph.node:
        inside = node.op_type in _POOLS or (bool(node.input) and node.input[0] in pooled and node.op_type != "Mul")
        if inside:
            pooled.update(node.output)
            if node.op_type == "Conv":
                yield node.name


def read_plan(file: Path) -> Chosen:
    """Return a plan: `quantized` in a JSON object, or what the record of an export says was quantised.

    Errors: `FileError` for a file that is not there, another content, and a plan without a convolution.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        entry = next(each for each in content["files"] if "plan" in each) if "files" in content else {"plan": content}
        plan = entry["plan"]
        nodes, outputs = tuple(map(str, plan["quantized"])), bool(plan.get("outputs", True))
    except OSError as error:
        raise FileError(f"{file}: {error.strerror}; a plan is auto, all, or a file") from error
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise FileError(
            f"{file}: expected a plan, a JSON object whose `quantized` lists convolutions by name, or the record of an "
            "export that has one"
        ) from error
    if not nodes:
        raise FileError(f"{file}: the plan lists no convolution under `quantized`, so that nothing would be quantised")
    return Chosen(nodes=nodes, outputs=outputs, weights_alone=entry.get("calibration") == "none")


def require_known(nodes: Sequence[str], proto: "onnx.ModelProto") -> None:
    """Refuse a plan of another graph.

    Errors: `UsageError` that names the first that is no convolution of this one.
    """
    known = {node.name for node in proto.graph.node if node.op_type == "Conv"}
    unknown = [name for name in nodes if name not in known]
    if unknown:
        raise UsageError(f"the plan names {unknown[0]!r}, which is no convolution of this graph; {len(known)} are")
