"""Export of a model: traced, written, checked against torch, quantised, and recorded."""

import io
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.export import ExportedProgram

from featherpress import __version__
from featherpress.compress.deployment.conversion import capture, convert
from featherpress.compress.deployment.graphs import GraphOptions, Subject, find_subject, flat_outputs
from featherpress.compress.deployment.parity import check_parity, example_images
from featherpress.compress.deployment.planning import FASTER, WEIGHTS, Trial, require_known, try_plans
from featherpress.compress.deployment.quantization import Chosen, Images, Quantization, calibration_images, quantize
from featherpress.compress.deployment.quiet import quiet
from featherpress.compress.deployment.sessions import Session, SessionDetector, SessionModel
from featherpress.compress.deployment.suppression import OUTPUTS, suppress
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.compress.evaluation.saved_scores import detection_scores
from featherpress.compress.runtime.environment import software
from featherpress.errors import UsageError
from featherpress.extras import require_extra
from featherpress.files import hash_file, replacing
from featherpress.models import Detector
from featherpress.models.creation import origin_of
from featherpress.models.inputs import ModelInput, input_of
from featherpress.models.priors import describe_decoding
from featherpress.records.deployment import Export
from featherpress.records.evaluation import AP, Metric
from featherpress.verdicts import Scores, gate

if TYPE_CHECKING:
    import onnx

    from featherpress.compress.data import SampleDataset
    from featherpress.compress.evaluation.detector.inference import EvaluationResult

INT8_MARGIN = 0.005
"""By how much a score may fall for eight bits to be as good as the float file."""

MEASURED_SIDE = 640
"""Side of the image on which plans for eight bits are timed where a file takes any."""
_SCORED_PLANS = 2
"""So many of the faster plans are scored at most, each on all images."""

_SUFFIXES = {"record": ".export.json", "onnx": ".onnx", "int8": ".int8.onnx", "program": ".pt2"}

_PREPROCESSING = "BGR, 0..255, minus (104, 117, 123)"


class Int8Data(Protocol):
    """What quantising needs of a task: images to calibrate on, and a score on others."""

    @property
    def metric(self) -> Metric:
        """What a file is scored by."""

    @property
    def how(self) -> Quantization:
        """How it is quantised."""

    @property
    def count(self) -> int:
        """How many images there are to calibrate on."""

    def images(self) -> Iterator[Images]:
        """Read them as the model takes them, one at a time."""

    def score(self, model: nn.Module, label: str) -> "EvaluationResult":
        """Score an exported model."""

    def scores(self, predictions: Sequence[Any]) -> Scores:
        """Return what models predicted as scores for resampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Request:
    """How to quantise a face detector: settings, images to calibrate on, and other images to score on.

    `side` is the longer side of them all in pixels, 0 for images as they are.
    """

    calibration: "SampleDataset"
    validation: "SampleDataset"
    about: Mapping[str, Any]
    how: Quantization = field(default_factory=Quantization)
    side: int = 0
    metric: Metric = AP
    scores: Callable[[Sequence[Any]], Scores] = detection_scores

    @property
    def count(self) -> int:
        """How many images there are to calibrate on."""
        return len(self.calibration)

    def images(self) -> Iterator[Images]:
        """Read the images to calibrate on."""
        return calibration_images(self.calibration, self.count, side=self.side)

    def score(self, model: nn.Module, label: str) -> "EvaluationResult":
        """Score an exported detector by AP."""
        from featherpress.compress.evaluation.detector.inference import evaluate_model  # noqa: PLC0415

        assert isinstance(model, Detector)
        return evaluate_model(
            model, self.validation, settings=DetectionSettings(long_side=self.side), label=label, data=self.about
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """The requested files, named after `out`, which ends in `.onnx`; with `program`, a torch program beside it.

    With `nms`, an IoU, the options decode, and ONNX files suppress what scores `threshold` or more. A `model` that was
    built already, from `settings` and with its weights, is exported as `target`. Without a `side`, or a height and a
    width, the files take all sizes that the model does.
    """

    target: str
    weights: Path | None
    model: nn.Module | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    options: GraphOptions = field(default_factory=GraphOptions)
    side: int | tuple[int, int] | None = None
    opset: int | None = None
    nms: float | None = None
    threshold: float = DetectionSettings().score_threshold
    program: bool = False
    onnx: bool = True
    int8: Int8Data | None = None
    overwrite: bool = False


def export(request: ExportRequest) -> dict[str, Any]:
    """Write the requested files, each checked before it gets its name, and the record; return the record.

    Errors: `UsageError` for files in the way and options that do not go together; `ExportError` for a model that cannot
    be exported, and for an export that does not compute the same; then nothing is left.
    """
    if request.onnx:
        require_extra("export", "writing ONNX")
    elif request.int8:
        raise UsageError("--int8 quantises the ONNX file; leave --no-onnx out")
    elif not request.program:
        raise UsageError("--no-onnx leaves nothing to write; add --program, or leave it out")
    elif request.opset is not None:
        raise UsageError("--opset is ONNX's and has no effect with --no-onnx; leave one of them out")
    subject = find_subject(
        request.target,
        request.weights,
        options=request.options,
        side=request.side,
        fixed=request.side is not None,
        model=request.model,
    )
    if isinstance(request.int8, Int8Request) and subject.detector is None:
        raise UsageError(
            f"--int8 scores what it writes: give --recipe, whose task says how to score {subject.name}; without one it "
            "must be a detector of faces"
        )
    if request.nms is not None and (not (request.onnx and subject.detector) or request.options.priors):
        raise UsageError("--nms suppresses what a face detector finds, in an ONNX file, where --priors are of no use")
    places = _places(request, subject.name)
    with ExitStack() as stack:
        temporary = {kind: stack.enter_context(replacing(path)) for kind, path in places.items()}
        about = _record(request, subject)
        files = _write(request, subject, about, temporary)
        for entry in files["files"]:
            entry["file"] = places[entry["kind"]].name
        record = Export.model_validate(about | files)
        record.save(temporary["record"])
    return record.to_dict()


def _places(request: ExportRequest, name: str) -> dict[str, Path]:
    """Return the path of every file.

    Errors: `UsageError` for a name that is not `.onnx`, and for a file that is there already.
    """
    stem = name.rpartition(":")[2]
    out = request.out or Path(f"{stem}.onnx")
    if out.suffix != ".onnx":
        raise UsageError(f"--out names the ONNX file, after which the others are named: expected {out.stem}.onnx")
    wanted = {"onnx": request.onnx, "int8": request.int8, "program": request.program, "record": True}
    places = {kind: out.with_suffix(suffix) for kind, suffix in _SUFFIXES.items() if wanted[kind]}
    for path in places.values():
        if path.exists() and not request.overwrite:
            raise UsageError(f"{path} exists already; add --overwrite to replace it, or choose another --out")
    return places


def _write(
    request: ExportRequest, subject: Subject, record: Mapping[str, Any], places: Mapping[str, Path]
) -> dict[str, Any]:
    """Write every file under its temporary name; return their entries of the record."""
    program = capture(subject)
    said = {"schema": Export.SCHEMA, **record}
    about = {key: _text(value) for key, value in said.items() if key != "environment"}
    files = []
    if request.onnx:
        proto = convert(subject, program, opset=request.opset)
        if request.int8 and isinstance(request.int8.how.plan, Chosen):
            require_known(request.int8.how.plan.nodes, proto)
        files.append(_write_onnx(proto, subject, about, places["onnx"]))
    if request.program:
        files.append(_write_program(program, subject, about, places["program"]))
    evaluation = None
    if request.int8:
        entry, evaluation = _write_int8(request.int8, subject, about, places)
        files.append(entry)
    if request.nms is not None:
        for entry in [each for each in files if each["kind"] != "program"]:
            path = places[entry["kind"]]
            entry["suppression"] = suppress(path, subject, iou=request.nms, threshold=request.threshold)
            entry["bytes"] = path.stat().st_size
            if "nodes" in entry:
                entry["nodes"] = _count_nodes(path)
    return {"files": files, "evaluation": evaluation}


def _write_onnx(proto: "onnx.ModelProto", subject: Subject, about: Mapping[str, str], path: Path) -> dict[str, Any]:
    path.write_bytes(proto.SerializeToString())
    session = Session(path, threads=1)
    parity = check_parity(
        subject, lambda images: [*map(torch.from_numpy, session.run(images.numpy()))], what="the ONNX file"
    )
    _describe(proto, {**about, "parity": _text(parity.to_dict())})
    path.write_bytes(proto.SerializeToString())
    entry = {"kind": "onnx", "precision": "float32", "bytes": path.stat().st_size, "opset": _opset(proto)}
    return entry | {"nodes": len(proto.graph.node), "parity": parity.to_dict()}


def _opset(proto: "onnx.ModelProto") -> int:
    [opset] = [each.version for each in proto.opset_import if not each.domain]
    return int(opset)


def _write_program(program: ExportedProgram, subject: Subject, about: Mapping[str, str], path: Path) -> dict[str, Any]:
    # In memory first: on a full disk PyTorch, writing files itself, ends the process.
    def save(said: Mapping[str, str]) -> io.BytesIO:
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={"featherpress.json": json.dumps(dict(said))})
        return file

    with quiet():
        # What is read back here was written by the line above.
        module = torch.export.load(save(about)).module()
        parity = check_parity(subject, lambda images: flat_outputs(module(images)), what="the torch program")
        path.write_bytes(save({**about, "parity": _text(parity.to_dict())}).getvalue())
    return {"kind": "program", "precision": "float32", "bytes": path.stat().st_size, "parity": parity.to_dict()}


def _write_int8(
    request: Int8Data, subject: Subject, about: Mapping[str, str], places: Mapping[str, Path]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Quantise the ONNX file and score both; return the entries of file and scores."""
    import onnx  # noqa: PLC0415  (optional)

    source, target = places["onnx"], places["int8"]
    before = request.score(_session_model(source, subject), "scoring float32")
    trials, say = _plans(request.how, subject, source, target.parent)
    for trial in trials:
        how = replace(request.how, calibration="none") if trial.kind == WEIGHTS else request.how
        count = 0 if how.calibration == "none" else request.count
        kept = quantize(
            source, target, request.images(), count=count, how=how, nodes=trial.nodes, outputs=trial.outputs
        )
        after = request.score(_session_model(target, subject), f"scoring int8, {trial.kind}")
        if after.score >= before.score - INT8_MARGIN:
            break
    proto = onnx.load(target)
    calibration = {"calibration": how.calibration, "calibration_images": count}
    evaluation = _compare(before, after, request)
    said = {**calibration, "evaluation": evaluation}
    _describe(proto, {**about, "precision": "int8", **{key: _text(value) for key, value in said.items()}})
    target.write_bytes(proto.SerializeToString())
    entry = {"kind": "int8", "precision": "int8", "bytes": target.stat().st_size, "opset": _opset(proto)}
    entry["kept_in_float"] = len(kept)
    time = {"time": round(trial.time, 3)} if math.isfinite(trial.time) else {}
    convolutions = [node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    quantized = [name for name in convolutions if name not in kept]
    outputs = trial.nodes is not None and trial.outputs
    plan = {**say, "kind": trial.kind, "quantized": quantized, "outputs": outputs, **time}
    entry |= {**calibration, "plan": plan}
    return entry, evaluation


def _compare(before: "EvaluationResult", after: "EvaluationResult", request: Int8Data) -> dict[str, Any]:
    """Return the entry `evaluation` of a record: what both files score, and how they differ."""
    scores = [_scored(each.record, request.metric) for each in (before, after)]
    known = None not in (scores[0]["score"], scores[1]["score"])
    return {
        "data": before.record["data"],
        "protocol": before.record.get("protocol"),
        "metric": request.metric.to_dict(),
        "float32": scores[0],
        "int8": scores[1],
        "difference": scores[1]["score"] - scores[0]["score"] if known else None,
        "gate": _gate(before, after, request) if known else None,
    }


def _plans(how: Quantization, subject: Subject, source: Path, folder: Path) -> tuple[list[Trial], dict[str, Any]]:
    """Return the sets of convolutions to quantise until one scores well, and what was tried to find them.

    Weights alone come last, for their size: that is what is left where nothing is faster.
    """
    if isinstance(how.plan, Chosen):
        kind = WEIGHTS if how.plan.weights_alone else "as given"
        return [Trial(kind=kind, nodes=how.plan.nodes, time=math.nan, outputs=how.plan.outputs)], {"by": "file"}
    if how.plan == "all" or how.calibration == "none":
        return [Trial(kind="all", nodes=None, time=math.nan)], {"by": "all"}
    shape = subject.shapes[0] if 2 not in subject.dynamic else (1, 3, MEASURED_SIDE, MEASURED_SIDE)
    images = example_images(shape, takes=input_of(subject.original)).numpy()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        tried = try_plans(source, images, Path(name))
    faster = [each for each in tried if each.time <= FASTER][:_SCORED_PLANS]
    rest = [each for each in tried if each.nodes is None and each not in faster]
    times = [{"kind": each.kind, "time": round(each.time, 3)} for each in tried]
    return [*faster, *rest], {"by": "auto", "tried": times}


def _scored(record: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    """Return the score in a record of an evaluation, and what it says of parts of the examples."""
    return {"score": metric.read(record), **{key: record[key] for key in ("by_height", "by_class") if key in record}}


def _gate(before: "EvaluationResult", after: "EvaluationResult", request: Int8Data) -> str:
    """Say whether eight bits are as good as the float file, by `gate`'s words."""
    ours, theirs = (request.scores([each.predictions]) for each in (after, before))
    names = ("the int8 file", "the float32 file")
    return gate(ours, theirs, margin=INT8_MARGIN, metric=request.metric.name, names=names, unit="images").sentence


def _session_model(path: Path, subject: Subject) -> nn.Module:
    session = Session(path, threads=torch.get_num_threads())
    if subject.detector is not None:
        return SessionDetector(session, subject.detector)
    return SessionModel(session, subject.original, subject.example)


def _describe(proto: "onnx.ModelProto", about: Mapping[str, str]) -> None:
    del proto.metadata_props[:]
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name, proto.producer_version = "featherpress", __version__


def _record(request: ExportRequest, subject: Subject) -> dict[str, Any]:
    """Return the record of an export: what was exported, from what, and how."""
    weights, source = request.weights, None
    if weights is not None:
        source = {"file": weights.name, "bytes": weights.stat().st_size, "sha256": hash_file(weights)}
    model = subject.detector or subject.original
    origin, takes = origin_of(model), input_of(model)
    return {
        "featherpress": __version__,
        "model": subject.name,
        "settings": dict(origin.settings if origin else request.settings),
        "params": sum(weight.numel() for weight in subject.original.parameters()),
        "weights": source,
        "input": {
            "name": "images",
            "shape": [-1 if axis in subject.dynamic else size for axis, size in enumerate(subject.example)],
            "dynamic": list(subject.dynamic.values()),
        },
        "preprocessing": _PREPROCESSING if subject.detector else _preprocessing(takes) if takes else None,
        **({"takes": asdict(takes)} if takes and not subject.detector else {}),
        "outputs": list(subject.outputs if request.nms is None else OUTPUTS),
        **({} if request.nms is None else {"suppression": {"iou": request.nms, "threshold": request.threshold}}),
        "decoded": request.options.decode,
        **({"decoding": describe_decoding(subject.detector.anchors)} if subject.detector else {}),
        "deformable": request.options.deformable,
        "folded": True,
        "environment": software("onnx", "onnxscript", "onnxruntime"),
    }


def _count_nodes(path: Path) -> int:
    import onnx  # noqa: PLC0415  (optional)

    return len(onnx.load(path).graph.node)


def _preprocessing(takes: ModelInput) -> str:
    """Return in words what images a model takes."""
    mean, std = (", ".join(f"{each:g}" for each in values) for values in (takes.mean, takes.std))
    size = f", {takes.size} pixels a side" if takes.size else ""
    return f"RGB, 0..1, minus ({mean}), over ({std}){size}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
