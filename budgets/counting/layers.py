"""PyTorch's own layers answered whole: the operators that their forward runs, without the way to the dispatcher.

Only where the forward would do just that: a layer of exactly this class, as PyTorch wrote it, that nothing hooks or
shadows, on a plain tensor. What an operator returns and costs is said where it is for one that arrives alone.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.modules import module as torch_module

from featherpress.budgets.counting.meta_kernels import CLASSES, META, META_KERNELS

aten = torch.ops.aten
#: An operator, its arguments and what it returns.
Step = tuple[Any, tuple[Any, ...], Any]
#: What a layer returns, and the operators that it runs.
Answer = tuple[Tensor, tuple[Step, ...]]
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(
    held for name, held in vars(torch_module).items() if name.startswith("_global_") and isinstance(held, dict)
)
#: Where a layer has one of these itself, its class's, or that among its parameters, is not what runs.
_METHODS = ("forward", "_conv_forward", "_check_input_dim")
_SHADOWS = frozenset({*_METHODS, "weight", "bias", "running_mean", "running_var"})
_NUMBERS = frozenset({int, float})
_WHOLE = frozenset({int})
#: Where functions that layers call may be replaced; and what we replace ourselves while a count runs.
_OWNERS: tuple[Any, ...]
_OWNERS, _OURS = (functional, torch._C._nn, torch), (torch, "batch_norm")
_HOME = str(Path(torch.__file__).parent)
#: How a tensor without values goes through the dispatcher, if nothing is special about it.
_PLAIN = torch._C._dispatch_keys(torch.empty(0, device=META)).raw_repr()


class Layer(NamedTuple):
    """How a class of layers is answered, and the code that must be as PyTorch wrote it for that."""

    answer: Callable[[Any, Tensor], Answer | None]
    code: tuple[tuple[Any, str, Any], ...]


def dispatcher_state() -> tuple[Any, ...]:
    """Return what decides where an operator goes, besides its arguments: modes, autocast, transforms, gradients."""
    return (
        torch._C._dispatch_tls_local_include_set().raw_repr(),
        torch._C._dispatch_tls_local_exclude_set().raw_repr(),
        torch._C._len_torch_dispatch_stack(),
        torch._C._len_torch_function_stack(),
        torch.is_grad_enabled(),
        forward_ad._current_level,
    )


def answer_layer(module: nn.Module, x: Any, state: tuple[Any, ...]) -> Answer | None:
    """Answer a layer's call where the dispatcher's state is as given; None where its forward has to run."""
    layer = LAYERS.get(type(module))
    if layer is None or type(x) not in CLASSES:
        return None
    held = vars(module)
    if any(map(held.get, _HOOKS)) or any(_GLOBAL_HOOKS) or not _SHADOWS.isdisjoint(held):
        return None
    for owner, name, usual in layer.code:
        if getattr(owner, name) is not usual:
            return None
    if torch._C._dispatch_keys(x).raw_repr() != _PLAIN or dispatcher_state() != state:
        return None
    try:
        with torch._C._DisableTorchDispatch():
            return layer.answer(module, x)
    except (AttributeError, KeyError):  # what its forward makes of a missing attribute is its own affair
        return None


def _one(operator: Any) -> Callable[..., Answer | None]:
    """Return what runs one operator, where there is an answer to it."""
    kernel = META_KERNELS[operator]

    def run(*args: Any) -> Answer | None:
        out = kernel(args, {})
        return None if out is None else (out if type(out) is Tensor else out[0], ((operator, args, out),))

    return run


def _weights(layer: nn.Module) -> tuple[Any, Any]:
    # As attributes they would be looked for everywhere else first.
    held = layer._parameters
    return held["weight"], held["bias"]


def _as_it_is(layer: Any, x: Tensor) -> Answer | None:
    return x, ()


def _dropout(layer: Any, x: Tensor) -> Answer | None:
    return None if layer.training or not 0 <= layer.p <= 1 else (x, ())


def _pointwise(name: str, *numbers: float | str, in_place: bool = True) -> Callable[[Any, Tensor], Answer | None]:
    """Answer an activation whose operator takes numbers, or those that the layer has by these names."""
    usual, inside = _one(getattr(aten, name).default), _one(getattr(aten, name + "_").default)

    def answer(layer: Any, x: Tensor) -> Answer | None:
        run = inside if in_place and layer.inplace else usual
        given = [getattr(layer, each) if isinstance(each, str) else each for each in numbers] if numbers else ()
        return run(x, *given) if _NUMBERS.issuperset(map(type, given)) else None

    return answer


def _gelu(layer: Any, x: Tensor) -> Answer | None:
    return _GELU(x) if layer.approximate in {"none", "tanh"} else None


def _convolution(layer: Any, x: Tensor) -> Answer | None:
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    if layer.padding_mode != "zeros" or not type(stride) is type(padding) is type(dilation) is tuple:
        return None
    if not _WHOLE.issuperset(map(type, (*stride, *padding, *dilation, groups))):
        return None
    weight, bias = _weights(layer)
    return _CONVOLUTION(x, weight, bias, stride, padding, dilation, False, layer.output_padding, groups)


def _batch_norm(ranks: tuple[int, ...], layer: Any, x: Tensor) -> Answer | None:
    momentum, eps = layer.momentum, layer.eps
    if layer.training or x.dim() not in ranks or type(eps) is not float or eps < 0 or type(momentum) is not float:
        return None
    weight, bias = _weights(layer)
    held = layer._buffers
    answer = _BATCH_NORM(x, weight, bias, held["running_mean"], held["running_var"], False, momentum, eps)
    if answer is None:
        return None
    out, ((operator, args, _),) = answer
    return out, ((operator, args, out),)  # its statistics are empty


def _layer_norm(layer: Any, x: Tensor) -> Answer | None:
    shape, eps = layer.normalized_shape, layer.eps
    usual = type(shape) is tuple and type(eps) is float
    return _LAYER_NORM(x, shape, *_weights(layer), eps) if usual else None


def _linear(layer: Any, x: Tensor) -> Answer | None:
    """Rows of a matrix, or of a batch of them that lie one after another."""
    weight, bias = _weights(layer)
    rank = x.dim()
    if type(weight) not in CLASSES or weight.dim() != 2 or rank not in {2, 3} or x.shape[-1] != weight.shape[1]:
        return None
    if rank > 2 and (not x.is_contiguous() or 0 in x.shape):
        return None
    rows, columns = x if rank == 2 else x.view(-1, x.shape[-1]), weight.t()
    product = _PRODUCT(rows, columns) if bias is None else _SUM(bias, rows, columns)
    if product is None:
        return None
    out, steps = product
    turn = aten.t.default, (weight,), columns
    if rank == 2:
        return out, (turn, *steps)
    flat, shape = (aten.view.default, (x, rows.shape), rows), (*x.shape[:-1], out.shape[-1])
    if bias is None:
        back, last = _BACK(out, shape)  # type: ignore[misc]  # it is contiguous
        return back, (turn, flat, *steps, *last)
    back = out.view(shape)
    return back, (flat, turn, *steps, (aten.view.default, (out, shape), back))


def _mean(layer: Any, x: Tensor) -> Answer | None:
    return _MEAN(x, [-1, -2], True) if layer.output_size in {1, (1, 1)} and x.dim() in {3, 4} else None


def _max_pool(layer: Any, x: Tensor) -> Answer | None:
    window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    axes = [side if type(side) is tuple else (side,) for side in window]
    if layer.return_indices or layer.ceil_mode or any(not _WHOLE.issuperset(map(type, axis)) for axis in axes):
        return None
    return _MAX_POOL(x, *axes)


_CONVOLUTION, _BATCH_NORM = _one(aten.convolution.default), _one(aten.native_batch_norm.default)
_LAYER_NORM, _GELU = _one(aten.native_layer_norm.default), _one(aten.gelu.default)
_SUM, _PRODUCT, _BACK = _one(aten.addmm.default), _one(aten.mm.default), _one(aten._unsafe_view.default)
_MEAN, _MAX_POOL = _one(aten.mean.dim), _one(aten.max_pool2d_with_indices.default)
#: What answers a class of layers, and the functions that its forward calls.
_ANSWERS: dict[type[nn.Module], tuple[Callable[[Any, Tensor], Answer | None], tuple[str, ...]]] = {
    nn.Conv1d: (_convolution, ("conv1d",)),
    nn.Conv2d: (_convolution, ("conv2d",)),
    nn.Conv3d: (_convolution, ("conv3d",)),
    nn.BatchNorm1d: (partial(_batch_norm, (2, 3)), ("batch_norm",)),
    nn.BatchNorm2d: (partial(_batch_norm, (4,)), ("batch_norm",)),
    nn.BatchNorm3d: (partial(_batch_norm, (5,)), ("batch_norm",)),
    nn.LayerNorm: (_layer_norm, ("layer_norm",)),
    nn.Linear: (_linear, ("linear",)),
    nn.ReLU: (_pointwise("relu"), ("relu", "relu_")),
    nn.ReLU6: (_pointwise("hardtanh", 0.0, 6.0), ("relu6", "relu6_")),
    nn.LeakyReLU: (_pointwise("leaky_relu", "negative_slope"), ("leaky_relu", "leaky_relu_")),
    nn.ELU: (_pointwise("elu", "alpha"), ("elu", "elu_")),
    nn.SiLU: (_pointwise("silu"), ("silu", "silu_")),
    nn.Hardswish: (_pointwise("hardswish"), ("hardswish", "hardswish_")),
    nn.Hardsigmoid: (_pointwise("hardsigmoid"), ("hardsigmoid", "hardsigmoid_")),
    nn.Sigmoid: (_pointwise("sigmoid", in_place=False), ("sigmoid",)),
    nn.Tanh: (_pointwise("tanh", in_place=False), ("tanh",)),
    nn.GELU: (_gelu, ("gelu",)),
    nn.AdaptiveAvgPool2d: (_mean, ("adaptive_avg_pool2d",)),
    nn.MaxPool2d: (_max_pool, ("max_pool2d",)),
    nn.Dropout: (_dropout, ("dropout",)),
    nn.Identity: (_as_it_is, ()),
}


def _code(kind: type[nn.Module], functions: tuple[str, ...]) -> tuple[tuple[Any, str, Any], ...]:
    """List what a layer's call runs: methods, and functions wherever they are looked up."""
    owned: list[tuple[Any, str]] = [
        (nn.Module, "_call_impl"),
        *((kind, name) for name in _METHODS if hasattr(kind, name)),
    ]
    owned += [(owner, name) for name in functions for owner in _OWNERS if hasattr(owner, name)]
    return tuple((owner, name, getattr(owner, name)) for owner, name in owned if (owner, name) != _OURS)


def _is_of_torch(function: Any) -> bool:
    file = getattr(getattr(function, "__code__", None), "co_filename", "")
    return isinstance(function, BuiltinFunctionType) or str(file).startswith(_HOME)


#: Those whose code was PyTorch's when this was loaded.
LAYERS: Mapping[type[nn.Module], Layer] = {
    kind: Layer(answer, code)
    for kind, (answer, functions) in _ANSWERS.items()
    for code in [_code(kind, functions)]
    if all(_is_of_torch(each) for _, _, each in code)
}
