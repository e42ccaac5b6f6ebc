"""Folding: BatchNorms disappear into the convolutions before them, for inference."""

import copy
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from featherpress.models.creation import forget_origin
from featherpress.models.layers.deformable import DeformableConv

logger = logging.getLogger("featherpress")

Model = TypeVar("Model", bound=nn.Module)

# Exact types: what subclasses do in their forward is not known here.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, DeformableConv)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Tracer(fx.Tracer):
    """Trace down to convolutions and norms; what an `nn.Identity` hands on may be a list, which a leaf would hide."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Identity):
            return False
        return isinstance(m, DeformableConv) or super().is_leaf_module(m, module_qualified_name)


def fuse(model: Model) -> Model:
    """Return a copy in eval mode whose convolutions have absorbed the BatchNorms after them; the model stays as it is.

    w' = w * g / sqrt(v + eps), b' = (b - m) * g / sqrt(v + eps) + beta, with running mean m and variance v. The outputs
    are equal up to rounding. A pair is folded where a symbolic trace of the whole forward, which holds for every input,
    shows that the norm alone reads the convolution's output; where a hook could see it, and where weights are used in
    two places, it is left alone. A model that cannot be traced keeps its norms, which is logged.

    Parameters: one a channel fewer where the convolution had no bias, two where it had one.
    """
    fused = copy.deepcopy(model).eval()
    forget_origin(fused)
    for first, second in list(_pairs(fused)):
        conv: Any = fused.get_submodule(first)
        norm: Any = fused.get_submodule(second)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        fused.set_submodule(second, nn.Identity())
    return fused


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Name the convolutions, each with its norm, whose output that norm alone sees, in every call."""
    modules = dict(model.named_modules())
    if not any(type(module) in _NORMS for module in modules.values()):
        return
    graph, calls = _trace(model), defaultdict[str, list[fx.Node]](list)
    for node in graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)].append(node)
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    places = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
    owners = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for norm in [name for name in calls if type(modules[name]) in _NORMS]:
        sources = [source for call in calls[norm] for source in call.all_input_nodes]
        conv = str(sources[0].target)
        if sources != calls[conv] or any(
            set(source.users) != {call} for source, call in zip(sources, calls[norm], strict=True)
        ):
            continue
        known = type(modules[conv]) in _CONVOLUTIONS and modules[norm].running_mean is not None
        alone = all(places[id(modules[name])] == 1 and name not in read for name in (conv, norm))
        if known and alone and owners[id(modules[conv].weight)] == 1 and not _listened(conv, norm, modules):
            yield conv, norm


def _trace(model: nn.Module) -> fx.Graph:
    """Trace a copy, in which a forward may leave what it likes; the graph is empty where that fails."""
    try:
        with torch.random.fork_rng(devices=[]):
            return _Tracer().trace(copy.deepcopy(model))
    except Exception as error:  # other people's forward may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("BatchNorms stay, as the forward of %s cannot be traced: %s", type(model).__name__, reason)
        return fx.Graph()


def _listened(conv: str, norm: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a hook sees the convolution's output: one on it, on the norm, or on a module that returns it."""
    above = set(accumulate(norm.split("."), "{}.{}".format))
    around = [path for path in accumulate(conv.split("."), "{}.{}".format) if path not in above]
    hooks = (modules[path]._forward_hooks for path in (*around, norm))
    return any(hooks) or bool(modules[norm]._forward_pre_hooks)
