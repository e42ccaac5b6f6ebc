"""Other counters, each asked on a copy of its own: fvcore, thop and PyTorch's FlopCounterMode.

fvcore and FlopCounterMode get the formulas they lack and lose those that are no core work: they see a model by other
means than ours (a trace, and another dispatch mode), which is what makes their agreement worth having. thop is asked
as it comes; its number is evidence about thop.
"""

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.costs import sum_by_path
from featherpress.budgets.counting.replicas import copy_with, meta_twin, real_twin


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterResult:
    """What another counter found: MACs (and parameters) by module path, without a module's children.

    `work` splits the MACs by operator as well. `unsupported` counts by module path the calls of operators that the tool
    says it has no formula for, `uncalled` are modules it never met, `covered` those that a rule of its own fired for.
    """

    macs: Mapping[str, int]
    params: Mapping[str, int] | None = None
    work: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unsupported: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    uncalled: frozenset[str] = frozenset()
    covered: frozenset[str] = frozenset()


def ask_fvcore(model: nn.Module, inputs: tuple[Any, ...]) -> CounterResult:
    """Trace a copy with fvcore, with handles for core work only."""
    analysis_type = _import_quietly("fvcore.nn").FlopCountAnalysis
    memo: dict[int, Any] = {}
    replica = copy_with(model, real_twin, memo).eval()
    with torch.no_grad():
        analysis = analysis_type(replica, copy_with(inputs, real_twin, memo))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        # Its defaults go: they count norms and resampling, and cannot be taken out one by one.
        analysis.clear_op_handles()
        for name, handle in _fvcore_handles().items():
            analysis.set_op_handle(name, handle)
        inclusive = analysis.by_module()
        unsupported = {path: dict(analysis.unsupported_ops(path)) for path in inclusive}
        uncalled = frozenset(analysis.uncalled_modules())
    own = Counter({path: int(amount) for path, amount in inclusive.items()})
    for path, amount in inclusive.items():
        if path:
            own[path.rpartition(".")[0]] -= int(amount)
    return CounterResult(macs=own, unsupported=unsupported, uncalled=uncalled)


def ask_thop(model: nn.Module, inputs: tuple[Any, ...]) -> CounterResult:
    """Ask thop about a copy, as it comes."""
    profile = _import_quietly("thop").profile
    rules = sys.modules["thop.profile"].register_hooks
    memo: dict[int, Any] = {}
    replica = copy_with(model, real_twin, memo)
    calls = ModuleStack(replica).calls
    total, held, tree = profile(replica, copy_with(inputs, real_twin, memo), verbose=False, ret_layer_info=True)
    macs: dict[str, int] = {}
    params: dict[str, int] = {}
    _flatten(tree, "", macs, params)
    covered = frozenset(
        path
        for path, module in replica.named_modules(remove_duplicate=False)
        if type(module) in rules and calls[path] and not isinstance(module, (nn.Sequential, nn.ModuleList))
    )
    if not tree:
        macs[""], params[""] = int(total), int(held)
    return CounterResult(macs=macs, params=params, covered=covered)


def ask_torch(model: nn.Module, inputs: tuple[Any, ...]) -> CounterResult:
    """Run a meta copy under FlopCounterMode, with formulas for the operators it lacks."""
    memo: dict[int, Any] = {}
    replica = copy_with(model, meta_twin, memo).eval()
    args = copy_with(inputs, meta_twin, memo)
    counter = _PlacedFlops(ModuleStack(replica))
    with torch.no_grad(), torch.device("meta"), counter:
        replica(*args)
    return CounterResult(macs=sum_by_path(counter.work), work=counter.work)


class _PlacedFlops(FlopCounterMode):
    """FlopCounterMode that credits work to the module that runs, as our counter does."""

    def __init__(self, stack: ModuleStack) -> None:
        super().__init__(display=False, custom_mapping=dict(_torch_formulas()))
        self.stack = stack
        self.work: Counter[tuple[str, str]] = Counter()

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        before = self.get_total_flops()
        result = super()._count_flops(func_packet, out, args, kwargs)  # type: ignore[no-untyped-call]
        name = str(func_packet).replace(".", "::")
        self.work[self.stack.path, name] += (self.get_total_flops() - before) // 2
        return result


def _torch_formulas() -> Mapping[Any, Callable[..., int]]:
    """Write the formulas FlopCounterMode lacks, in FLOPs; torchvision's operators exist only once it is imported."""

    def deformable(image: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
        return 2 * prod(out_shape) * prod(weight[1:])

    def products(place: int) -> Callable[..., int]:
        return lambda *shapes, **_: 2 * prod(shapes[place])

    aten = torch.ops.aten
    found: dict[Any, Callable[..., int]] = {packet: products(0) for packet in (aten.mv, aten.dot, aten.vdot)}
    found[aten.addmv] = products(1)
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        found[torch.ops.torchvision.deform_conv2d] = deformable
    return found


def _shape(value: Any) -> list[int]:
    """Read a traced value's shape."""
    sizes = value.type().sizes()
    if sizes is None:
        raise ValueError(f"the trace does not know the shape of {value.debugName()}")
    return list(sizes)


def _by_output(inputs: list[Any], outputs: list[Any]) -> int:
    """Convolutions whose weight is the second argument: each output meets one filter."""
    return prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])


def _by_inner_axis(inputs: list[Any], outputs: list[Any], *, left: int = 0) -> int:
    """Products of tensors of any rank, vectors included: each output is a sum over the left's last axis."""
    return prod(_shape(outputs[0])) * _shape(inputs[left])[-1]


def _by_pairs(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (_shape(tensor) for tensor in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _fvcore_handles() -> Mapping[str, Any]:
    """List fvcore's own handles for core work, and ours for what it lacks or gets wrong (vectors, any fused form)."""
    handles = _import_quietly("fvcore.nn.jit_handles")
    return {
        "aten::_convolution": handles.conv_flop_jit,
        "aten::linear": handles.linear_flop_jit,
        "aten::addmm": handles.addmm_flop_jit,
        "aten::mm": handles.matmul_flop_jit,
        "aten::bmm": handles.bmm_flop_jit,
        "aten::einsum": handles.einsum_flop_jit,
        "aten::matmul": _by_inner_axis,
        "aten::mv": _by_inner_axis,
        "aten::dot": _by_inner_axis,
        "aten::baddbmm": partial(_by_inner_axis, left=1),
        "aten::addmv": partial(_by_inner_axis, left=1),
        "aten::scaled_dot_product_attention": _by_pairs,
        "aten::_convolution_mode": _by_output,
        "torchvision::deform_conv2d": _by_output,
    }


def _flatten(tree: Mapping[str, Any], path: str, macs: dict[str, int], params: dict[str, int]) -> None:
    """Turn thop's nest of (MACs, parameters, children) into rows of its leaves."""
    for name, (amount, held, below) in tree.items():
        place = f"{path}.{name}" if path else name
        if below:
            _flatten(below, place, macs, params)
        else:
            macs[place], params[place] = int(amount), int(held)


def _import_quietly(name: str) -> ModuleType:
    """Import a tool whose import warns on current PyTorch; nothing else is silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return importlib.import_module(name)


def name_distribution(module: str) -> str:
    """State which distribution an import name came from: thop and ultralytics-thop share one."""
    names = _distributions().get(module, [])
    return ", ".join(f"{name} {metadata.version(name)}" for name in dict.fromkeys(names)) or module


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Map import names to distributions, which takes a look at all that is installed."""
    return metadata.packages_distributions()


#: The tools, in the order of the table's columns.
COUNTERS: Mapping[str, Callable[[nn.Module, tuple[Any, ...]], CounterResult]] = {
    "fvcore": ask_fvcore,
    "thop": ask_thop,
    "torch": ask_torch,
}
