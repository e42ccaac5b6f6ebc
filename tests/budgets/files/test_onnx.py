"""Graphs in ONNX: the same formulas, hand-made graphs, and the four ways an audit ends."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from featherpress.budgets.counting.inputs import Inputs, make_inputs  # noqa: E402
from featherpress.budgets.files.onnx_graph import count_onnx  # noqa: E402
from featherpress.errors import CountError, FileError, UsageError  # noqa: E402

Run = Callable[..., tuple[int, str, str]]
Node = tuple[str, str, str, dict[str, Any]]


def weight(name: str, *shape: int, kind: type = np.float32) -> Any:
    return numpy_helper.from_array(np.ones(shape, kind), name)


def save(  # noqa: PLR0917
    path: Path,
    nodes: Sequence[Any],
    weights: Sequence[Any] = (),
    inputs: dict[str, Sequence[int | str]] | None = None,
    opset: int = 20,
    domain: str = "",
) -> Path:
    """Write a graph whose nodes are (operator, inputs, output, attributes), words apart by spaces."""
    made = [
        node
        if not isinstance(node, tuple)
        else helper.make_node(
            node[0], [n.strip("_") for n in node[1].split()], node[2].split(), domain=domain, **node[3]
        )
        for node in nodes
    ]
    for place, node in enumerate(made):
        node.name = node.name or f"/part{place}/{node.op_type}"
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (inputs or {"x": [1, 3, 8, 8]}).items()
    ]
    out = helper.make_empty_tensor_value_info(made[-1].output[0])
    graph = helper.make_graph(made, "net", given, [out], list(weights))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


@pytest.mark.parametrize(
    ("node", "weights", "inputs", "macs", "params"),
    [
        (("Conv", "x w", "y", {"pads": [1] * 4}), [weight("w", 4, 3, 3, 3)], {"x": [2, 3, 8, 8]}, 13824, 108),
        (("Conv", "x w", "y", {"group": 3}), [weight("w", 6, 1, 3, 3)], {"x": [1, 3, 8, 8]}, 36 * 6 * 9, 54),
        (("ConvTranspose", "x w", "y", {"strides": [2] * 2}), [weight("w", 3, 5, 2, 2)], None, 3840, 60),
        (("MatMul", "x w", "y", {}), [weight("w", 8, 5)], {"x": [2, 3, 4, 8]}, 24 * 8 * 5, 40),
        (("MatMul", "x w", "y", {}), [weight("w", 8)], {"x": [2, 8]}, 16, 8),
        (("Gemm", "x w b", "y", {"transA": 1, "transB": 1}),
         [weight("w", 4, 7), weight("b", 4)], {"x": [7, 3]}, 84, 32),
        (("Einsum", "x w", "y", {"equation": "bchw,dc->bdhw"}), [weight("w", 5, 3)], None, 64 * 15, 15),
        (
            ("LSTM", "x w r b", "y", {"hidden_size": 4, "direction": "bidirectional"}),
            [weight("w", 2, 16, 6), weight("r", 2, 16, 4), weight("b", 2, 32)],
            {"x": [5, 3, 6]},
            5 * 3 * 2 * 16 * 10,
            2 * (96 + 64 + 32),
        ),
        (("QLinearConv", "q s z w t u s z", "y", {}), None, None, 36 * 4 * 27, 108),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_core_work_by_hand(  # noqa: PLR0917
    node: Node, weights: Sequence[Any] | None, inputs: Any, macs: int, params: int, tmp_path: Path
) -> None:
    """Each operator's MACs and parameters, calculated here; scales and zero points are no parameters."""
    nodes: list[Any] = [node]
    if weights is None:
        weights = [weight("w", 4, 3, 3, 3, kind=np.int8), weight("s"), weight("t"), weight("z", kind=np.uint8)]
        weights.append(weight("u", kind=np.int8))
        nodes = [("QuantizeLinear", "x s z", "q", {}), node]
    cost = count_onnx(save(tmp_path / "n.onnx", nodes, weights, inputs))
    assert (cost.macs, cost.params) == (macs, params)


@pytest.mark.parametrize(
    "node",
    [
        ("Conv", "x w", "y", {}),
        ("Conv", "x v", "y", {"group": 2}),
        ("ConvTranspose", "x w", "y", {}),
        ("DeformConv", "x w o", "y", {}),
        ("LSTM", "s w r", "y", {"hidden_size": 4}),
        ("MatMul", "s v", "y", {}),
        ("Gemm", "t w", "y", {}),
    ],
    ids=lambda node: f"{node[0]} {node[1]}",
)
def test_weights_that_do_not_fit_are_refused(node: Node, tmp_path: Path) -> None:
    """Weights for other channels than are given are no work that could be counted."""
    operator = node[0]
    shape = {"LSTM": (1, 16, 5), "Gemm": (5, 2)}.get(operator, (4, 4, 1, 1))
    weights = [weight("w", *shape), weight("v", 4, 1, 1, 1), weight("o", 1, 2, 8, 8), weight("r", 1, 16, 4)]
    path = save(tmp_path / "n.onnx", [node], weights, {"x": [1, 3, 8, 8], "s": [2, 2, 6], "t": [1, 3]})
    with pytest.raises((FileError, CountError), match=operator):
        count_onnx(path)


def test_states_that_an_operator_begins_with_are_no_parameters(tmp_path: Path) -> None:
    """What a recurrent layer begins with is none, a part of it or repeated for a batch; sliced weights are."""
    weights = [weight("w", 2, 16, 6), weight("r", 1, 16, 4), weight("h", 2, 1, 4)]
    weights += [numpy_helper.from_array(np.array(n), f"n{place}") for place, n in enumerate(([0], [1], [1, 3, 4]))]
    nodes = [
        ("Slice", "w n0 n1 n0", "one", {}),
        ("Slice", "h n0 n1 n0", "first", {}),
        ("Expand", "first n2", "all", {}),
        ("LSTM", "x one r _ _ all all", "y", {"hidden_size": 4}),
    ]
    cost = count_onnx(save(tmp_path / "n.onnx", nodes, weights, {"x": [5, 3, 6]}))
    assert cost.params == 2 * 96 + 64


def test_shapes_made_of_shapes_are_followed(tmp_path: Path) -> None:
    """What exporters write to flatten a free batch: Shape, Gather, Concat, Reshape, then a product."""
    nodes = [
        ("Shape", "x", "s", {}),
        ("Gather", "s zero", "b", {}),
        ("Unsqueeze", "b axis", "u", {}),
        ("Concat", "u rest", "t", {"axis": 0}),
        ("Reshape", "x t", "f", {}),
        ("MatMul", "f w", "y", {}),
    ]
    weights = [
        numpy_helper.from_array(np.array(n, np.int64), name) for name, n in (("zero", 0), ("axis", [0]), ("rest", [-1]))
    ]
    path = save(tmp_path / "n.onnx", nodes, [*weights, weight("w", 192, 10)], {"x": ["batch", 3, "height", "width"]})
    assert count_onnx(path, Inputs(*make_inputs(["2x3x8x8"]))).macs == 2 * 1920
    assert count_onnx(path, Inputs(*make_inputs(["x=2x3x8x8"]))).macs == 2 * 1920
    guessed = count_onnx(path, side=8)
    assert (guessed.macs, guessed.signature) == (1920, ("1x3x8x8",))
    assert guessed.notes == ("the graph leaves axes of x free; 1x3x8x8 was taken, --input says others",)
    for wrong, words in (
        (["1x4x8x8"], "takes x of shape Nx3xNxN, got 1x4x8x8"),
        (["y=1x3x8x8"], "the graph takes x, one"),
    ):
        with pytest.raises(UsageError, match=words):
            count_onnx(path, make_inputs(wrong))


def test_older_operators_by_their_own_version(tmp_path: Path) -> None:
    """Axes were attributes once; the graph says which version it means."""
    nodes = [("Unsqueeze", "n", "m", {"axes": [0]}), ("Concat", "m m", "t", {"axis": 0}), ("Reshape", "x t", "f", {})]
    six = numpy_helper.from_array(np.array(6, np.int64), "n")
    path = save(
        tmp_path / "n.onnx", [*nodes, ("MatMul", "f w", "y", {})], [six, weight("w", 6, 2)], {"x": [36]}, opset=11
    )
    assert count_onnx(path).macs == 72


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    """Work after a data-dependent shape, an operator without a formula, one of another domain, a loop that works."""
    late = [("NonZero", "x", "n", {}), ("Cast", "n", "f", {"to": 1}), ("MatMul", "w f", "y", {})]
    with pytest.raises(
        CountError, match=r"onnx::MatMul in module part2 .* onnx::NonZero in module part0 .*depends on values"
    ):
        count_onnx(save(tmp_path / "a.onnx", late, [weight("w", 2, 4)]))
    with pytest.raises(CountError, match=r'no formula for operator onnx::Det .*--formula "onnx::Det=\.\.\."'):
        count_onnx(save(tmp_path / "b.onnx", [("Det", "x", "y", {})]))
    det = count_onnx(tmp_path / "b.onnx", formulas={"onnx::Det": lambda args, out: args[0].numel()})
    assert det.macs == 192
    nameless = onnx.load(tmp_path / "b.onnx")
    nameless.graph.node[0].name = ""
    onnx.save(nameless, tmp_path / "nameless.onnx")
    with pytest.raises(CountError, match=r"operator onnx::Det in the graph \(y\): expected"):
        count_onnx(tmp_path / "nameless.onnx")
    with pytest.raises(CountError, match=r"no formula for operator my\.own::Conv"):
        count_onnx(save(tmp_path / "c.onnx", [("Conv", "x", "y", {})], domain="my.own"))
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["z"])], "b", [], [helper.make_empty_tensor_value_info("z")]
    )
    condition = numpy_helper.from_array(np.array(True), "c")
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body, name="/head/If")
    with pytest.raises(CountError, match=r"onnx::If in module head .*which holds MatMul"):
        count_onnx(save(tmp_path / "d.onnx", [branch], [condition]))
    (tmp_path / "e.onnx").write_bytes(b"rubbish")
    with pytest.raises(FileError, match=r"e\.onnx is not a graph in ONNX"):
        count_onnx(tmp_path / "e.onnx")


def test_weights_wherever_they_stand(tmp_path: Path) -> None:
    """Constants in eight bits or lists, weights that are turned first, and those of branches, of one name, count."""
    product = ("MatMul", "x w", "y", {})
    turned = [("Transpose", "q", "t", {}), ("DequantizeLinear", "t s", "w", {}), product]
    constant = helper.make_node("Constant", [], ["q"], value=weight("", 5, 8, kind=np.int8))
    vector = helper.make_node("Constant", [], ["w"], value_floats=[1.0] * 8)
    inner = [("Constant", "", "b", {"value": weight("", 8)}), ("Add", "x b", "z", {})]
    bodies = [
        helper.make_graph(
            [helper.make_node(name, reads.split(), [out], **more) for name, reads, out, more in nodes],
            "b",
            [],
            [helper.make_empty_tensor_value_info("z")],
            held,
        )
        for nodes, held in ((inner, []), (inner[1:], [weight("b", 8)]), ([("Add", "x o", "z", {})], []))
    ]
    condition = numpy_helper.from_array(np.array(True), "c")
    given = {"x": [2, 8]}
    for name, nodes, held, params, bytes_ in (
        ("constant", [constant, *turned], [weight("s")], 40, 44),
        ("turned", turned, [weight("q", 5, 8, kind=np.int8), weight("s")], 40, 44),
        ("vector", [vector, product], [], 8, 32),
        ("two bits", turned, [helper.make_tensor("q", TensorProto.INT2, [5, 8], [0] * 40), weight("s")], 40, 14),
        *(
            (f"branch {one}{two}", [helper.make_node("If", ["c"], ["y"], then_branch=bodies[one],
              else_branch=bodies[two])], [condition, weight("o", 8)], params, 4 * params + 1)
            for one, two, params in ((0, 1, 24), (0, 0, 24), (1, 2, 16), (2, 2, 8))
        ),
    ):  # fmt: skip
        cost = count_onnx(save(tmp_path / "n.onnx", nodes, held, given, opset=25))
        unused = 0 if "2" in name or not name.startswith("branch") else 8
        assert (cost.params, cost.bytes, cost.unused) == (params, bytes_, unused), name
    save(tmp_path / "n.onnx", [product], [weight("w", 8, 5)], given)
    graph = onnx.load(tmp_path / "n.onnx")
    positions = numpy_helper.from_array(np.array([0, 9], np.int64), "i")
    graph.graph.sparse_initializer.append(helper.make_sparse_tensor(weight("w", 2), positions, [8, 5]))
    onnx.save(graph, tmp_path / "n.onnx")
    with pytest.raises(CountError, match="sparse weights, which are not counted"):
        count_onnx(tmp_path / "n.onnx")


def test_a_broken_graph_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Shapes that do not fit and inputs that nothing gives do not depend on values; nothing broken is a traceback."""
    product = [("MatMul", "x w", "y", {})]
    for weights, words in (([weight("w", 7, 5)], "Incompatible dimensions"), ([], "input 'w' is not known")):
        path = save(tmp_path / "n.onnx", product, weights, {"x": [2, 8]})
        with pytest.raises(CountError, match=rf"that of onnx::MatMul in module part0 .* does not infer \(.*{words}"):
            count_onnx(path)
    short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 5], raw_data=b"\0" * 8)
    with pytest.raises(FileError, match="holds a weight that is not of its shape"):
        count_onnx(save(tmp_path / "n.onnx", [("Neg", "w", "v", {}), *product], [short], {"x": [2, 8]}))
    graph = onnx.load(tmp_path / "n.onnx")
    graph.graph.node[0].ClearField("output")
    onnx.save(graph, tmp_path / "n.onnx")
    with pytest.raises(FileError, match="is not a graph in ONNX"):
        count_onnx(tmp_path / "n.onnx")


def test_components_memory_and_statistics(tmp_path: Path) -> None:
    """Weights by their dotted names, work by its weight or the node's name; statistics are no parameters."""
    norm = [weight("bn.weight", 4), weight("bn.bias", 4), weight("bn.mean", 4), weight("bn.var", 4)]
    nodes = [
        ("Conv", "x stem.0.weight", "a", {}),
        ("BatchNormalization", "a bn.weight bn.bias bn.mean bn.var", "b", {}),
        ("Flatten", "b", "c", {}),
        helper.make_node("MatMul", ["c", "onnx::MatMul_9"], ["y"], name="/head/fc/MatMul"),
    ]
    weights = [weight("stem.0.weight", 4, 3, 1, 1), *norm, weight("onnx::MatMul_9", 256, 2), weight("extra.bias", 3)]
    cost = count_onnx(save(tmp_path / "n.onnx", nodes, weights))
    rows = {row.path: (row.params, row.macs) for row in cost.modules}
    assert rows == {"stem.0": (12, 768), "bn": (8, 0), "head.fc": (512, 512), "extra": (3, 0)}
    assert (cost.params, cost.bytes, cost.unused) == (535, 4 * (12 + 16 + 512 + 3), 3)
    # The image and the first result; then both results of 4x8x8; the flattening writes nothing.
    assert (cost.activations, cost.peak) == (4 * (256 + 256 + 2), 4 * 512)
    assert cost.exported == (tmp_path / "n.onnx").stat().st_size


def test_a_graph_is_a_target_like_any_other(run_command: Run, tmp_path: Path) -> None:
    """Budgets, pins, formats and exit codes are those of models; the size of the file can be limited."""
    save(tmp_path / "n.onnx", [("Conv", "x w", "y", {})], [weight("w", 4, 3, 3, 3)])
    size = (tmp_path / "n.onnx").stat().st_size
    code, out, _ = run_command("audit", "n.onnx", "--json")
    record = json.loads(out)
    assert (code, record["total"]["macs"], record["method"]) == (0, 36 * 108, "onnx")
    assert run_command("audit", "n.onnx", "--init", "b.toml")[0] == 0
    for limit, ending in ((size, 0), (size - 1, 1)):
        text = (tmp_path / "b.toml").read_text().replace("[total]", f"[total]\nexported = {{ max = {limit} }}")
        (tmp_path / "c.toml").write_text(text)
        code, out, _ = run_command("audit", "n.onnx", "--budget", "c.toml", "--format", "markdown")
        assert code == ending
        assert ("bytes of the exported file, 1 above the limit" in out) == bool(ending)
    save(tmp_path / "det.onnx", [("Det", "x", "y", {})])
    assert run_command("audit", "det.onnx")[0] == 3
    assert run_command("audit", "gone.onnx")[:2] == (2, "")
    assert "--cross-check is for a model" in run_command("audit", "n.onnx", "--cross-check")[2]
