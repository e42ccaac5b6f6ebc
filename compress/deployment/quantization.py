"""ONNX files in eight bits: weights of convolutions by channel, and their inputs, calibrated on images."""

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from featherpress.compress.data import SampleDataset
from featherpress.compress.deployment.conversion import INPUT
from featherpress.compress.deployment.quiet import quiet
from featherpress.compress.deployment.rewriting import made_convolutions
from featherpress.compress.evaluation.detector.preprocess import pad_to, scale_to
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import ExportError
from featherpress.models import normalize
from featherpress.models.detectors import LEAST_SIDE

if TYPE_CHECKING:
    import onnx

Images = npt.NDArray[np.float32]

Calibration = Literal["percentile", "minmax", "entropy", "none"]

_QUANTIZED = ("Conv",)
"""Activations, resampling and fusion weights stay in float: they are cheap, and their ranges differ by image."""
_ACTIVATIONS = ("LeakyRelu", "Relu", "Clip")
"""In eight bits where the convolution before them is, so that a runtime computes both at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Convolutions to quantise, by name; with `outputs` what comes out of them too, or their weights alone."""

    nodes: tuple[str, ...]
    outputs: bool = True
    weights_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a file is quantised to eight bits; the defaults lost least on training photographs.

    `plan` says which convolutions are: `all`, those that `auto` finds to be faster, or those that were chosen.

    `calibration` says how the range of what goes into a convolution is found on images: up to a `percentile` of its
    values, up to the largest, or by the least entropy lost; `none` leaves it in float and quantises weights only. The
    first convolutions that together hold at most `first` of all weights stay in float. `outputs` quantises what comes
    out of a convolution too, before its activation.
    """

    plan: str | Chosen = "all"
    calibration: Calibration = "percentile"
    percentile: float = 99.999
    first: float = 0.01
    outputs: bool = False


def calibration_images(dataset: SampleDataset, count: int, *, side: int = 0) -> Iterator[Images]:
    """Read the first images of a data set as a detector sees them, one at a time; with `side` scaled to fill a square.

    Shapes: each (1, 3, H, W), H and W at least 64, and `side` where it is given.
    """
    with Progress("calibrating", total=count) as progress:
        for index in range(count):
            image = scale_to(dataset[index].image, side)
            yield pad_to(normalize(image[None]), side or LEAST_SIDE).numpy()
            progress.advance()


def quantize(
    source: Path,
    target: Path,
    images: Iterator[Images],
    *,
    count: int,
    how: Quantization,
    nodes: Sequence[str] | None = None,
    outputs: bool = True,
) -> list[str]:
    """Quantise an ONNX file with `count` images, and return the convolutions that were kept in float.

    Weights are int8 with a scale a channel, activations uint8 with the range seen on the images; beside activations in
    eight bits weights have seven, since x86 without VNNI adds two products in 16 bits. With `nodes` these
    convolutions alone are quantised, and unless `outputs` is false what comes out of them and the activations after
    them too.

    Errors: `ExportError` when onnxruntime cannot quantise the file.
    """
    import onnx  # noqa: PLC0415  (optional)

    proto = onnx.load(source)
    convolutions = {node.name: node.input[1] for node in proto.graph.node if node.op_type == "Conv"}
    hurt = hurt_convolutions(proto, share=how.first) if nodes is None else convolutions.keys() - {*nodes}
    known = {each.name for each in proto.graph.initializer}
    alone = how.calibration == "none"
    kept = [name for name, weights in convolutions.items() if name in hurt or (alone and weights not in known)]
    if alone:
        _quantize_weights(proto, kept)
        onnx.save(proto, target)
        return kept
    try:
        # Its histograms are announced on standard output, image by image.
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            whole = nodes is not None and outputs
            others = _activations_of(proto, kept) if whole else []
            _quantize_static(source, target, _reader(images, count), how, [*kept, *others], whole=whole)
    except (ValueError, RuntimeError, TypeError, KeyError, AssertionError) as error:
        raise ExportError(f"onnxruntime cannot quantise {source.name}: {str(error).splitlines()[0][:300]}") from error
    return kept


def _activations_of(proto: "onnx.ModelProto", kept: list[str]) -> list[str]:
    """Name the activations of what stays in float."""
    nodes = proto.graph.node
    quantized = {node.output[0] for node in nodes if node.op_type == "Conv" and node.name not in kept}
    return [node.name for node in nodes if node.op_type in _ACTIVATIONS and node.input[0] not in quantized]


def _quantize_static(
    source: Path, target: Path, reader: Any, how: Quantization, kept: list[str], *, whole: bool
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    # One image at a time: histograms of several want them of one size, and all would be held at once.
    options: dict[str, Any] = {"CalibStridedMinMax": 1, "CalibPercentile": how.percentile}
    if not (how.outputs or whole):
        options["OpTypesToExcludeOutputQuantization"] = list(_QUANTIZED)
    quantize_static(
        source,
        target,
        reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*_QUANTIZED, *(_ACTIVATIONS if whole else ())],
        per_channel=True,
        reduce_range=True,  # of weights: two products of 255 x 64 fit into 16 bits, of 255 x 127 they do not
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        calibrate_method=methods[how.calibration],
        extra_options=options,
    )


def _quantize_weights(proto: "onnx.ModelProto", kept: list[str]) -> None:
    """Put DequantizeLinear and int8 in the place of each convolution's weights, with a scale a channel."""
    from onnx import helper, numpy_helper  # noqa: PLC0415  (optional)

    weights = {each.name: each for each in proto.graph.initializer}
    added: dict[str, Any] = {}
    for node in proto.graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        if node.op_type not in _QUANTIZED or node.name in kept:
            continue
        if name not in added:
            values = numpy_helper.to_array(weights[name])
            peak = np.abs(values).reshape(len(values), -1).max(axis=1).reshape(-1, *[1] * (values.ndim - 1))
            scale = np.where(peak > 0, peak, 1).astype(np.float32) / 127
            steps = np.round(values / scale).astype(np.int8)
            proto.graph.initializer.append(numpy_helper.from_array(steps, f"{name}_int8"))
            proto.graph.initializer.append(numpy_helper.from_array(scale.reshape(-1), f"{name}_scale"))
            inputs = [f"{name}_int8", f"{name}_scale"]
            added[name] = helper.make_node("DequantizeLinear", inputs, [f"{name}_float"], name=f"{name}_float", axis=0)
        node.input[1] = f"{name}_float"
    read = Counter(name for node in proto.graph.node for name in node.input)
    nodes = [*added.values(), *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for name in added:
        if not read[name]:
            proto.graph.initializer.remove(weights[name])


def hurt_convolutions(proto: "onnx.ModelProto", *, share: float) -> set[str]:
    """Name the convolutions that lose more by eight bits than is gained: the first, up to this share, and others."""
    return {*kept_in_float(proto), *first_convolutions(proto, share=share), *made_convolutions(proto)}


def first_convolutions(proto: "onnx.ModelProto", *, share: float) -> list[str]:
    """Name the first convolutions that together hold at most this share of all weights.

    They see the image at its full size, their ranges are the widest, and what they would save is nothing.
    """
    sizes = {each.name: int(np.prod(each.dims)) for each in proto.graph.initializer}
    left = share * sum(sizes.values())
    names = []
    for node in proto.graph.node:
        if node.op_type == "Conv":
            left -= sizes.get(node.input[1], 0)
            if left < 0:
                break
            names.append(node.name)
    return names


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


def _reader(images: Iterator[Images], count: int) -> Any:
    """Wrap images in the class that onnxruntime asks, which is not there to subclass without the extra."""
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left = count

        def __len__(self) -> int:
            return count

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = end_index - start_index

        def get_next(self) -> dict[str, Images] | None:
            self.left -= 1
            image = next(images, None) if self.left >= 0 else None
            return None if image is None else {INPUT: image}

    return Reader()
