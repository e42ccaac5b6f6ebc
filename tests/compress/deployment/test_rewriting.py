"""Graphs made simpler and older, files of one size, and suppression in the graph: what they compute stays."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import RenderableType
from torchvision.ops import nms

from featherpress.compress.data import SyntheticFaces
from featherpress.compress.deployment import parity
from featherpress.compress.deployment.exporting import ExportRequest, Int8Request, export
from featherpress.compress.deployment.graphs import GraphOptions, find_subject
from featherpress.compress.deployment.listing import render_export
from featherpress.compress.deployment.sessions import Session, SessionDetector
from featherpress.compress.deployment.suppression import _compare, suppress
from featherpress.compress.evaluation.detector.inference import detect_faces
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.errors import ExportError, UsageError
from featherpress.models import Detector
from featherpress.models.factories import load_factory
from tests.compress.deployment.conftest import Exported

pytestmark = pytest.mark.needs_torch("2.9", "exporting")


def test_a_graph_is_of_the_oldest_operator_set_and_of_plain_operators(nets: Path, tmp_path: Path) -> None:
    """Pools are global ones, the mean over channels and products with numbers convolutions; 17, and what was asked."""
    for opset, version in ((None, 17), (18, 18), (21, 21)):
        record = export(
            ExportRequest(
                target="export_nets:gates", weights=None, out=tmp_path / f"{version}.onnx", opset=opset, side=32
            )
        )
        assert record["files"][0]["opset"] == version
        proto = onnx.load(tmp_path / f"{version}.onnx")
        onnx.checker.check_model(proto, full_check=True)
        kinds = Counter(node.op_type for node in proto.graph.node)
        assert (kinds["GlobalAveragePool"], kinds["GlobalMaxPool"], kinds["ReduceMean"], kinds["ReduceMax"]) == (
            1,
            1,
            0,
            1,
        )
        assert kinds["Conv"] == 5 + 1 + 2
        convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
        assert all("kernel_shape" in {each.name for each in node.attribute} for node in convolutions)
        [largest] = [node for node in proto.graph.node if node.op_type == "ReduceMax"]
        assert len(largest.input) == (1 if version == 17 else 2)


def test_an_operator_set_that_is_too_old_is_refused(exported: Exported, tmp_path: Path) -> None:
    """GridSample computes what torch does since 20."""
    request = ExportRequest(target="export_nets:small", weights=exported.weights, out=tmp_path / "old.onnx", opset=17)
    with pytest.raises(ExportError, match="needs the operator set 20, 17 was asked for"):
        export(request)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def fixed(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small detector for one image of 96 x 96, in eight bits too."""
    out = tmp_path_factory.mktemp("fixed") / "fixed.onnx"
    int8 = Int8Request(
        calibration=SyntheticFaces(length=1, seed=0, size=(64, 80)),
        validation=SyntheticFaces(length=2, seed=1, size=(80, 64)),
        about={"name": "synthetic faces", "split": "val"},
        side=96,
    )
    request = ExportRequest(target="export_nets:small", weights=exported.weights, out=out, side=96, int8=int8)
    record = export(request)
    assert record["input"] == {"name": "images", "shape": [1, 3, 96, 96], "dynamic": []}
    assert record["evaluation"]["protocol"]["test_scale"] == "long side 96"
    return out


def test_a_file_of_one_size_sees_smaller_images_too(fixed: Path, nets: Path) -> None:
    """Nothing is free in it, and a smaller image is to it an image with the mean beyond."""
    [given] = onnx.load(fixed).graph.input
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [1, 3, 96, 96]
    model = load_factory("export_nets:small").eval()
    assert isinstance(model, Detector)
    image = SyntheticFaces(length=1, seed=1, size=(80, 64))[0].image
    settings = DetectionSettings(score_threshold=0.3)
    found = detect_faces(SessionDetector(Session(fixed, threads=1), model), image, settings=settings)
    assert len(found)
    images = parity.example_images((1, 3, 80, 64))
    with torch.no_grad():
        expected = model(torch.nn.functional.pad(images, (0, 32, 0, 16)))
    outputs = SessionDetector(Session(fixed, threads=1), model)(images)
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_detector_of_too_few_pixels_is_refused(exported: Exported, tmp_path: Path) -> None:
    """Below 64 pixels it has no levels left."""
    request = ExportRequest(target="export_nets:small", weights=exported.weights, out=tmp_path / "a.onnx", side=32)
    with pytest.raises(UsageError, match="64 pixels a side or more, got --input 32"):
        export(request)


def test_suppression_in_the_graph(
    exported: Exported, nets: Path, tmp_path: Path, print_plain: Callable[[RenderableType], str]
) -> None:
    """Of a batch, what `detect` would keep of each image, best first, and the image that each is in."""
    out = tmp_path / "nms.onnx"
    request = ExportRequest(
        target="export_nets:small",
        weights=exported.weights,
        out=out,
        options=GraphOptions(decode=True),
        nms=0.4,
        threshold=0.3,
    )
    record = export(request)
    assert record["outputs"] == ["boxes", "scores", "landmarks", "images_of_faces"]
    assert record["suppression"] == {"iou": 0.4, "threshold": 0.3}
    proto = onnx.load(out)
    assert record["files"][0]["nodes"] == len(proto.graph.node)
    compared = record["files"][0]["suppression"]
    assert json.loads({each.key: each.value for each in proto.metadata_props}["suppression_compared"]) == compared
    assert [row["threshold"] for row in compared["kept"]][-1] == 0.3
    faces = compared["kept"][-1]["faces"]
    printed = " ".join(print_plain(render_export(record)).split())
    assert f"keeps the same faces as torchvision.ops.batched_nms, at 1x3x333x250: {faces} faces from 0.3 on" in printed
    assert all(row["faces"] for row in compared["kept"])
    raw, first = onnx.load(exported.folder / "small.onnx"), Session(exported.folder / "small.onnx", threads=1)
    del raw.graph.output[3:]
    few = tmp_path / "few.onnx"
    onnx.save(raw, few)
    subject = find_subject("export_nets:small", exported.weights, options=GraphOptions(decode=True))
    compared = suppress(few, subject, iou=0.4, threshold=1.0)
    assert [row["faces"] > 0 for row in compared["kept"]] == [True, False]
    assert len(Session(few, threads=1).run(np.zeros((1, 3, 64, 64), np.float32))[0]) == 0
    onnx.save(raw, few)
    assert suppress(few, subject, iou=1.0, threshold=0.0)["kept"][-1] == {"threshold": 0.0, "faces": 750}
    boxes, scores = map(torch.from_numpy, first.run(parity.example_images((1, 3, 64, 64)).numpy())[:2])
    kept = nms(boxes[0], scores[0], 0.4)
    right = [boxes[0][kept].numpy(), scores[0][kept].numpy()]
    assert _compare(right, boxes[0], scores[0], iou=0.4, threshold=0.0) == len(kept)
    with pytest.raises(ExportError, match=r"the graph keeps \d+ faces, torchvision's suppression \d+"):
        _compare([each[1:] for each in right], boxes[0], scores[0], iou=0.4, threshold=0.0)
    images = parity.example_images((2, 3, 96, 80), seed=3)
    boxes, scores, landmarks, numbers = Session(out, threads=1).run(images.numpy())
    whole = Session(exported.folder / "small.onnx", threads=1).run(images.numpy())
    assert 0 < len(boxes) < int((whole[1] > 0.3).sum())
    assert boxes.shape == (len(scores), 4)
    assert landmarks.shape == (len(scores), 10)
    for number in (0, 1):
        mine = scores[numbers == number]
        assert (np.diff(mine) <= 0).all()
        rows = torch.from_numpy(whole[0][number]), torch.from_numpy(whole[1][number])
        sure = rows[1] > 0.3
        kept = nms(rows[0][sure], rows[1][sure], 0.4)
        np.testing.assert_allclose(mine, rows[1][sure][kept], atol=1e-6)
        np.testing.assert_allclose(boxes[numbers == number], rows[0][sure][kept], atol=1e-3)
