"""Non-maximum suppression at the end of an exported graph, and whether it keeps what torchvision's keeps."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from featherpress.compress.deployment.graphs import Subject
from featherpress.compress.deployment.parity import example_images
from featherpress.compress.deployment.sessions import Session
from featherpress.compress.evaluation.detector.settings import TOP_K
from featherpress.errors import ExportError

OUTPUTS = ("boxes", "scores", "landmarks", "images_of_faces")
"""What comes out: the faces of all images in a row, and the number of the image that each is in."""


def suppress(path: Path, subject: Subject, *, iou: float, threshold: float) -> int:
    """Let a decoded detector's file suppress: of overlapping boxes from a score on the best stays, TOP_K an image.

    Returns how many nodes it then has.

    Errors: `ExportError` where torchvision keeps others.
    """
    import onnx  # noqa: PLC0415  (optional)

    images = example_images(subject.shapes[-1]).numpy()
    before = Session(path, threads=1).run(images)
    proto = onnx.load(path)
    _add(proto, iou=iou, threshold=threshold)
    path.write_bytes(proto.SerializeToString())
    boxes, scores, _, numbers = Session(path, threads=1).run(images)
    everything, sure = torch.from_numpy(before[0]), torch.from_numpy(before[1])
    image, prior = (sure > threshold).nonzero(as_tuple=True)
    kept = batched_nms(everything[image, prior], sure[image, prior], image, iou)
    expected = sorted(zip(image[kept].tolist(), sure[image, prior][kept].tolist(), strict=True))
    found = sorted(zip(numbers.tolist(), scores.tolist(), strict=True))
    if len(boxes) != len(scores) or (len(kept) <= TOP_K and not _same(found, expected)):
        raise ExportError(f"the graph keeps {len(found)} faces, torchvision's suppression {len(expected)}")
    return len(proto.graph.node)


def _same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> bool:
    return len(found) == len(expected) and bool(np.allclose(found, expected, atol=1e-6))


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
