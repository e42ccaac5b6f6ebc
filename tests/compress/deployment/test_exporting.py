"""What is exported computes what the model does, says what it is, or is not written."""

import hashlib
import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import from_array, to_array
from rich.console import RenderableType
from torch import Tensor, nn

from featherpress import extras
from featherpress.compress.deployment import parity
from featherpress.compress.deployment.conversion import capture, convert
from featherpress.compress.deployment.exporting import ExportRequest, _write_program, export
from featherpress.compress.deployment.graphs import GraphOptions, find_subject, flat_outputs
from featherpress.compress.deployment.listing import render_export
from featherpress.compress.deployment.quantization import (
    Quantization,
    first_convolutions,
    kept_in_float,
    quantize,
)
from featherpress.compress.deployment.sessions import Session, SessionDetector
from featherpress.errors import ExportError, UsageError
from featherpress.models import Detector
from featherpress.models.factories import load_factory
from featherpress.models.priors import decode_boxes, decode_landmarks
from featherpress.records.deployment import Export

from .conftest import Exported

pytestmark = pytest.mark.needs_torch("2.9", "exporting")
Printer = Callable[[RenderableType], str]

SHAPE = (3, 3, 77, 131)
"""A batch and a size that the export itself did not check."""


@pytest.fixture
def detector(nets: Path) -> Detector:
    model = load_factory("export_nets:small").eval()
    assert isinstance(model, Detector)
    return model


def decoded(detector: Detector, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        boxes, logits, landmarks = detector(images)
    priors = detector.priors(*images.shape[-2:])
    return [decode_boxes(boxes, priors), logits.softmax(-1)[..., 1], decode_landmarks(landmarks, priors), priors]


def test_onnx_computes_what_torch_does(exported: Exported, detector: Detector) -> None:
    """Decoding and priors in the graph are those of torch, at a batch and an odd size that were never traced."""
    images = parity.example_images(SHAPE, seed=5)
    found = Session(exported.folder / "small.onnx", threads=1).run(images.numpy())
    for ours, theirs in zip(decoded(detector, images), found, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-4, atol=1e-3)


def test_program_computes_what_torch_does(exported: Exported, detector: Detector) -> None:
    """The torch program runs at any batch and size, and says what it is."""
    extra = {"featherpress.json": ""}
    program = torch.export.load(exported.folder / "small.pt2", extra_files=extra)
    images = parity.example_images(SHAPE, seed=5)
    with torch.no_grad():
        found = flat_outputs(program.module()(images))
    for ours, theirs in zip(decoded(detector, images), found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)
    about = json.loads(extra["featherpress.json"])
    assert about["model"] == "export_nets:small"
    [entry] = [each for each in exported.record["files"] if each["kind"] == "program"]
    assert json.loads(about["parity"]) == entry["parity"]


def test_program_names_no_file_of_this_machine(exported: Exported, nets: Path) -> None:
    """No path, of the model's code, of ours or of torch's, is in any of its parts."""
    with zipfile.ZipFile(exported.folder / "small.pt2") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert any(b"export_nets.Small" in part for part in parts.values())
    for name, part in parts.items():
        for word in (b".py", b"site-packages", str(nets).encode(), str(Path(__file__).parents[3]).encode()):
            assert word not in part, (name, word)


def test_record_says_how_raw_outputs_are_decoded(exported: Exported, detector: Detector) -> None:
    """By what record and metadata say alone, raw outputs become boxes, scores and landmarks in pixels."""
    said = exported.record["decoding"]
    about = {each.key: each.value for each in onnx.load(exported.folder / "small.onnx").metadata_props}
    assert json.loads(about["decoding"]) == said
    images = parity.example_images(SHAPE, seed=5)
    rows = []
    for stride, sizes in zip(said["priors"]["strides"], said["priors"]["sizes"], strict=True):
        for row in range(math.ceil(SHAPE[2] / stride)):
            for column in range(math.ceil(SHAPE[3] / stride)):
                rows += [((column + 0.5) * stride, (row + 0.5) * stride, size, size) for size in sizes]
    priors, (shift, grow) = torch.tensor(rows), said["variances"]
    with torch.no_grad():
        boxes, logits, landmarks = detector(images)
    centre, half = (
        priors[:, :2] + shift * boxes[..., :2] * priors[:, 2:],
        priors[:, 2:] * (grow * boxes[..., 2:]).exp() / 2,
    )
    points = priors[:, None, :2] + shift * landmarks.unflatten(-1, (5, 2)) * priors[:, None, 2:]
    found = torch.cat([centre - half, centre + half], -1), logits.softmax(-1)[..., said["logits"].index("face")], points
    for ours, theirs in zip(decoded(detector, images), (*found[:2], points.flatten(-2), priors), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)
    assert f"{shift} * (x, y)" in said["boxes"]
    assert f"exp({grow} * (w, h))" in said["boxes"]


def test_file_says_what_it_is(exported: Exported) -> None:
    """Model, version, the weights' fingerprint and the parity are in the file, and no path of this machine is."""
    path = exported.folder / "small.onnx"
    proto = onnx.load(path)
    about = {each.key: each.value for each in proto.metadata_props}
    assert about["model"] == "export_nets:small"
    assert json.loads(about["weights"])["sha256"] == hashlib.sha256(exported.weights.read_bytes()).hexdigest()
    shapes = [row["shape"] for row in json.loads(about["parity"])["checked"]]
    assert len(shapes) == 3
    assert any(shape[0] == 2 for shape in shapes)
    assert any(shape[2] != shape[3] for shape in shapes)
    assert proto.opset_import[0].version == 20
    content = path.read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b"site-packages" not in content


def test_axes_are_free_and_named(exported: Exported) -> None:
    """Batch, height and width of the input have names, and outputs are sized by them."""
    graph = onnx.load(exported.folder / "small.onnx").graph
    dims = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"]
    assert [each.name for each in graph.output] == ["boxes", "scores", "landmarks", "priors"]
    assert "height" in graph.output[3].type.tensor_type.shape.dim[0].dim_param


def test_record_lists_every_file(exported: Exported) -> None:
    """The record beside the files names each with its size, and nothing half-written lies there."""
    record = json.loads((exported.folder / "small.export.json").read_text())
    assert record == exported.record
    assert record["schema"] == "featherpress.export/1"
    assert {each["file"]: each["bytes"] for each in record["files"]} == {
        name: (exported.folder / name).stat().st_size for name in ("small.onnx", "small.pt2", "small.int8.onnx")
    }
    assert len(list(exported.folder.iterdir())) == 4
    assert record["input"] == {"name": "images", "shape": [-1, 3, -1, -1], "dynamic": ["batch", "height", "width"]}
    scores = record["evaluation"]
    assert scores["difference"] == scores["int8"]["score"] - scores["float32"]["score"]


def test_eight_bits_by_channel(exported: Exported) -> None:
    """Weights have a scale a channel; the last convolutions and those that say where to sample stay in float."""
    source, proto = (onnx.load(exported.folder / name) for name in ("small.onnx", "small.int8.onnx"))
    quantised = {each.name for each in proto.graph.initializer if each.data_type == onnx.TensorProto.INT8}
    assert quantised
    scales = {each.name: tuple(each.dims) for each in proto.graph.initializer}
    axes = [node for node in proto.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in quantised]
    assert any(scales[node.input[1]] == (8,) for node in axes)
    kept, convolutions = kept_in_float(source), [node for node in source.graph.node if node.op_type == "Conv"]
    # Three heads and the offsets at each of two levels; the blocks are not among them.
    assert len(kept) >= 2 * 4
    assert set(kept) < {node.name for node in convolutions}
    assert not set(kept) & {node.name for node in convolutions if tuple(node.attribute) and "images" in node.input}


def test_listing_says_how_it_was_quantised(print_plain: Printer, exported: Exported) -> None:
    """What is printed names the calibration, its images and how many convolutions stayed in float."""
    printed = print_plain(render_export(exported.record))
    [entry] = [each for each in exported.record["files"] if each["kind"] == "int8"]
    kept = entry["kept_in_float"]
    assert f"int8: activations by percentile of 2 images; {kept} convolutions kept in float\n" in printed
    without_teachers = exported.record | {
        "files": [entry | {"calibration": "none", "calibration_images": 0}],
        "evaluation": None,
    }
    assert "int8: weights alone, activations in float; " in print_plain(render_export(without_teachers))


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_record_says_how_it_was_calibrated(exported: Exported) -> None:
    """Record and file name operator set, calibration and images; nothing is so after a convolution by default."""
    [entry] = [each for each in exported.record["files"] if each["kind"] == "int8"]
    assert (entry["calibration"], entry["calibration_images"]) == ("percentile", 2)
    file = onnx.load(exported.folder / "small.int8.onnx")
    assert entry["opset"] == next(each.version for each in file.opset_import if not each.domain)
    about = {each.key: each.value for each in file.metadata_props}
    assert (about["calibration"], about["calibration_images"]) == ("percentile", "2")
    assert Export.model_validate(
        exported.record | {"evaluation": json.loads(about["evaluation"])}
    ) == Export.model_validate(exported.record)


@pytest.mark.parametrize("calibration", ["percentile", "minmax", "entropy"])
def test_calibrates_on_images_of_several_sizes(
    exported: Exported, tmp_path: Path, calibration: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each method takes images of different sizes, prints nothing, and gives a file that finds nearly the same."""
    shapes = [(1, 3, 64, 64), (1, 3, 64, 96), (1, 3, 96, 80)]
    images = iter([parity.example_images(shape, seed=shape[3]).numpy() for shape in shapes])
    source, target = exported.folder / "small.onnx", tmp_path / "q.onnx"
    quantize(source, target, images, count=3, how=Quantization(calibration=calibration, first=0.0))
    assert capsys.readouterr().out == ""
    assert operators(target)["QuantizeLinear"]
    seen = parity.example_images((1, 3, 64, 96), seed=96).numpy()
    ours, theirs = (Session(path, threads=1).run(seen)[1] for path in (source, target))
    assert 0 < abs(ours - theirs).max() < 0.1


def test_weights_that_are_computed_stay_in_float(tmp_path: Path) -> None:
    """They are no numbers of the file, so that there is nothing to make smaller, and the record must not say so."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Neg", ["w"], ["computed"]),
            onnx.helper.make_node("Conv", ["images", "computed"], ["middle"], name="one"),
            onnx.helper.make_node("Conv", ["middle", "w"], ["end"], name="two"),
        ],
        "computed",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 8, 8, 8])],
        [onnx.helper.make_tensor_value_info("end", onnx.TensorProto.FLOAT, [1, 8, 8, 8])],
        [from_array(np.ones((8, 8, 1, 1), np.float32), "w")],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "computed.onnx")
    how = Quantization(calibration="none")
    given: Any = (tmp_path / "computed.onnx", tmp_path / "q.onnx", iter(()))
    assert quantize(*given, count=0, how=how, nodes=["one", "two"]) == ["one"]


def test_two_products_never_leave_sixteen_bits(tmp_path: Path) -> None:
    """Beside activations in eight bits a weight is at most 64 steps, so that no processor cuts off what it adds."""
    channels = 64
    weights = np.full((channels, channels, 1, 1), 1 / channels, np.float32)
    bias = np.zeros(channels, np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["images", "w", "b"], ["middle"], name="one"),
            onnx.helper.make_node("Conv", ["middle", "w", "b"], ["end"], name="two"),
        ],
        "flat",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, channels, 8, 8])],
        [onnx.helper.make_tensor_value_info("end", onnx.TensorProto.FLOAT, [1, channels, 8, 8])],
        [from_array(weights, "w"), from_array(bias, "b")],
    )
    source, target = tmp_path / "flat.onnx", tmp_path / "q.onnx"
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), source)
    ones = np.ones((1, channels, 8, 8), np.float32)
    quantize(source, target, iter([ones]), count=1, how=Quantization(calibration="minmax"), nodes=["one", "two"])
    steps = [to_array(each) for each in onnx.load(target).graph.initializer if each.data_type == onnx.TensorProto.INT8]
    assert max(abs(each.astype(int)).max() for each in steps) == 64
    assert abs(Session(target, threads=1).run(ones)[0] - 1).max() < 0.02


def test_weights_alone_in_eight_bits(exported: Exported, tmp_path: Path) -> None:
    """Without calibration no activation is quantised, each weight is within half a step, and the file is smaller."""
    source, target = exported.folder / "small.onnx", tmp_path / "q.onnx"
    quantize(source, target, iter(()), count=0, how=Quantization(calibration="none", first=0.0))
    found = operators(target)
    assert found["DequantizeLinear"]
    assert not found["QuantizeLinear"]
    before, after = ({each.name: each for each in onnx.load(path).graph.initializer} for path in (source, target))
    turned = [name.removesuffix("_int8") for name, each in after.items() if each.data_type == onnx.TensorProto.INT8]
    for name in turned:
        assert name not in after
        weights, steps, scale = map(to_array, (before[name], after[f"{name}_int8"], after[f"{name}_scale"]))
        scale = scale.reshape(-1, 1, 1, 1)
        assert (abs(steps * scale - weights) <= 0.5001 * scale).all()
    seen = parity.example_images((1, 3, 64, 96), seed=2).numpy()
    ours, theirs = (Session(path, threads=1).run(seen)[1] for path in (source, target))
    assert 0 < abs(ours - theirs).max() < 0.05


def test_first_convolutions_hold_little(exported: Exported) -> None:
    """Those named come first in the graph, hold at most their share, and one more would hold more than it."""
    proto = onnx.load(exported.folder / "small.onnx")
    order = [node for node in proto.graph.node if node.op_type == "Conv"]
    sizes = {each.name: to_array(each).size for each in proto.graph.initializer}
    share = 0.25
    named = first_convolutions(proto, share=share)
    assert named == [node.name for node in order[: len(named)]]
    held = [sum(sizes[node.input[1]] for node in order[:count]) for count in (len(named), len(named) + 1)]
    assert 0 < held[0] <= share * sum(sizes.values()) < held[1]
    assert first_convolutions(proto, share=0.0) == []


def test_exported_detector_stands_in_for_the_model(exported: Exported, detector: Detector) -> None:
    """A graph that decodes gives raw outputs back, so that one evaluation serves both."""
    images = parity.example_images((1, 3, 64, 96), seed=2)
    stand_in = SessionDetector(Session(exported.folder / "small.onnx", threads=1), detector)
    with torch.no_grad():
        for ours, theirs in zip(detector(images), stand_in(images), strict=True):
            if ours.shape[-1] == 2:
                ours, theirs = ours.softmax(-1), theirs.softmax(-1)  # noqa: PLW2901  (logits are known up to a constant)
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)


def test_deformable_convolution_in_both_forms(exported: Exported, nets: Path) -> None:
    """A deformable convolution is samples unless ONNX's own operator is wanted, and either computes the same."""
    assert "GridSample" in {node.op_type for node in onnx.load(exported.folder / "small.onnx").graph.node}
    subject = find_subject("export_nets:small", None, options=GraphOptions(deformable="operator"))
    proto = convert(subject, capture(subject), opset=22)
    assert "DeformConv" in {node.op_type for node in proto.graph.node}
    path = nets / "operator.onnx"
    path.write_bytes(proto.SerializeToString())
    session = Session(path, threads=1)
    found = parity.check_parity(
        subject, lambda images: [torch.from_numpy(each) for each in session.run(images.numpy())], what="the file"
    )
    assert found.largest < 1e-4


def test_norms_are_folded_unless_told() -> None:
    """A graph has no BatchNorm of its own; with `--no-fuse` the model is traced as it is, on a copy."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    folded, kept = (
        find_subject("", None, options=GraphOptions(fuse=each), side=8, model=model).module for each in (True, False)
    )
    assert isinstance(folded[1], nn.Identity)
    assert isinstance(kept[1], nn.BatchNorm2d)
    assert kept is not model


def request(target: str, folder: Path, **settings: Any) -> ExportRequest:
    return ExportRequest(target=target, weights=None, out=folder / "net.onnx", side=8, **settings)


def test_operator_without_counterpart_is_named(nets: Path, tmp_path: Path) -> None:
    """A model with an operator that ONNX lacks is refused by the operator and its module, and nothing is written."""
    with pytest.raises(ExportError, match=r"aten\.special_airy_ai, used in '1', has no counterpart"):
        export(request("export_nets:airy", tmp_path))
    assert list(tmp_path.iterdir()) == []
    record = export(request("export_nets:airy", tmp_path, onnx=False, program=True))
    assert [each["kind"] for each in record["files"]] == ["program"]


def test_branch_on_values_is_refused(nets: Path, tmp_path: Path) -> None:
    """A model whose code depends on its values cannot be traced, and the sentence says so."""
    with pytest.raises(ExportError, match=r"cannot be traced by torch\.export: .*data-dependent"):
        export(request("export_nets:branch", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_anyones_model_of_one_size(nets: Path, tmp_path: Path, print_plain: Printer) -> None:
    """With --input a file takes one image of that size, and the listing says what made weights; none is replaced."""
    record = export(request("export_nets:classifier", tmp_path))
    assert record["input"] == {"name": "images", "shape": [1, 3, 8, 8], "dynamic": []}
    assert "without --weights: they are random" in print_plain(render_export(record))
    session = Session(tmp_path / "net.onnx", threads=1)
    assert session.size == (8, 8)
    images = parity.example_images((1, 3, 8, 8))
    model = load_factory("export_nets:classifier").eval()
    torch.testing.assert_close(torch.from_numpy(session.run(images.numpy())[0]), model(images).detach())
    free = find_subject("export_nets:classifier", None, options=GraphOptions(), side=8)
    assert [*free.dynamic.values()] == ["batch"]
    with pytest.raises(UsageError, match="exists already; add --overwrite"):
        export(request("export_nets:classifier", tmp_path))


def test_failed_parity_leaves_nothing(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that differs from torch is an error with the output and the difference, and no file."""
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match=r"does not compute what .* does: output differs by"):
        export(request("export_nets:classifier", tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_program_on_a_full_disk(nets: Path) -> None:
    """The disk's own error comes through, where PyTorch, writing by itself, would end the process."""
    subject = find_subject("export_nets:classifier", None, options=GraphOptions(), side=8)
    with pytest.raises(OSError, match="No space left on device"):
        _write_program(capture(subject), subject, {}, Path("/dev/full"))


@pytest.mark.parametrize("wrong", [float("nan"), 0.01])
def test_parity_sees_what_differs(nets: Path, wrong: float) -> None:
    """A number that is none, and a difference above the tolerance, fail; the model itself passes."""
    subject = find_subject("export_nets:classifier", None, options=GraphOptions(), side=8)

    def forward(add: float) -> Callable[[Tensor], list[Tensor]]:
        return lambda images: [each + add for each in flat_outputs(subject.original(images))]

    assert parity.check_parity(subject, forward(0.0), what="itself").largest == 0
    with pytest.raises(ExportError):
        parity.check_parity(subject, forward(wrong), what="another")


def test_missing_packages_are_named(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, one sentence says what to install."""
    monkeypatch.setitem(extras.PACKAGES, "export", ("onnx", "no_such_package"))
    with pytest.raises(UsageError, match=r"needs no-such-package; install with: pip install 'featherpress\[export\]'"):
        export(request("export_nets:classifier", tmp_path))
