"""One rule per operator: what becomes of the labels. An operator without one locks all that goes in."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from featherpress.budgets.counting.operators import facts_of
from featherpress.compress.pruning.calls import bind, tensors_of
from featherpress.compress.pruning.parts import PARTS, lock_axes, same_axes, still
from featherpress.compress.pruning.products import PRODUCTS, meet
from featherpress.compress.pruning.tracing import Rule, Tracer
from featherpress.compress.pruning.views import VIEWS


def pointwise(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Each element by itself: axes that meet are the same."""
    results = tensors_of(out)
    given = tensors_of((args, kwargs))
    for result in results:
        axes = same_axes(tracer, given, result)
        tracer.give(result, axes)
        wide = [each for each in given if each.shape == result.shape]
        biases = [owner for each in given if each.dim() == 1 and (owner := tracer.owner(each))]
        if tracer.key[2] == "aten::add" and len(given) == 2 and len(wide) == len(biases) == 1:
            tracer.origins.extend(wide[0], result, biases[0])
        if tracer.key[2] in _LINEAR and len(wide) == 1 and all(each.dim() == 0 or each is wide[0] for each in given):
            tracer.origins.move(wide[0], result, lambda array: array)


def unknown(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Lock all that goes in."""
    for tensor in tensors_of((args, kwargs)):
        tracer.lock(tensor, f"goes into {tracer.key[2].removeprefix('aten::')}, for which there is no rule")
    for result in tensors_of(out):
        tracer.give(result, [None] * result.dim())


def follow_unknown(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Follow what PyTorch calls pointwise, and nothing else."""
    facts = facts_of(func)
    is_pointwise = facts.name.startswith("aten::") and torch.Tag.pointwise in getattr(func, "tags", ())
    (pointwise if is_pointwise else unknown)(tracer, func, args, kwargs, out)


def make(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Make a tensor of a given shape, of which no axis can shrink; the one given says only the type."""
    tracer.give(out, [None] * out.dim())


def glu(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """One half of an axis weighs the other."""
    axis = bind(func, args, kwargs)["dim"] % out.dim()
    axes = list(tracer.of(args[0]))
    ids = axes[axis]
    if ids is not None:
        half = len(ids) // 2
        tracer.labels.same(ids[:half], ids[half:])
        axes[axis] = ids[:half]
    tracer.give(out, axes)


def spatial(many: int) -> Rule:
    """Make the rule of pooling and resampling: the last axes are sampled, those before them stay."""

    def rule(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        for result in tensors_of(out):
            last = set(range(result.dim() - many, result.dim()))
            lock_axes(tracer, args[0], result, last, "pooled or resized along it")
        for tensor in tensors_of(args[1:]):
            tracer.lock(tensor, "its values are places to sample at")

    return rule


def pad(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Put constant positions around axes, the last first."""
    axes = list(tracer.of(args[0]))
    for place in range(0, len(args[1]), 2):
        axis = out.dim() - 1 - place // 2
        ids, around = axes[axis], args[1][place : place + 2]
        if ids is None or not any(around):
            continue
        if min(around) < 0:
            tracer.labels.lock(ids, "cropped by the code")
            axes[axis] = None
        else:
            parts = [still(tracer, size, place + side) for side, size in enumerate(around)]
            axes[axis] = np.concatenate([parts[0], ids, parts[1]])
    tracer.give(out, axes)


def reduced(many: int, dims: Any) -> set[int]:
    """Return which of so many axes are reduced; none named is all of them."""
    dims = [dims] if isinstance(dims, int) else dims
    return {axis % many for axis in dims} if dims else set(range(many))


def reduction(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Reduce axes; channels that are reduced over can still go."""
    named = bind(func, args, kwargs)
    source = args[0]
    gone = reduced(source.dim(), named.get("dim"))
    for result in tensors_of(out):
        kept = [None if axis in gone else ids for axis, ids in enumerate(tracer.of(source))]
        if result.dim() != source.dim():
            kept = [ids for axis, ids in enumerate(kept) if axis not in gone]
        tracer.give(result, kept)


def along(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Softmax, sums along an axis and the like: the axis is locked."""
    axis = bind(func, args, kwargs)["dim"]
    name = tracer.key[2].removeprefix("aten::").strip("_")
    for result in tensors_of(out):
        lock_axes(tracer, args[0], result, reduced(args[0].dim(), axis), f"{name} runs along it")


def batch_norm(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Weight, bias, mean and variance have one number a channel."""
    axes = tracer.of(args[0])
    for each in tensors_of(args[1:5]):
        meet(tracer, axes[1], tracer.of(each)[0], each.shape[0])
    result = tensors_of(out)[0]
    tracer.give(result, axes)


def layer_norm(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Normalise over the last axes, whose weight and bias are as wide."""
    axes = tracer.of(args[0])
    for each in tensors_of(args[2:4]):
        for ids, own, size in zip(axes[-each.dim() :], tracer.of(each), each.shape, strict=True):
            meet(tracer, ids, own, size)
    tracer.give(tensors_of(out)[0], axes)


def group_norm(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Normalise within groups of channels, which shrink alike or go whole."""
    named = bind(func, args, kwargs)
    axes, groups = tracer.of(args[0]), named["group"]
    for each in (named["weight"], named["bias"]):
        if each is not None:
            meet(tracer, axes[1], tracer.of(each)[0], each.shape[0])
    ids = axes[1]
    if ids is not None and groups > 1:
        rows, labels = ids.reshape(groups, -1), tracer.labels
        how = tracer.decide(lambda: [("whole", labels.components(rows)), ("share", labels.components(rows.T))])
        if how is None:
            labels.lock(ids, "in groups of a normalisation that cannot be cut alike")
        else:
            labels.tie_rows(rows if how == "whole" else rows.T)
            tracer.trace.groups[tracer.owner(named["weight"])] = how
    tracer.give(tensors_of(out)[0], axes)


def grid_sample(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Sample at the places of a grid."""
    tracer.lock(args[1], "its values are places to sample at")
    lock_axes(tracer, args[0], out, set(range(2, out.dim())), "pooled or resized along it")


#: What multiplies rows by a positive number before it may as well do so after.
_LINEAR = frozenset(
    f"aten::{name}" for name in ("clone", "_to_copy", "detach", "alias", "mul", "div", "neg", "relu", "leaky_relu")
)
_POINTWISE = """
clone _to_copy copy detach alias contiguous lift lift_fresh zeros_like ones_like empty_like full_like rand_like
randn_like fill zero bernoulli native_dropout masked_fill where _prelu_kernel hardswish mish leaky_relu elu celu selu
hardtanh threshold gelu hardsigmoid softplus log_sigmoid_forward abs isin uniform normal
"""
REDUCTIONS = "mean sum amax amin max min norm linalg_vector_norm var std var_mean std_mean prod any all logsumexp"
_ALONG = "_softmax _log_softmax _safe_softmax cumsum cumprod logcumsumexp"
_SPATIAL = {
    2: "_adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d max_pool2d_with_indices fractional_max_pool2d "
    "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
    "reflection_pad2d replication_pad2d _upsample_bicubic2d_aa",
    3: "_adaptive_avg_pool3d adaptive_max_pool3d avg_pool3d max_pool3d_with_indices upsample_nearest3d "
    "upsample_trilinear3d reflection_pad3d replication_pad3d",
    1: "upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d reflection_pad1d replication_pad1d",
}
_BATCH_NORMS = """
native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm
_batch_norm_no_update _batch_norm_with_update
"""

_MAKERS = "new_zeros new_ones new_empty new_full"

#: By the operator's name, without overload and in-place underscore.
RULES: dict[str, Rule] = {
    f"aten::{name}": rule
    for name, rule in {
        **VIEWS,
        **PARTS,
        **dict.fromkeys(_POINTWISE.split(), pointwise),
        **dict.fromkeys(REDUCTIONS.split(), reduction),
        **dict.fromkeys(_ALONG.split(), along),
        **{name: spatial(many) for many, names in _SPATIAL.items() for name in names.split()},
        **dict.fromkeys(_BATCH_NORMS.split(), batch_norm),
        **dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), layer_norm),
        **dict.fromkeys(_MAKERS.split(), make),
        "native_group_norm": group_norm,
        "constant_pad_nd": pad,
        "glu": glu,
        "grid_sampler_2d": grid_sample,
        "grid_sampler_3d": grid_sample,
    }.items()
} | PRODUCTS
_SHAPED = """
constant_pad_nd native_group_norm native_layer_norm _fused_rms_norm convolution empty zeros ones full arange linspace
"""
#: Operators whose numbers are shapes, places and groups: what they do is compared by its result.
SHAPES_IN_ARGUMENTS = frozenset(
    [f"aten::{name}" for name in (*VIEWS, *PARTS, *_BATCH_NORMS.split(), *_MAKERS.split(), *_SHAPED.split())]
    + ["torchvision::deform_conv2d"]
)
