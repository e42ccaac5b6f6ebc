"""What a graph in ONNX says of its nodes, types and weights, without running anything."""

import ast
import re
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, TypeProto, helper

#: The name of a weight that exporters call by its module.
DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+", re.ASCII)
_FOUR_BITS = {TensorProto.INT4, TensorProto.UINT4, getattr(TensorProto, "FLOAT4E2M1", -1)}
_TWO_BITS = {getattr(TensorProto, "INT2", -1), getattr(TensorProto, "UINT2", -1)}
#: Types of sizes, positions, conditions and names: what an operator merely moves in them is no parameter.
_PLAIN = {
    getattr(TensorProto, name) for name in ("BOOL", "STRING", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")
}


def scope_of(node: NodeProto) -> str:
    """Read a node's module from what exporters leave: torch's list of scopes, or a name such as /layer1/conv/Conv."""
    noted = next((each.value for each in node.metadata_props if each.key.endswith("name_scopes")), "")
    try:
        scopes = [str(each) for each in ast.literal_eval(noted)] if noted else []
    except (ValueError, SyntaxError):
        scopes = []
    if len(scopes) > 1:
        return scopes[-2]
    *parts, _last = node.name.strip("/").split("/")
    path = ""
    for part in parts:
        # Scripted modules name a child of a list by its whole path.
        path = part if part.startswith(f"{path}.") else f"{path}.{part}".lstrip(".")
    return path


def static_shape(kind: TypeProto) -> tuple[int, ...] | None:
    """Return a tensor's shape if all of it is known."""
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    if not all(each.HasField("dim_value") for each in tensor.shape.dim):
        return None
    return tuple(each.dim_value for each in tensor.shape.dim)


def file_bytes(path: Path, weights: Any) -> int:
    """Return the bytes of a graph's file and of the files beside it that hold its weights."""
    beside = {entry.value for each in weights for entry in each.external_data if entry.key == "location"}
    places = [path, *(path.parent / name for name in beside)]
    return sum(place.stat().st_size for place in places if place.is_file())


def torch_type(code: int) -> torch.dtype:
    """Return the type of a tensor by its code; of those that torch lacks, bytes."""
    try:
        name = str(helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, TypeError):
        name = ""
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else torch.float32 if code == TensorProto.FLOAT else torch.uint8


def is_learnable(weight: TensorProto) -> bool:
    """Tell numbers that are learnt, quantised ones of eight bits and fewer among them, from sizes and positions."""
    return weight.data_type not in _PLAIN


def bytes_of(weight: TensorProto) -> int:
    """Return what a weight takes, those of two and four bits packed."""
    bits = 2 if weight.data_type in _TWO_BITS else 4 if weight.data_type in _FOUR_BITS else 0
    elements: int = prod(weight.dims)
    return (elements * (bits or 8 * torch_type(weight.data_type).itemsize) + 7) // 8


def subgraphs(node: NodeProto) -> list[onnx.GraphProto]:
    """List the graphs that a node holds, as If and Loop do."""
    return [graph for each in node.attribute for graph in ([each.g] if each.HasField("g") else list(each.graphs))]


def all_nodes(graphs: Sequence[onnx.GraphProto]) -> Iterator[NodeProto]:
    """Yield the nodes of graphs and of all that these hold."""
    for graph in graphs:
        for node in graph.node:
            yield node
            yield from all_nodes(subgraphs(node))
