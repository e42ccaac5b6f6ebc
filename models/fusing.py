"""Folding: BatchNorms disappear into the convolutions before them, for inference."""

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from featherpress.models.creation import forget_origin
from featherpress.models.layers.deformable import DeformableConv

Model = TypeVar("Model", bound=nn.Module)

# Exact types: what subclasses do in their forward is not known here.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, DeformableConv)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fuse(model: Model) -> Model:
    """Return a copy in eval mode whose convolutions have absorbed the BatchNorms after them; the model stays as it is.

    w' = w * g / sqrt(v + eps), b' = (b - m) * g / sqrt(v + eps) + beta, with running mean m and variance v. The outputs
    are equal up to rounding. A pair is folded where it is certain that nothing else sees what lies between: neighbours
    in an `nn.Sequential`, and the children that a module names in its class attribute `foldable`, a tuple of
    (convolution, norm). Convolutions and weights used in two places are left alone.

    Parameters: one a channel fewer where the convolution had no bias, two where it had one.
    """
    fused = copy.deepcopy(model).eval()
    forget_origin(fused)
    places = Counter(id(child) for parent in fused.modules() for child in parent._modules.values())
    owners = Counter(id(weight) for _, weight in fused.named_parameters(remove_duplicate=False))
    for parent in list(fused.modules()):
        for first, second in _neighbours(parent):
            conv, norm = getattr(parent, first), getattr(parent, second)
            alone = places[id(conv)] == 1 and owners[id(getattr(conv, "weight", None))] == 1
            if alone and _folds(conv, norm):
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(parent, second, nn.Identity())
    return fused


def _neighbours(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Name the pairs of children of which the second sees the first's output, and nothing else does."""
    yield from getattr(parent, "foldable", ())
    if type(parent).forward is nn.Sequential.forward:
        yield from pairwise(parent._modules)


def _folds(conv: nn.Module, norm: nn.Module) -> bool:
    listened = conv._forward_hooks or norm._forward_pre_hooks or norm._forward_hooks
    known = type(conv) in _CONVOLUTIONS and type(norm) in _NORMS
    return known and norm.running_mean is not None and not listened
