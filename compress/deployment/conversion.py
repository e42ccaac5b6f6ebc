"""A model traced with its batch and size left free, and its conversion to ONNX; errors name the operator in the way."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from featherpress.compress.deployment.graphs import Subject
from featherpress.compress.deployment.quiet import quiet
from featherpress.compress.deployment.rewriting import TRACED_OPSET, lower, lowest_opset, simplify
from featherpress.errors import ExportError
from featherpress.extras import require_torch
from featherpress.models.detectors import LEAST_SIDE

if TYPE_CHECKING:
    import onnx

INPUT = "images"
LEAST_TORCH = "2.9"

_NO_COUNTERPART = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")


def capture(subject: Subject) -> ExportedProgram:
    """Trace a model for every batch and size that it takes.

    Errors: `ExportError` that says what torch cannot trace.
    """
    require_torch(LEAST_TORCH, "exporting for every batch and size")
    least = dict.fromkeys((2, 3), LEAST_SIDE) if subject.detector else {}
    sizes: dict[int, Any] = {axis: Dim.AUTO(min=least.get(axis, 1)) for axis in subject.dynamic}
    try:
        # oneDNN's choice by batch size would become a condition on the batch.
        with quiet(), torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
            program = torch.export.export(
                subject.module,
                (torch.randn(subject.example),),
                dynamic_shapes=(sizes,),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # tracing runs other people's code and raises what it and torch raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"{subject.name} cannot be traced by torch.export: {reason[:300]}") from error
    fixed = [name for axis, name in subject.dynamic.items() if isinstance(_image_shape(program)[axis], int)]
    if fixed:
        raise ExportError(f"{subject.name} was traced for one {' and '.join(fixed)} only; its code branches on it")
    _tie(program)
    _forget_lines(program)
    return program


def _tie(program: ExportedProgram) -> None:
    """Let a tensor that modules share be one input of the graph, which is saved once, under its first name."""
    first: dict[int, Node] = {}
    specs = program.graph_signature.input_specs
    for node, spec in zip(program.graph.find_nodes(op="placeholder"), [*specs], strict=True):
        if spec.target not in program.state_dict:
            continue
        kept = first.setdefault(id(program.state_dict[spec.target]), node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            program.graph.erase_node(node)
            specs.remove(spec)
            del program.state_dict[spec.target]
    program.graph_module.recompile()


def _forget_lines(program: ExportedProgram) -> None:
    """Remove the lines of code that nodes come from, which name files of the machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)


def _image_shape(program: ExportedProgram) -> torch.Size:
    [name] = program.graph_signature.user_inputs
    [node] = [node for node in program.graph.nodes if node.name == name]
    shape: torch.Size = node.meta["val"].shape
    return shape


def convert(subject: Subject, program: ExportedProgram, *, opset: int | None = None) -> "onnx.ModelProto":
    """Translate a traced model into ONNX operators, of the oldest operator set that has them unless one is named.

    Errors: `ExportError` that names the operator without a counterpart, and the module that uses it, and for an
    operator set in which the graph cannot be written.
    """
    proto = _translate(subject, program, max(opset or 0, TRACED_OPSET))
    if opset is None or opset <= TRACED_OPSET:
        needed = lowest_opset(proto)
        if opset is not None and opset < needed:
            raise ExportError(f"{subject.name} needs the operator set {needed}, {opset} was asked for")
        opset = opset or needed
        proto = _translate(subject, program, opset) if opset > TRACED_OPSET else proto
    simplify(proto)
    if opset < TRACED_OPSET:
        lower(proto)
    _name_axes(proto, subject.dynamic)
    return proto


def _translate(subject: Subject, program: ExportedProgram, opset: int) -> "onnx.ModelProto":
    try:
        with quiet():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(subject.outputs),
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(_obstacle(subject, program, error)) from error
    assert translated is not None
    proto: onnx.ModelProto = translated.model_proto
    _forget_sources(proto)
    return proto


def _obstacle(subject: Subject, program: ExportedProgram, error: BaseException) -> str:
    """Return an error that names the operator without a counterpart, and where the model uses it."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    texts = list(map(str, causes))
    names = [match[1] for text in texts for match in [_NO_COUNTERPART.search(text)] if match]
    if not names:
        last = next((line for line in texts[-1].splitlines() if line.strip()), type(error).__name__)
        return f"{subject.name} cannot be written as ONNX: {last.strip()[:300]}"
    where = _module_of(program, names[0])
    place = f", used in {where!r}," if where else ""
    return (
        f"{subject.name} cannot be written as ONNX: the operator {names[0]}{place} has no counterpart there; compute "
        "the same from other operators, or export a torch program alone with --program --no-onnx"
    )


def _module_of(program: ExportedProgram, operator: str) -> str:
    """Name the innermost module that calls an operator, or nothing where the trace does not say."""
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target).startswith(operator):
            stack: Mapping[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
            paths = [path for path, _ in stack.values()]
            return paths[-1] if paths else ""
    return ""


def _forget_sources(proto: "onnx.ModelProto") -> None:
    """Remove the traces that name files of the machine it was made on."""
    graphs = (proto.graph, *proto.functions)
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.initializer)
    nodes = [part for graph in graphs for part in (*graph.node, *graph.value_info)]
    for part in (proto.graph, *values, *nodes):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _name_axes(proto: "onnx.ModelProto", axes: Mapping[int, str]) -> None:
    """Call the free axes by their names, in what is computed from them too."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    names = {dims[axis].dim_param: name for axis, name in axes.items() if dims[axis].dim_param}
    if not names:
        return
    symbol = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = symbol.sub(lambda match: names[match[1]], dim.dim_param)
