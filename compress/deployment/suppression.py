"""Non-maximum suppression at the end of an exported graph, and whether it keeps what torchvision's keeps."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from featherpress.compress.deployment.graphs import Subject
from featherpress.compress.deployment.parity import example_images
from featherpress.compress.deployment.sessions import Session
from featherpress.compress.evaluation.detector.settings import TOP_K
from featherpress.errors import ExportError

OUTPUTS = ("boxes", "scores", "landmarks", "images_of_faces")
"""What comes out: the faces of all images in a row, and the number of the image that each is in."""


_COMPARED = 100
"""So many of the best boxes are compared at least, whatever the threshold leaves."""


def suppress(path: Path, subject: Subject, *, iou: float, threshold: float) -> dict[str, Any]:
    """Let a decoded detector's file suppress: of overlapping boxes from a score on the best stays, TOP_K an image.

    Returns what was compared with torchvision's suppression, on one image; the file's metadata say it too.

    Errors: `ExportError` where torchvision keeps others.
    """
    import onnx  # noqa: PLC0415  (optional)

    decoded, shape = onnx.load(path), subject.shapes[-1]
    images = example_images(shape).numpy()
    boxes, scores = map(torch.from_numpy, Session(path, threads=1).run(images)[:2])
    best = scores.flatten().sort(descending=True).values[: _COMPARED + 1].tolist()
    between = [(upper + lower) / 2 for upper, lower in pairwise(best)][-1:]
    compared: dict[str, Any] = {"with": "torchvision.ops.batched_nms", "shape": list(shape), "kept": []}
    for least in sorted({threshold, min(threshold, *between, 1.0)}):  # the file's own last
        proto = onnx.ModelProto()
        proto.CopyFrom(decoded)
        _add(proto, iou=iou, threshold=least)
        path.write_bytes(proto.SerializeToString())
        found = Session(path, threads=1).run(images)
        faces = _compare(found, boxes[0], scores[0], iou=iou, threshold=least)
        compared["kept"].append({"threshold": least, "faces": faces})
    proto.metadata_props.add(key="suppression_compared", value=json.dumps(compared))
    path.write_bytes(proto.SerializeToString())
    return compared


def _compare(found: list[NDArray[Any]], boxes: Tensor, scores: Tensor, *, iou: float, threshold: float) -> int:
    """Return how many faces of an image are kept, by the graph as by torchvision."""
    sure = scores > threshold
    kept = batched_nms(boxes[sure], scores[sure], torch.zeros(int(sure.sum())), iou)[:TOP_K]
    expected, ours = scores[sure][kept].sort().values.numpy(), np.sort(found[1])
    if len(found[0]) != len(ours) or len(ours) != len(expected) or not np.allclose(ours, expected, atol=1e-6):
        raise ExportError(f"the graph keeps {len(ours)} faces, torchvision's suppression {len(expected)}")
    return len(ours)


def _add(proto: Any, *, iou: float, threshold: float) -> None:
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415  (optional)

    graph, given = proto.graph, OUTPUTS[:3]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"all_{name}" if name in given else name for name in names]
    numbers = {"one": [1], "most": TOP_K, "which": [0, 2], "first": 0}
    values: dict[str, NDArray[Any]] = {name: np.array(value, np.int64) for name, value in numbers.items()}
    values |= {"iou": np.array(iou, np.float32), "least": np.array(threshold, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(value, f"nms_{name}") for name, value in values.items())
    least = [f"nms_{name}" for name in ("most", "iou", "least")]
    nodes = [
        ("Unsqueeze", ["all_scores", "nms_one"], "nms_scores"),
        ("NonMaxSuppression", ["all_boxes", "nms_scores", *least], "nms_selected"),
        ("Gather", ["nms_selected", "nms_which"], "nms_places"),
        *(("GatherND", [f"all_{name}", "nms_places"], name) for name in given),
        ("Gather", ["nms_selected", "nms_first"], OUTPUTS[3]),
    ]
    for kind, inputs, out in nodes:
        axis = {"axis": 1} if kind == "Gather" else {}
        graph.node.append(helper.make_node(kind, inputs, [out], f"node_{out}", None, None, None, **axis))
    del graph.output[:]
    for name, sizes in zip(given, ([4], [], [10]), strict=True):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["faces", *sizes]))
    graph.output.append(helper.make_tensor_value_info(OUTPUTS[3], TensorProto.INT64, ["faces"]))
