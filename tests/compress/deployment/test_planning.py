"""Which convolutions are in eight bits: what is tried, what is chosen, and what a plan of one's own does."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from featherpress.compress.data import SyntheticFaces
from featherpress.compress.deployment import exporting, planning
from featherpress.compress.deployment.exporting import ExportRequest, Int8Request, export
from featherpress.compress.deployment.graphs import GraphOptions, find_subject
from featherpress.compress.deployment.listing import _planned
from featherpress.compress.deployment.parity import example_images
from featherpress.compress.deployment.planning import Trial, group_convolutions, read_plan, try_plans
from featherpress.compress.deployment.quantization import Chosen, Images, Quantization, calibration_images, quantize
from featherpress.errors import FileError, UsageError
from tests.compress.deployment.conftest import Exported

pytestmark = pytest.mark.needs_torch("2.9", "exporting")


@pytest.fixture(scope="module")
def wide(nets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stem, pointwise convolutions from 16 to 64 channels with a depthwise one between, and a head."""
    file = tmp_path_factory.mktemp("wide") / "wide.onnx"
    export(ExportRequest(target="export_nets:wide", weights=None, out=file, side=16))
    return file


def images() -> Images:
    found: Images = example_images((1, 3, 16, 16)).numpy()
    return found


def convolutions(file: Path) -> list[str]:
    return [node.name for node in onnx.load(file).graph.node if node.op_type == "Conv"]


def test_convolutions_are_grouped_by_kind(wide: Path, exported: Exported) -> None:
    """The head and what sees three colours stay in float; the rest is grouped by what runtimes have kernels for."""
    _, first, depthwise, second, third, _ = convolutions(wide)
    assert group_convolutions(onnx.load(wide)) == {
        "pointwise": (first, second, third),
        "pointwise from 32 channels": (second, third),
        "pointwise from 64 channels": (third,),
        "depthwise": (depthwise,),
        "other": (),
    }


def test_what_sees_a_pooled_value_stays_in_float(nets: Path, tmp_path: Path) -> None:
    """A gate's convolutions are too small to gain from eight bits, and decide too much."""
    export(ExportRequest(target="export_nets:gates", weights=None, out=tmp_path / "gates.onnx", side=16))
    proto = onnx.load(tmp_path / "gates.onnx")
    pools = {node.output[0] for node in proto.graph.node if node.op_type.startswith("Global")}
    gates = {node.name for node in proto.graph.node if node.op_type == "Conv" and node.input[0] in pools}
    assert len(gates) == 2
    kept = quantize(tmp_path / "gates.onnx", tmp_path / "q.onnx", iter([images()]), count=1, how=Quantization())
    made = [node.name for node in proto.graph.node if node.op_type == "Conv" and node.input[1].endswith("_weights")]
    assert len(made) == 3
    assert set(made) < set(kept)
    assert not gates & {name for names in group_convolutions(proto).values() for name in names}


def test_sets_are_tried_and_the_fastest_come_first(wide: Path, tmp_path: Path) -> None:
    """Sets by width, then the fastest of them with the other kinds, each by its time over float's."""
    seconds = {"float": 2.0, "weights alone": 3.0, "pointwise": 1.8, "pointwise from 32 channels": 1.0}
    seconds |= {"pointwise from 64 channels": 1.4, "pointwise from 32 channels, depthwise": 0.8}
    asked: list[set[str]] = []

    def measure(files: Mapping[str, Path], given: Images) -> dict[str, float]:
        asked.append(set(files))
        return {name: seconds.get(name, 2.2) for name in files}

    found = try_plans(wide, images(), tmp_path, measure=measure)
    assert [(each.kind, each.time) for each in found][:3] == [
        ("pointwise from 32 channels, depthwise", 0.4),
        ("pointwise from 32 channels", 0.5),
        ("pointwise from 64 channels", 0.7),
    ]
    assert (found[-1].kind, found[-1].nodes) == ("weights alone", None)
    assert asked[1] == asked[2] == {"float", "pointwise from 32 channels, depthwise"}
    seconds["float"] = 1.25
    calls = iter([1.0, 1.0, 0.9, 1.0])

    def differently(files: Mapping[str, Path], given: Images) -> dict[str, float]:
        factor = next(calls)
        return {name: each * (factor if name == "float" else 1) for name, each in measure(files, given).items()}

    found = try_plans(wide, images(), tmp_path, measure=differently)
    assert [each.time for each in found][:2] == pytest.approx([0.8 / 1.125, 0.8])
    assert [each.kind for each in try_plans(wide, images(), tmp_path, seconds=0, measure=measure)] == ["weights alone"]


def test_measuring_takes_turns(wide: Path) -> None:
    """Every file has its least time."""
    times = planning.least_times({"one": wide, "two": wide}, images(), rounds=3)
    assert set(times) == {"one", "two"}
    assert all(0 <= each < 60 for each in times.values())


def test_a_plan_quantises_what_it_names_and_the_activation_after(wide: Path, tmp_path: Path) -> None:
    """Its input and output are in eight bits, so that a runtime runs convolution and activation as one."""
    _, first, _, _, third, _ = convolutions(wide)
    kept = quantize(wide, tmp_path / "q.onnx", iter([images()]), count=1, how=Quantization(), nodes=[first, third])
    assert kept == [name for name in convolutions(wide) if name not in {first, third}]
    nodes = onnx.load(tmp_path / "q.onnx").graph.node
    made, read = {node.output[0]: node for node in nodes}, {name: node for node in nodes for name in node.input}
    for node in nodes:
        if node.op_type == "Conv":
            assert (
                (made[node.input[1]].op_type == "DequantizeLinear") == (node.name in {first, third})
                if node.input[1] in made
                else True
            )
    [leaky] = [node for node in nodes if node.op_type == "LeakyRelu"]
    assert made[leaky.input[0]].op_type == "DequantizeLinear"
    assert read[leaky.output[0]].op_type == "QuantizeLinear"


@pytest.mark.parametrize("case", [(0.9, 0.0, "some"), (0.99, 0.0, "weights alone"), (0.9, 0.006, "weights alone")])
def test_what_is_faster_and_no_worse_is_kept(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[float, float, str]
) -> None:
    """A set that gains too little, or loses more than 0.005, leaves weights alone in eight bits."""
    faster, drop, kind = case

    def tried(source: Path, given: Images, folder: Path) -> list[Trial]:
        assert given.shape == (1, 3, 96, 96)
        return [
            Trial(kind="some", nodes=tuple(convolutions(source)[:1]), time=faster),
            Trial(kind="weights alone", nodes=None, time=1.5),
        ]

    class Scores(Int8Request):
        def score(self, model: object, label: str) -> object:
            found = super().score(model, label)  # type: ignore[arg-type]
            return replace(found, score=0.5 - drop * ("some" in label))

    monkeypatch.setattr(exporting, "try_plans", tried)
    faces = SyntheticFaces(length=1, seed=0, size=(96, 96))
    int8 = Scores(
        calibration=faces, validation=faces, about={"name": "faces", "split": "val"}, how=Quantization(plan="auto")
    )
    request = ExportRequest(
        target="export_nets:small", weights=exported.weights, out=tmp_path / "a.onnx", side=96, int8=int8
    )
    entry = export(request)["files"][-1]
    plan = entry["plan"]
    assert entry["calibration"] == ("percentile" if kind == "some" else "none")
    assert (plan["by"], plan["kind"], plan["time"]) == ("auto", kind, faster if kind == "some" else 1.5)
    assert [each["time"] for each in plan["tried"]] == [faster, 1.5]
    assert len(plan["quantized"]) == len(convolutions(tmp_path / "a.onnx")) - entry["kept_in_float"] > 0
    assert plan["outputs"] == (kind == "some")
    weights = kind == "weights alone"
    said = _planned(plan)
    assert said.endswith(f": {faster:.2f} some; 1.50 weights alone")
    assert ("nothing good enough is faster here" in said) == weights
    read = Chosen(nodes=tuple(plan["quantized"]), outputs=not weights, weights_alone=weights)
    assert read_plan(tmp_path / "a.export.json") == read


def test_a_plan_of_another_graph_is_refused(wide: Path, tmp_path: Path) -> None:
    """Files that hold no plan, and names that are no convolutions."""
    file = tmp_path / "plan.json"
    for text in ("[]", "{", '{"files": []}', '{"files": 3}', '{"quantized": 3}', '{"files": [{"plan": []}]}'):
        file.write_text(text)
        with pytest.raises(FileError, match=r"plan\.json: expected a plan"):
            read_plan(file)
    file.write_text('{"quantized": []}')
    with pytest.raises(FileError, match=r"plan\.json: the plan lists no convolution"):
        read_plan(file)
    with pytest.raises(FileError, match="fast: No such file or directory; a plan is auto, all, or a file"):
        read_plan(tmp_path / "fast")
    file.write_text(json.dumps({"quantized": ["a"]}))
    assert read_plan(file) == Chosen(nodes=("a",))
    with pytest.raises(UsageError, match="names 'a', which is no convolution"):
        planning.require_known(["a"], onnx.load(wide))


def test_a_plan_of_another_graph_is_found_early(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is checked or scored."""
    monkeypatch.setattr(exporting, "check_parity", lambda *_, **__: pytest.fail("checked first"))
    faces = SyntheticFaces(length=1, seed=0, size=(96, 96))
    how = Quantization(plan=Chosen(nodes=("a",)))
    int8 = Int8Request(calibration=faces, validation=faces, about={}, how=how)
    with pytest.raises(UsageError, match="names 'a'"):
        export(ExportRequest(target="export_nets:small", weights=None, out=tmp_path / "a.onnx", side=96, int8=int8))
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_a_plan_of_the_same_file(exported: Exported, tmp_path: Path) -> None:
    """What was quantised is in the record of `all`, and quantised by it once more gives the same graph."""
    plan = read_plan(exported.folder / "small.export.json")
    assert plan.nodes
    assert not plan.outputs
    source, target = exported.folder / "small.onnx", tmp_path / "q.onnx"
    seen = calibration_images(SyntheticFaces(length=2, seed=0, size=(64, 64)), 2)
    quantize(source, target, seen, count=2, how=Quantization(), nodes=plan.nodes, outputs=plan.outputs)
    graphs = [onnx.load(file).graph for file in (target, exported.folder / "small.int8.onnx")]
    assert graphs[0] == graphs[1]
    subject, alone = find_subject("export_nets:small", None, options=GraphOptions()), replace(plan, weights_alone=True)
    kinds = {
        trial.kind: trial.outputs
        for each in (plan, alone)
        for trial in exporting._plans(Quantization(plan=each), subject, source, tmp_path)[0]
    }
    assert kinds == {"as given": False, "weights alone": False}
