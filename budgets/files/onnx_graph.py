"""Graphs in ONNX: every operator counted by the same formulas, on the shapes that ONNX infers."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, TypeProto, helper, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from featherpress.budgets.counting.costs import SUMMED, Cost, ModuleCost, require_sums, sum_by_path
from featherpress.budgets.counting.formulas import Formula
from featherpress.budgets.counting.inputs import Inputs, describe_inputs
from featherpress.budgets.counting.memory import Footprint, Lifetimes, storage_key
from featherpress.budgets.files.onnx_core import CORE
from featherpress.budgets.files.onnx_operators import CARRIERS, ELEMENTWISE, FREE, NO_WEIGHTS, QUANTIZED_WEIGHTS, VIEWS
from featherpress.budgets.files.onnx_protos import (
    DOTTED,
    all_nodes,
    bytes_of,
    file_bytes,
    is_learnable,
    scope_of,
    static_shape,
    subgraphs,
    torch_type,
)
from featherpress.errors import CountError, FileError, UsageError

#: Constants up to so many numbers are followed, since shapes are made of them.
_SMALL = 4096
_BY_VALUES = "depends on values"


def count_onnx(
    path: Path, inputs: Inputs | None = None, *, formulas: Mapping[str, Formula] | None = None, side: int = 224
) -> Cost:
    """Count the parameters and multiply-accumulates of a graph; its weights are not read.

    Axes that the graph leaves free are those of `inputs`, by place or by name; else batches are of one, and images of
    `side` by `side`. `formulas` adds to the table, as {"onnx::DFT": formula(inputs, output)}.

    Errors: FileError for a file that is no ONNX; UsageError for inputs that do not fit; CountError for an operator that
    nothing answers for, and for core work on shapes that depend on values.
    """
    graph = _Graph.load(path, dict(formulas or {}))
    fed = graph.feed(inputs, side)
    for node in graph.nodes:
        graph.run(node)
    return graph.summarise(path, inputs or fed)


def _place(node: NodeProto, path: str) -> str:
    """Say where a node is: its module, and its name or else what it gives, as far as the graph has them."""
    own = node.name or next(filter(None, node.output), "")
    return (f"module {path}" if path else "the graph") + (f" ({own})" if own else "")


@dataclass(slots=True)
class _Graph:
    """A graph while it is counted: what is known of each value, as a meta tensor, and as numbers where it is small."""

    proto: onnx.GraphProto
    opsets: dict[str, int]
    formulas: Mapping[str, Formula]
    types: dict[str, TypeProto] = field(default_factory=dict)
    values: dict[str, TensorProto] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, TensorProto] = field(default_factory=dict)
    readers: defaultdict[str, list[tuple[NodeProto, int]]] = field(default_factory=lambda: defaultdict(list))
    macs: Counter[tuple[str, str]] = field(default_factory=Counter)
    elementwise: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    loose: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, formulas: Mapping[str, Formula]) -> "_Graph":
        try:
            model = onnx.load(path, load_external_data=False)
            if model.functions:
                model = inliner.inline_local_functions(model)
        except Exception as error:  # protobuf's own errors, and those of files
            raise FileError(
                f"{path} is not a graph in ONNX: {(str(error) or type(error).__name__).splitlines()[0]}"
            ) from error
        if not model.graph.node or not all(node.output for node in model.graph.node):
            raise FileError(f"{path} is not a graph in ONNX, or an empty one")
        graph = cls(model.graph, {each.domain: each.version for each in model.opset_import}, formulas)
        for value in model.graph.value_info:
            graph.types[value.name] = value.type
        graph._take(model.graph, {})
        return graph

    def _take(self, proto: onnx.GraphProto, around: Mapping[str, str]) -> None:
        """Note the weights of a graph and of those that its nodes hold, and who reads them, by the names `around`.

        Errors: CountError for sparse weights.
        """
        constants = [
            (node.output[0], each)
            for node in proto.node
            for each in node.attribute
            if node.op_type == "Constant" and node.output
        ]
        if proto.sparse_initializer or any(each.HasField("sparse_tensor") for _, each in constants):
            raise CountError("the graph holds sparse weights, which are not counted: count the model it was made from")
        for name, each in constants:
            if each.floats:
                each.t.CopyFrom(numpy_helper.from_array(np.array(each.floats, np.float32)))
            each.t.name = name
        held = [each.t for _, each in constants if each.t.dims and is_learnable(each.t)]
        weights = [*proto.initializer, *held]
        # Two branches may call their weights the same.
        own = {each.name: each.name + f" ({len(self.weights)})" * (each.name in self.weights) for each in weights}
        for weight in weights:
            name = own[weight.name]
            self.weights[name] = weight
            self.types[name] = helper.make_tensor_type_proto(weight.data_type, weight.dims)
            if prod(weight.dims) <= _SMALL and weight.data_location != TensorProto.EXTERNAL:
                self.values[name] = weight
        names = {**around, **own}
        for node in proto.node:
            for place, name in enumerate(node.input):
                self.readers[names.get(name, name)].append((node, place))
            for inner in subgraphs(node):
                self._take(inner, names)

    @property
    def nodes(self) -> Sequence[NodeProto]:
        return list(self.proto.node)

    def feed(self, inputs: Inputs | None, side: int) -> Inputs:
        """Fix the axes of what the graph takes, and return it."""
        taken = [value for value in self.proto.input if value.name not in self.weights]
        given = (
            dict(zip([value.name for value in taken], inputs.args, strict=False)) | dict(inputs.kwargs)
            if inputs
            else {}
        )
        names = [value.name for value in taken]
        if inputs and (set(given) != set(names) or len(inputs.args) > len(names)):
            raise UsageError(
                f"the graph takes {', '.join(names)}, one --input each, by place or as {names[0]}=1x3x224x224"
            )
        for value in taken:
            tensor = value.type.tensor_type
            sizes = [each.dim_value if each.HasField("dim_value") else 0 for each in tensor.shape.dim]
            shape = tuple(given[value.name].shape) if inputs else self._guess(value.name, sizes, side)
            if len(shape) != len(sizes) or any(size not in {0, here} for size, here in zip(sizes, shape, strict=False)):
                wanted = "x".join(str(size or "N") for size in sizes)
                got = "x".join(map(str, shape))
                raise UsageError(f"the graph takes {value.name} of shape {wanted}, got {got}")
            self._know(value.name, helper.make_tensor_type_proto(tensor.elem_type, shape))
        fed = [self.tensors[name] for name in names]
        self.lifetimes.take(fed)
        return Inputs(tuple(fed))

    def _guess(self, name: str, sizes: list[int], side: int) -> tuple[int, ...]:
        """Fill free axes of an image or a batch, and note it."""
        filled = [size or (1 if place == 0 else 0) for place, size in enumerate(sizes)]
        if len(filled) == 4 and filled[1]:
            filled[2:] = [size or side for size in filled[2:]]
        if not all(filled):
            example = "x".join(str(size or 16) for size in filled)
            raise UsageError(f"the graph leaves axes of {name} free: say them, as --input {name}={example}")
        if filled != sizes:
            self.notes.append(
                f"the graph leaves axes of {name} free; {'x'.join(map(str, filled))} was taken, --input says others"
            )
        return tuple(filled)

    def _know(self, name: str, kind: TypeProto) -> None:
        """Take over a type; a tensor of a shape that is known gets a twin without memory."""
        self.types[name] = kind
        shape = static_shape(kind)
        if shape is not None:
            self.tensors[name] = torch.empty(shape, dtype=torch_type(kind.tensor_type.elem_type), device="meta")

    def run(self, node: NodeProto) -> None:
        """Infer what a node returns, and count it."""
        name = f"{node.domain or 'onnx'}::{node.op_type}"
        path, plain = self._path(node), not node.domain or node.domain == "ai.onnx"
        self._infer(node, name)
        inputs = [self._tensor(each) for each in node.input]
        out = self.tensors.get(node.output[0])
        self.calls[name] += 1
        self.lifetimes.clock += 1
        keys = [storage_key(each) for each in inputs if each is not None]
        for key in keys:
            self.lifetimes.read(key)
        formula = self.formulas.get(name)
        core = CORE.get(node.op_type) if plain else None
        if formula is None and core is None:
            self._pass(node, name, path, inputs, plain=plain)
        else:
            needed = [node.input[place] for place in range(min(2, len(node.input)))] + [node.output[0]]
            if any(each and self._tensor(each) is None for each in needed):
                source, (place, why) = next(iter(self.loose.items()), ("an input", ("the graph", _BY_VALUES)))
                raise CountError(
                    f"{name} in {_place(node, path)} works on a shape that is not known: that of {source} in {place} "
                    f"{why}" + ", so one count would not hold for other inputs" * (why == _BY_VALUES)
                )
            macs = formula(inputs, out) if formula else core(node, inputs, out) if core else 0
            self.macs[path, name] += int(macs)
        first = inputs[0] if inputs else None
        written = [self.tensors[each] for each in node.output if each in self.tensors]
        if node.op_type in VIEWS and out is not None and first is not None and out.numel() == first.numel():
            self.tensors[node.output[0]] = first.view(out.shape) if first.is_contiguous() else out
        elif not all(each in self.values for each in node.output):
            self.lifetimes.write(written, keys, path)

    def _pass(self, node: NodeProto, name: str, path: str, inputs: list[Tensor | None], *, plain: bool) -> None:
        """Let an operator by that is no core work, or refuse it."""
        if not plain or node.op_type not in ELEMENTWISE | FREE or subgraphs(node):
            inner = sorted({each.op_type for each in all_nodes(subgraphs(node))})
            if not (plain and inner and all(each in ELEMENTWISE | FREE for each in inner)):
                holds = f", which holds {', '.join(inner[:4])}" if inner else ""
                raise CountError(
                    f"no formula for operator {name} in {_place(node, path)}{holds}: expected one "
                    f'that is counted or known to cost nothing; give its formula (--formula "{name}=..."), or count '
                    "the model that the graph was made from"
                )
        if node.op_type in ELEMENTWISE:
            outs = [self.tensors.get(each) for each in node.output]
            self.elementwise[path, name] += max([t.numel() for t in (*inputs, *outs) if t is not None], default=0)

    def _infer(self, node: NodeProto, name: str) -> None:
        """Work out types of a node's results, and their numbers where its inputs' are known."""
        if self._fold(node):
            return
        known = {each: self.types[each] for each in node.input if each in self.types}
        data = {each: self.values[each] for each in node.input if each in self.values}
        domain = "" if node.domain == "ai.onnx" else node.domain
        why = _BY_VALUES
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opsets.get(domain, 1), domain)
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, node, known, data, opset_imports=[helper.make_opsetid(*each) for each in self.opsets.items()]
            )
        except Exception as error:  # of an operator that ONNX does not know, or of types that do not fit it
            inferred = {}
            said = f"input {error} is not known" if isinstance(error, KeyError) else str(error).partition("\n")[0]
            why = f"ONNX does not infer ({said})"
        for output in node.output:
            kind = inferred.get(output)
            if kind is not None and (static_shape(kind) is not None or output not in self.types):
                self._know(output, kind)
            elif output in self.types:
                self._know(output, self.types[output])
            if output and output not in self.tensors:
                self.loose.setdefault(name, (_place(node, self._path(node)), why))

    def _fold(self, node: NodeProto) -> bool:
        """Compute a small result of numbers that are known, such as a shape made of others."""
        shape = self._tensor(node.input[0]) if node.op_type in {"Shape", "Size"} and node.input else None
        given = [each for each in node.input if each]
        if node.domain or subgraphs(node) or node.op_type.startswith("Random"):
            return False
        if shape is not None:
            feeds = {node.input[0]: np.broadcast_to(np.float32(0), tuple(shape.shape))}
        elif all(each in self.values for each in given):
            try:
                feeds = {each: numpy_helper.to_array(self.values[each]) for each in given}
            except ValueError as error:
                raise FileError(f"the graph holds a weight that is not of its shape: {error}") from error
        else:
            return False
        if node.op_type in {"ConstantOfShape", "Expand", "Tile", "Range"} and self._is_large(node, feeds):
            return False
        try:
            results = ReferenceEvaluator(self._alone(node)).run(None, feeds)
        except Exception:
            return False
        for output, result in zip(node.output, results, strict=False):
            array = np.asarray(result)
            self._know(output, helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
            if array.size <= _SMALL:
                self.values[output] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), output)
        return True

    def _alone(self, node: NodeProto) -> onnx.ModelProto:
        """Make a model of one node, which tells the evaluator which version of its operator is meant."""
        given = [helper.make_value_info(name, self.types[name]) for name in dict.fromkeys(node.input) if name]
        results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "alone", given, results)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid(*each) for each in self.opsets.items()])

    def _is_large(self, node: NodeProto, feeds: Mapping[str, Any]) -> bool:
        return node.op_type != "Range" and bool(np.prod(np.abs(feeds[node.input[-1]]).astype(np.float64)) > _SMALL)

    def _tensor(self, name: str) -> Tensor | None:
        if name not in self.tensors and name in self.weights:
            self._know(name, self.types[name])
        return self.tensors.get(name) if name else None

    def _path(self, node: NodeProto) -> str:
        """Say which module a node belongs to: its weight's by name, else what the exporter noted or named it after."""
        for name in node.input[1:2]:
            if name in self.weights and DOTTED.fullmatch(name):
                return str(name.rpartition(".")[0])
        return scope_of(node)

    def summarise(self, path: Path, fed: Inputs) -> Cost:
        """Put weights and work together."""
        held, notes = self._held(), [*self.notes]
        for name, (place, why) in self.loose.items():
            notes.append(f"{name} in {place} gives a result whose shape {why}: no core work follows it")
        macs, elementwise, written = sum_by_path(self.macs), sum_by_path(self.elementwise), self.lifetimes.written()
        self.lifetimes.keep(self.tensors[each.name] for each in self.proto.output if each.name in self.tensors)
        rows = tuple(
            ModuleCost(
                path=place, macs=macs[place], elementwise=elementwise[place], activations=written[place], **held[place]
            )
            for place in dict.fromkeys([*held, *macs, *elementwise, *written])
        )
        total, peak = self.lifetimes.total(), self.lifetimes.peak()
        bytes_ = sum(row.bytes for row in rows)
        floats = sum(prod(each.dims) for each in self.weights.values() if torch_type(each.data_type).is_floating_point)
        rest = bytes_ - sum(
            bytes_of(each) for each in self.weights.values() if torch_type(each.data_type).is_floating_point
        )
        params = sum(row.params for row in rows)
        cost = Cost(
            model=path.stem,
            inputs=tuple(tuple(each.shape) for each in (*fed.args, *fed.kwargs.values())),
            signature=describe_inputs(fed),
            method="onnx",
            params=params,
            trainable=params,
            frozen=0,
            unused=sum(row.unused for row in rows),
            bytes=bytes_,
            macs=sum(macs.values()),
            elementwise=sum(elementwise.values()),
            activations=total(0),
            peak=peak(0),
            exported=file_bytes(path, self.weights.values()),
            weight_footprint=Footprint.of(lambda size: floats * size + rest),
            activation_footprint=Footprint.of(total),
            peak_footprint=Footprint.of(peak),
            modules=rows,
            work=dict(self.macs),
            elementwise_work=dict(self.elementwise),
            operator_calls=dict(self.calls),
            unused_names=tuple(name for name in self.weights if not self.readers[name]),
            notes=tuple(notes),
        )
        require_sums(rows, cost, SUMMED, what=f"the rows of {path}")
        return cost

    def _held(self) -> defaultdict[str, Any]:
        """Sum the weights by module: parameters are what operators multiply, add or look up, each initializer once."""
        rows: defaultdict[str, Any] = defaultdict(Counter)
        outputs = {each.name for each in self.proto.output}
        for name, weight in self.weights.items():
            reads = self.readers[name]
            place = name.rpartition(".")[0] if DOTTED.fullmatch(name) else scope_of(reads[0][0]) if reads else ""
            elements = prod(weight.dims)
            learnt = any(
                place_ in QUANTIZED_WEIGHTS.get(node.op_type, ())
                or (is_learnable(weight) and place_ not in NO_WEIGHTS.get(node.op_type, ()))
                for node, place_ in self._uses(name)
            )
            params = elements if elements > 1 and (learnt or not (reads or name in outputs)) else 0
            rows[place].update(params=params, trainable=params, bytes=bytes_of(weight))
            rows[place]["unused"] += 0 if reads else params
        return rows

    def _uses(self, name: str) -> Iterator[tuple[NodeProto, int]]:
        """Yield who reads numbers, and as which input, be it a part of them, or them repeated for a batch."""
        names = [name]
        for each in names:
            for node, place in self.readers[each]:
                out = node.output[0]
                if node.op_type not in CARRIERS or place or out in names or not self.readers.get(out):
                    yield node, place
                else:
                    names.append(out)
