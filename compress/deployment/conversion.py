"""Conversion of a traced model to ONNX, or an error that names the unsupported operator."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.export import ExportedProgram

from featherpress.compress.deployment.graphs import Subject
from featherpress.compress.deployment.quiet import quiet
from featherpress.errors import ExportError

if TYPE_CHECKING:
    import onnx

INPUT = "images"
OLDEST_OPSET, NEWEST_OPSET = 20, 25
"""GridSample is what torch computes since 20; 25 is the newest that onnxscript converts to and onnxruntime runs."""

_NO_COUNTERPART = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")


def convert(subject: Subject, program: ExportedProgram, *, opset: int = NEWEST_OPSET) -> "onnx.ModelProto":
    """Translate a traced model into ONNX operators.

    Errors: `ExportError` that names the operator without a counterpart, and the module that uses it.
    """
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
    _name_axes(proto, subject.dynamic)
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
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        for value in graph.value_info:
            value.ClearField("metadata_props")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    proto.graph.ClearField("doc_string")


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
