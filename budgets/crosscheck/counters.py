"""Other counters, each asked on a copy of its own: fvcore, thop and PyTorch's FlopCounterMode.

fvcore and FlopCounterMode get the formulas they lack and lose those that are no core work: they see a model by other
means than ours (a trace, and another dispatch mode), which is what makes their agreement worth having. thop is asked
as it comes; its number is evidence about thop.
"""

import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from math import prod
from numbers import Number
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.costs import sum_by_path
from featherpress.budgets.counting.replicas import Twin, copy_with, meta_twin, real_twin
from featherpress.budgets.counting.tensors import list_modules

#: Operators, as a trace names them, that do core work.
TRACED_CORE = frozenset(
    f"aten::{name}"
    for name in (
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
        *("bilinear", "_trilinear", "addbmm", "addr", "vdot", "tensordot", "chain_matmul", "linalg_multi_dot"),
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd", "mkldnn_rnn_layer", "baddbmm", "mv", "dot"),
        *("scaled_dot_product_attention", "_convolution_mode", "_scaled_dot_product_attention_math", "inner", "kron"),
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)


def is_core(name: str) -> bool:
    """Tell whether an operator of a trace may hold core work: a call of scripted code is opaque."""
    return name in TRACED_CORE or name.startswith("prim::Call")


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterResult:
    """What another counter found: MACs (and parameters) by module path, without a module's children.

    `work` splits the MACs by operator as well, `unused` are those whose results reach no output. `unsupported` counts
    by module path, without its children, the calls of operators that the tool says it has no formula for. `leaves` are
    modules whose children it counts with them.
    """

    macs: Mapping[str, int]
    params: Mapping[str, int] | None = None
    work: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unused: Mapping[str, int] = field(default_factory=dict)
    unsupported: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    leaves: frozenset[str] = frozenset()


def ask_fvcore(model: nn.Module, inputs: tuple[Any, ...]) -> CounterResult:
    """Trace a copy with fvcore, with handles for core work only."""
    analysis_type = _import_quietly("fvcore.nn").FlopCountAnalysis
    memo: dict[int, Any] = {}
    replica = _returning_tensors(copy_with(model, real_twin, memo).eval())
    with torch.no_grad():
        analysis = analysis_type(replica, copy_with(inputs, real_twin, memo))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        # Its defaults go: they count norms and resampling, and cannot be taken out one by one.
        analysis.clear_op_handles()
        for name, handle in _fvcore_handles().items():
            analysis.set_op_handle(name, handle)
        macs = Counter({path: int(amount) for path, amount in analysis.by_module().items()})
        unsupported = {path: Counter(analysis.unsupported_ops(path)) for path in macs}
    own, skipped = Counter(macs), {path: Counter(names) for path, names in unsupported.items()}
    for path in filter(None, macs):  # both are with a module's children
        parent = path.rpartition(".")[0]
        own[parent] -= macs[path]
        skipped[parent].subtract(unsupported[path])
    return CounterResult(macs=own, unsupported=skipped)


def _returning_tensors(model: nn.Module) -> nn.Module:
    """Let a copy return the tensors of its outputs alone: a trace knows no other objects."""

    def forward(run: Callable[..., Any], *args: Any) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in tree_leaves(run(*args)) if isinstance(leaf, Tensor))

    return with_forward(model, forward)


def with_forward(model: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    """Give a model, which must be a copy, another forward; it gets the old one before its arguments."""
    kind, own = type(model), vars(model).pop("forward", None)

    def run(self: nn.Module, *args: Any) -> Any:
        return forward(own or partial(kind.forward, self), *args)

    model.__class__ = type(kind.__name__, (kind,), {"forward": run, "__module__": kind.__module__})
    return model


def ask_default_fvcore(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, tuple[str, ...]]:
    """Ask fvcore by its defaults and with fused attention, on the model itself.

    Returns its total, and the core operators that it says it skipped.
    """
    with torch.no_grad():
        analysis = _import_quietly("fvcore.nn").FlopCountAnalysis(_returning_tensors(model), inputs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        analysis.set_op_handle("aten::scaled_dot_product_attention", _by_pairs)
        total, skipped = int(analysis.total()), analysis.unsupported_ops()
    return total, tuple(sorted(filter(is_core, skipped)))


def ask_thop(model: nn.Module, inputs: tuple[Any, ...]) -> CounterResult:
    """Ask thop about a copy, as it comes."""
    profile = _import_quietly("thop").profile
    memo: dict[int, Any] = {}
    replica = copy_with(model, real_twin, memo)
    total, held, tree = profile(replica, copy_with(inputs, real_twin, memo), verbose=False, ret_layer_info=True)
    found: dict[str, tuple[int, int, bool]] = {}
    _flatten({"": (total, held, tree)}, "", found)
    return CounterResult(
        macs={path: macs for path, (macs, _, _) in found.items()},
        params={path: params for path, (_, params, _) in found.items()},
        leaves=frozenset(path for path, (_, _, leaf) in found.items() if leaf),
    )


def ask_torch(model: nn.Module, inputs: tuple[Any, ...]) -> CounterResult:
    """Run a copy under FlopCounterMode, with formulas for the operators it lacks: on meta, or else on the CPU."""
    try:
        return _ask_torch(model, inputs, meta_twin, "meta")
    except Exception:
        return _ask_torch(model, inputs, real_twin, "cpu")


def _ask_torch(model: nn.Module, inputs: tuple[Any, ...], twin: Twin, device: str) -> CounterResult:
    memo: dict[int, Any] = {}
    # Its tracker of modules asks what needs a gradient for its history, which a weight handed to a module has not.
    replica = copy_with(model, twin, memo).eval().requires_grad_(False)
    args = copy_with(inputs, twin, memo)
    counter = _PlacedFlops(ModuleStack(list_modules(replica)))
    with torch.no_grad(), torch.device(device), counter:
        outputs = replica(*args)
    return CounterResult(macs=sum_by_path(counter.work), work=counter.work, unused=counter.unused(outputs))


class _PlacedFlops(FlopCounterMode):
    """FlopCounterMode that credits work to the module that runs, as our counter does, and notes who reads a result."""

    def __init__(self, stack: ModuleStack) -> None:
        super().__init__(display=False, custom_mapping=dict(_torch_formulas()))
        self.stack = stack
        self.work: Counter[tuple[str, str]] = Counter()
        # Of every operator: its module, its MACs, and the memory it reads and writes; held, so that none is used twice.
        self._steps: list[tuple[str, int, list[Any], list[Any]]] = []

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        before = self.get_total_flops()
        result = super()._count_flops(func_packet, out, args, kwargs)  # type: ignore[no-untyped-call]
        name = str(func_packet).replace(".", "::")
        macs = (self.get_total_flops() - before) // 2
        self.work[self.stack.path, name] += macs
        self._steps.append((self.stack.path, macs, _memories((args, kwargs)), _memories(out)))
        return result

    def unused(self, outputs: Any) -> Counter[str]:
        """Return by module the MACs whose results no output was made of; none where an output is not understood."""
        if not all(leaf is None or isinstance(leaf, (Tensor, Number, str)) for leaf in tree_leaves(outputs)):
            return Counter()
        needed, found = {memory._cdata for memory in _memories(outputs)}, Counter[str]()
        for path, macs, reads, writes in reversed(self._steps):
            # What returns no tensor may have written into one that it was given.
            if not writes or any(memory._cdata in needed for memory in writes):
                needed.update(memory._cdata for memory in reads)
            else:
                found[path] += macs
        return found


def _memories(nest: Any) -> list[Any]:
    """List what the tensors of a nest keep their numbers in: views of a tensor share it."""
    return [leaf.untyped_storage() for leaf in tree_leaves(nest) if isinstance(leaf, Tensor)]


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


def _flatten(tree: Mapping[str, Any], path: str, found: dict[str, tuple[int, int, bool]]) -> None:
    """Turn thop's nest of (MACs, parameters, children) into rows without the children's, and whether it is a leaf."""
    for name, (amount, held, below) in tree.items():
        place = f"{path}.{name}" if path else name
        inside = [sum(int(child[number]) for child in below.values()) for number in (0, 1)]
        found[place] = int(amount) - inside[0], int(held) - inside[1], not below
        _flatten(below, place, found)


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
