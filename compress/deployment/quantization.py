"""ONNX files in eight bits: convolutions and what lies between them, calibrated on images, per channel."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from featherpress.compress.data import FaceDataset
from featherpress.compress.deployment.conversion import INPUT
from featherpress.compress.deployment.extras import quiet
from featherpress.compress.deployment.graphs import LEAST_SIDE
from featherpress.compress.progress import Progress
from featherpress.errors import ExportError
from featherpress.models import normalize

if TYPE_CHECKING:
    import onnx

__all__ = ["calibration_images", "kept_in_float", "quantize"]

Images = npt.NDArray[np.float32]

_QUANTIZED = ("Conv",)
"""Gates, resampling and fusion weights stay in float: they are cheap, and their ranges differ by image."""


def calibration_images(dataset: FaceDataset, count: int) -> Iterator[Images]:
    """Read the first images of a data set as a detector sees them, one at a time.

    Shapes: each (1, 3, H, W), H and W at least 64.
    """
    total = min(count, len(dataset))
    with Progress("calibrating", total=total) as progress:
        for index in range(total):
            image = dataset[index].image
            rows, columns = image.shape[-2:]
            missing = (0, max(LEAST_SIDE - columns, 0), 0, max(LEAST_SIDE - rows, 0))
            yield torch.nn.functional.pad(normalize(image[None]), missing).numpy()
            progress.advance()


def quantize(source: Path, target: Path, images: Iterator[Images]) -> list[str]:
    """Write an ONNX file's eight-bit twin, and return the nodes that were kept in float.

    Weights are int8 with a scale a channel, activations uint8 with the range seen on the images.

    Errors: `ExportError` when onnxruntime cannot quantise the file.
    """
    import onnx  # noqa: PLC0415  (optional)
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    kept = kept_in_float(onnx.load(source))
    try:
        with quiet():
            quantize_static(
                source,
                target,
                _reader(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
            )
    except (ValueError, RuntimeError, TypeError, KeyError, AssertionError) as error:
        raise ExportError(f"onnxruntime cannot quantise {source.name}: {str(error).splitlines()[0][:300]}") from error
    return kept


def kept_in_float(proto: "onnx.ModelProto") -> list[str]:
    """Name the convolutions that eight bits hurt: the heads' last, and those that say where samples are taken.

    An output's range is set by its rarest values, and all others share what is left of 256 steps.
    """
    producers = {name: node for node in proto.graph.node for name in node.output}
    positions = [
        name
        for node in proto.graph.node
        for name in {"GridSample": node.input[1:2], "DeformConv": node.input[2:]}.get(node.op_type, ())
    ]
    starts = [output.name for output in proto.graph.output] + positions
    return sorted({node for start in starts for node in _nearest_convolutions(start, producers)})


def _nearest_convolutions(start: str, producers: "dict[str, Any]") -> Iterator[str]:
    """Walk back from a value to the first convolutions on every path."""
    waiting, seen = [start], set[str]()
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            yield node.name
        else:
            waiting += node.input


def _reader(images: Iterator[Images]) -> Any:
    """Wrap images in the class that onnxruntime asks, which is not there to subclass without the extra."""
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Images] | None:
            image = next(images, None)
            return None if image is None else {INPUT: image}

    return Reader()
