"""ONNX graphs made simpler without changing what they compute, and written for an older operator set."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

Shape = Sequence[int | None]
Constants = dict[str, npt.NDArray[Any]]

OLDEST_OPSET = 17
TRACED_OPSET = 18
"""The operator set in which torch writes graphs, and from which they are converted to later ones."""

_NEEDS = {"GridSample": 20, "DeformConv": 20}
"""From which operator set on these compute what torch does."""

_SINCE_18 = {"Resize": ("antialias", "axes", "keep_aspect_ratio_policy")}
"""Attributes that 18 brought, which torch writes with their defaults."""

_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def simplify(proto: "onnx.ModelProto") -> None:
    """Replace what many runtimes are slow at, or lack, by operators that all of them have; values stay up to rounding.

    Means and maxima over rows and columns become global pools; the mean over channels and a product with one number
    become convolutions, which keep a runtime's own layout; the size of a kernel is said.
    """
    from onnx import shape_inference  # noqa: PLC0415  (optional)

    inferred = shape_inference.infer_shapes(proto).graph
    shapes = {each.name: _shape(each) for each in (*inferred.value_info, *inferred.input, *inferred.output)}
    known, nodes = constants(proto), list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        proto.graph.node.extend(_simpler(proto, node, shapes, known))
    _drop_unused(proto)


def _simpler(
    proto: "onnx.ModelProto", node: "onnx.NodeProto", shapes: dict[str, Shape], known: Constants
) -> Iterator["onnx.NodeProto"]:
    from onnx import helper  # noqa: PLC0415  (optional)

    kind, first = node.op_type, shapes.get(node.input[0], ()) if node.input else ()
    reduces = kind in _POOLS and len(first) == 4 and attribute(node, "keepdims", 1)
    if reduces and _axes(node, known) == [2, 3]:
        yield helper.make_node(_POOLS[kind], node.input[:1], node.output, node.name)
    elif reduces and kind == "ReduceMean" and first[1] and _axes(node, known) == [1]:
        yield _convolution(proto, node, node.input[0], np.full((1, first[1], 1, 1), 1 / first[1]))
    elif kind == "Mul":
        yield from _product(proto, node, shapes, known)
    else:
        if kind == "Conv" and attribute(node, "kernel_shape", None) is None and node.input[1] in known:
            node.attribute.append(helper.make_attribute("kernel_shape", known[node.input[1]].shape[2:]))
        yield node


def _product(
    proto: "onnx.ModelProto", node: "onnx.NodeProto", shapes: dict[str, Shape], known: Constants
) -> Iterator["onnx.NodeProto"]:
    """Yield a product: with one number as a depthwise convolution, with one map for all channels through an Identity.

    OpenCV 5 takes such a map for a scale of the convolution that reads the product, unless something lies between.
    """
    from onnx import helper  # noqa: PLC0415  (optional)

    for place in (0, 1):
        factor, other = node.input[place], node.input[1 - place]
        shape, theirs = shapes.get(factor, ()), shapes.get(other, ())
        if factor in known and known[factor].size == 1 and len(theirs) == 4 and theirs[1]:
            weights = np.full((theirs[1], 1, 1, 1), known[factor].item())
            yield _convolution(proto, node, other, weights, group=theirs[1])
            return
        if len(shape) == len(theirs) == 4 and shape[1] == 1 != theirs[1]:
            node.input[place] = f"{node.output[0]}_map"
            yield helper.make_node("Identity", [factor], [node.input[place]], f"{node.name}_map")
    yield node


def _convolution(
    proto: "onnx.ModelProto", node: "onnx.NodeProto", source: str, weights: npt.NDArray[Any], *, group: int = 1
) -> "onnx.NodeProto":
    from onnx import helper, numpy_helper  # noqa: PLC0415  (optional)

    name = f"{node.output[0]}_weights"
    proto.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), name))
    return helper.make_node("Conv", [source, name], node.output, node.name, group=group, kernel_shape=[1, 1])


def made_convolutions(proto: "onnx.ModelProto") -> list[str]:
    """Name the convolutions that `simplify` made of other operators, which eight bits would hurt."""
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    return [node.name for node in convolutions if node.input[1] == f"{node.output[0]}_weights"]


def lowest_opset(proto: "onnx.ModelProto") -> int:
    """Return the oldest operator set, from 17 on, in which a graph of torch's can be written."""
    from onnx import defs  # noqa: PLC0415  (optional)

    known = constants(proto)
    changed = [
        node
        for node in proto.graph.node
        if not node.domain and defs.get_schema(node.op_type, TRACED_OPSET).since_version == TRACED_OPSET
    ]
    least = OLDEST_OPSET if all(_can_be_lowered(node, known) for node in changed) else TRACED_OPSET
    return max((_NEEDS.get(node.op_type, least) for node in proto.graph.node), default=least)


def _can_be_lowered(node: "onnx.NodeProto", known: Constants) -> bool:
    if node.op_type.startswith("Reduce"):
        return _axes(node, known) is not None
    if node.op_type == "Resize":
        return attribute(node, "axes", None) is None and not attribute(node, "antialias", 0)
    return node.op_type == "Pad" and len(node.input) < 4


def lower(proto: "onnx.ModelProto") -> None:
    """Rewrite a graph of operator set 18 for 17, where axes of reductions are attributes; `lowest_opset` allows it."""
    from onnx import checker, helper  # noqa: PLC0415  (optional)

    known = constants(proto)
    for node in proto.graph.node:
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) > 1:
            axes = known[node.input[1]].tolist()
            del node.input[1:]
            node.attribute.append(helper.make_attribute("axes", axes))
            _remove_attributes(node, ("noop_with_empty_axes",))
        _remove_attributes(node, _SINCE_18.get(node.op_type, ()))
    for each in proto.opset_import:
        each.version = each.version if each.domain else OLDEST_OPSET
    proto.ir_version = helper.find_min_ir_version_for(proto.opset_import)
    _drop_unused(proto)
    checker.check_model(proto)


def constants(proto: "onnx.ModelProto") -> Constants:
    """Return the values of a graph that are known before it runs, by name."""
    from onnx import numpy_helper  # noqa: PLC0415  (optional)

    found = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def attribute(node: "onnx.NodeProto", name: str, default: Any) -> Any:
    """Return an attribute of a node."""
    from onnx import helper  # noqa: PLC0415  (optional)

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _remove_attributes(node: "onnx.NodeProto", names: Sequence[str]) -> None:
    for each in [each for each in node.attribute if each.name in names]:
        node.attribute.remove(each)


def _axes(node: "onnx.NodeProto", known: Constants) -> list[int] | None:
    """Return over which of four axes a node reduces, counted from the first; None where that is computed."""
    if len(node.input) < 2 or node.input[1] not in known:
        axes: list[int] | None = attribute(node, "axes", None)
        return axes
    return sorted(int(axis) % 4 for axis in known[node.input[1]].reshape(-1))


def _shape(value: "onnx.ValueInfoProto") -> Shape:
    return [each.dim_value or None for each in value.type.tensor_type.shape.dim]


def _drop_unused(proto: "onnx.ModelProto") -> None:
    used = {name for node in proto.graph.node for name in node.input}
    for each in [each for each in proto.graph.initializer if each.name not in used]:
        proto.graph.initializer.remove(each)
