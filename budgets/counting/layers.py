"""PyTorch's own layers answered whole: the operators that their forward runs, without the way to the dispatcher.

Only where the forward would do just that: a layer of exactly this class, as PyTorch wrote it, that nothing hooks or
shadows, on a plain tensor. What an operator returns and costs is said where it is for one that arrives alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _dispatch_keys
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.modules import module as torch_module

from featherpress.budgets.counting.meta_kernels import CLASSES, META, META_KERNELS, MetaKernel, normalise

aten = torch.ops.aten
#: An operator, its arguments, the tensors among these and what it returns.
Step = tuple[Any, tuple[Any, ...], Sequence[Tensor], Any]
#: What a layer holds, by name; as attributes it would be looked for in classes first.
Held = dict[str, Any]
#: What a layer returns, and the operators that it runs.
Answer = tuple[Tensor, tuple[Step, ...]]
#: Stands for the place that a layer is called in: hooks on all modules, how a tensor goes, the dispatcher's state.
PLACE = "place"
hooks_of = itemgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
#: Hooks on all modules.
GLOBAL_HOOKS = tuple(
    held for name, held in vars(torch_module).items() if name.startswith("_global_") and isinstance(held, dict)
)
#: Where a layer has one of these itself, its class's, or that among its parameters, is not what runs.
_METHODS = ("__call__", "_call_impl", "forward", "_conv_forward", "_check_input_dim")
_SHADOWS = frozenset({*_METHODS, "weight", "bias", "running_mean", "running_var"})
_NO_NAMES: Mapping[str, Any] = {}
_NUMBERS = frozenset({int, float})
_WHOLE = frozenset({int})
#: Where functions that layers call may be replaced; and what we replace ourselves while a count runs.
_OWNERS: tuple[Any, ...]
_OWNERS, _OURS = (functional, torch._C._nn, torch), (torch, "batch_norm")
_HOME = str(Path(torch.__file__).parent)
#: How a tensor without values goes through the dispatcher, if nothing is special about it.
_PLAIN = _dispatch_keys(torch.empty(0, device=META)).raw_repr()


class Layer(NamedTuple):
    """How a class of layers is answered, and the code that must be as PyTorch wrote it for that."""

    answer: Callable[[Held, Tensor], Answer | None]
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


def answer_layer(module: nn.Module, x: Any, state: tuple[Any, ...], usual: set[Any]) -> Answer | None:
    """Answer a layer's call where the dispatcher's state is as given; None where its forward has to run.

    `usual` are the classes whose code is known to be PyTorch's, since nothing that could change it came between, and
    `PLACE` where that is so of the state too, and `x` is such an answer. No operator is to be seen meanwhile.
    """
    kind = type(module)
    layer = LAYERS.get(kind)
    if layer is None or type(x) not in CLASSES:
        return None
    held = module.__dict__
    if any(hooks_of(held)) or not held.keys().isdisjoint(_SHADOWS):
        return None
    if kind not in usual:
        for owner, name, code in layer.code:
            if getattr(owner, name) is not code:
                return None
        usual.add(kind)
    if PLACE not in usual:
        if any(GLOBAL_HOOKS) or _dispatch_keys(x).raw_repr() != _PLAIN or dispatcher_state() != state:
            return None
        usual.add(PLACE)
    try:
        return layer.answer(held, x)
    except (AttributeError, KeyError):  # what its forward makes of a missing attribute is its own affair
        return None


def is_row(module: nn.Module) -> bool:
    """Return whether all that a module's call does is to hand a value through its children, one after another."""
    kind, held = type(module), module.__dict__
    if not issubclass(kind, nn.Sequential) or any(hooks_of(held)) or any(GLOBAL_HOOKS):
        return False
    return held.keys().isdisjoint(_SHADOWS) and all(getattr(kind, name) is code for name, code in _ROW.items())


def _one(operator: Any, kernel: MetaKernel | None = None) -> Callable[..., Answer | None]:
    """Return what runs one operator on tensors, which are among its arguments, where there is an answer to it."""
    run = kernel or META_KERNELS[operator]

    def answer(tensors: Sequence[Tensor], *args: Any) -> Answer | None:
        out = run(args, _NO_NAMES)
        return None if out is None else (out if type(out) is Tensor else out[0], ((operator, args, tensors, out),))

    return answer


def _weights(held: Held) -> tuple[Any, Any]:
    own = held["_parameters"]
    return own["weight"], own["bias"]


def _as_it_is(held: Held, x: Tensor) -> Answer | None:
    return x, ()


def _dropout(held: Held, x: Tensor) -> Answer | None:
    return None if held["training"] or not 0 <= held["p"] <= 1 else (x, ())


def _pointwise(name: str, *numbers: float | str, in_place: bool = True) -> Callable[[Held, Tensor], Answer | None]:
    """Answer an activation whose operator takes numbers, or those that the layer has by these names."""
    usual, inside = _one(getattr(aten, name).default), _one(getattr(aten, name + "_").default)

    def answer(held: Held, x: Tensor) -> Answer | None:
        run = inside if in_place and held["inplace"] else usual
        if not numbers:
            return run([x], x)
        given = [held[each] if isinstance(each, str) else each for each in numbers]
        return run([x], x, *given) if _NUMBERS.issuperset(map(type, given)) else None

    return answer


def _gelu(held: Held, x: Tensor) -> Answer | None:
    return _GELU([x], x) if held["approximate"] in {"none", "tanh"} else None


def _convolution(held: Held, x: Tensor) -> Answer | None:
    stride, padding, dilation, groups = held["stride"], held["padding"], held["dilation"], held["groups"]
    if held["padding_mode"] != "zeros" or not type(stride) is type(padding) is type(dilation) is tuple:
        return None
    if not _WHOLE.issuperset(map(type, (*stride, *padding, *dilation, groups))):
        return None
    weight, bias = _weights(held)
    tensors = [x, weight] if bias is None else [x, weight, bias]
    return _CONVOLUTION(tensors, x, weight, bias, stride, padding, dilation, False, held["output_padding"], groups)


def _batch_norm(ranks: tuple[int, ...], held: Held, x: Tensor) -> Answer | None:
    momentum, eps = held["momentum"], held["eps"]
    if held["training"] or x.dim() not in ranks or type(eps) is not float or eps < 0 or type(momentum) is not float:
        return None
    (weight, bias), buffers = _weights(held), held["_buffers"]
    mean, var = buffers["running_mean"], buffers["running_var"]
    tensors = [each for each in (x, weight, bias, mean, var) if each is not None]
    return _BATCH_NORM(tensors, x, weight, bias, mean, var, False, momentum, eps)


def _layer_norm(held: Held, x: Tensor) -> Answer | None:
    shape, eps, (weight, bias) = held["normalized_shape"], held["eps"], _weights(held)
    if type(shape) is not tuple or type(eps) is not float:
        return None
    return _LAYER_NORM([each for each in (x, weight, bias) if each is not None], x, shape, weight, bias, eps)


def _linear(held: Held, x: Tensor) -> Answer | None:
    """Rows of a matrix, or of a batch of them that lie one after another."""
    weight, bias = _weights(held)
    rank = x.dim()
    if type(weight) not in CLASSES or weight.dim() != 2 or rank not in {2, 3} or x.shape[-1] != weight.shape[1]:
        return None
    if rank > 2 and (not x.is_contiguous() or 0 in x.shape):
        return None
    rows, columns = x if rank == 2 else x.view(-1, x.shape[-1]), weight.t()
    pair = [rows, columns]
    product = _PRODUCT(pair, *pair) if bias is None else _SUM([bias, *pair], bias, *pair)
    if product is None:
        return None
    out, steps = product
    turn = aten.t.default, (weight,), [weight], columns
    if rank == 2:
        return out, (turn, *steps)
    flat, shape = (aten.view.default, (x, rows.shape), [x], rows), (*x.shape[:-1], out.shape[-1])
    if bias is None:
        back, last = _BACK([out], out, shape)  # type: ignore[misc]  # it is contiguous
        return back, (turn, flat, *steps, *last)
    back = out.view(shape)
    return back, (flat, turn, *steps, (aten.view.default, (out, shape), [out], back))


def _mean(held: Held, x: Tensor) -> Answer | None:
    return _MEAN([x], x, [-1, -2], True) if held["output_size"] in {1, (1, 1)} and x.dim() in {3, 4} else None


def _max_pool(held: Held, x: Tensor) -> Answer | None:
    window = (held["kernel_size"], held["stride"], held["padding"], held["dilation"])
    axes = [side if type(side) is tuple else (side,) for side in window]
    if held["return_indices"] or held["ceil_mode"] or any(not _WHOLE.issuperset(map(type, axis)) for axis in axes):
        return None
    return _MAX_POOL([x], x, *axes)


_CONVOLUTION = _one(aten.convolution.default)
_BATCH_NORM = _one(aten.native_batch_norm.default, normalise)  # its statistics are empty
_LAYER_NORM, _GELU = _one(aten.native_layer_norm.default), _one(aten.gelu.default)
_SUM, _PRODUCT, _BACK = _one(aten.addmm.default), _one(aten.mm.default), _one(aten._unsafe_view.default)
_MEAN, _MAX_POOL = _one(aten.mean.dim), _one(aten.max_pool2d_with_indices.default)
#: What answers a class of layers, and the functions that its forward calls.
_ANSWERS: dict[type[nn.Module], tuple[Callable[[Held, Tensor], Answer | None], tuple[str, ...]]] = {
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
    owned: list[tuple[Any, str]] = [(kind, name) for name in _METHODS if hasattr(kind, name)]
    owned += [(owner, name) for name in functions for owner in _OWNERS if hasattr(owner, name)]
    return tuple((owner, name, getattr(owner, name)) for owner, name in owned if (owner, name) != _OURS)


#: What a row runs, by name.
_ROW = {name: getattr(nn.Sequential, name) for name in ("_call_impl", "forward", "__iter__")}


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
