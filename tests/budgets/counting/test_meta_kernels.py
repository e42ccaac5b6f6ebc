"""Answers without PyTorch's meta kernels: the same shapes, strides and types, or none at all."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featherpress.budgets import count
from featherpress.budgets.counting.formulas import FORMULAS
from featherpress.budgets.counting.meta_kernels import META_KERNELS

aten = torch.ops.aten


def m(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def outcome(result: Any) -> Any:
    """Say what can be seen of a result from outside."""
    if isinstance(result, Tensor):
        return tuple(result.shape), result.stride(), result.dtype, result.device.type
    return tuple(map(outcome, result))


def agrees(operator: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> bool:
    """Tell whether there is an answer; it must be PyTorch's."""
    kwargs = kwargs or {}
    meta_kernel = META_KERNELS[operator](args, kwargs)
    if meta_kernel is None:
        return False
    assert outcome(meta_kernel) == outcome(operator(*args, **kwargs)), (operator, args)
    return True


CONV = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
PLAIN = [
    (aten.relu.default, (m(2, 3),)),
    (aten.relu_.default, (m(2, 3),)),
    (aten.leaky_relu.default, (m(2, 3), 0.1)),
    (aten.hardtanh_.default, (m(2, 3), 0.0, 6.0)),
    (aten.add.Tensor, (m(2, 3), m(3))),
    (aten.mul.Tensor, (m(3), m(2, 1, 3))),
    (aten.mul.Tensor, (m(2, 3), 2.0)),
    (aten.div.Tensor, (m(2, 3), m())),
    (aten.sub.Tensor, (m(4, 1), m(1, 5))),
    (aten.add_.Tensor, (m(2, 3), m(3))),
    (aten.mul.Scalar, (m(2, 3), 2)),
    (aten.clone.default, (m(2, 3),)),
    (aten.convolution.default, (m(1, 4, 9, 7), m(6, 4, 3, 3), m(6), *CONV)),
    (aten.convolution.default, (m(2, 4, 9), m(6, 2, 3), None, [2], [1], [2], False, [0], 2)),
    (
        aten.convolution.default,
        (m(1, 2, 5, 5, 5), m(3, 2, 3, 3, 3), None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1),
    ),
    (aten.mm.default, (m(4, 3).t(), m(4, 5))),
    (aten.addmm.default, (m(5), m(2, 3), m(5, 3).t())),
    (aten.native_layer_norm.default, (m(2, 5, 3), [3], m(3), m(3), 1e-5)),
    (aten.native_layer_norm.default, (m(2, 5, 3), [5, 3], None, None, 1e-5)),
    (aten._softmax.default, (m(2, 3), -1, False)),
    (aten._safe_softmax.default, (m(2, 3), 1)),
    (aten.mean.dim, (m(2, 3, 4, 5), [2, 3], True)),
    (aten.mean.dim, (m(2, 3, 4, 5), [-1])),
    (aten.amax.default, (m(2, 3, 4), [1], True)),
    (aten.sum.dim_IntList, (m(2, 3, 4), [0, 2])),
    (aten.cat.default, ([m(2, 3), m(2, 4)], 1)),
    (aten.cat.default, ([m(2, 3), m(1, 3)],)),
    (aten._unsafe_view.default, (m(2, 3, 4), [6, 4])),
    (aten.stack.default, ([m(2, 3), m(2, 3)], -1)),
    (aten.stack.default, ([m(2, 3)],)),
    (aten.sum.default, (m(2, 3),)),
    (aten.mean.default, (m(2, 3),)),
    (aten.bmm.default, (m(5, 2, 3), m(5, 4, 3).transpose(1, 2))),
    (aten.constant_pad_nd.default, (m(1, 2, 5, 7), [0, 1, 1, 1], 0.0)),
    (aten.constant_pad_nd.default, (m(4), [2, 0])),
    (aten.upsample_nearest2d.default, (m(1, 3, 4, 5), [8, 10], 2.0, 2.0)),
    (aten.upsample_nearest2d.default, (m(2, 1, 1, 1), [1, 3])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [3, 3], [2, 2], [1, 1])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [2], [], [0], [3])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [2, 3])),
    (aten.clone.default, (m(2, 3).t(),), {"memory_format": torch.contiguous_format}),
    (aten.zeros.default, ([2, 3],), {"device": torch.device("meta"), "dtype": torch.int64}),
    (aten.ones.default, ([],), {"device": torch.device("meta"), "pin_memory": False}),
    (aten.relu.default, (m(2, 3).t(),)),
    (aten.mul.Tensor, (m(1, 4, 3, 5, 7).permute(2, 0, 3, 1, 4)[0], 0.5)),
    (aten.ne.Scalar, (m(2, 3), 0)),
    (aten.gt.Scalar, (m(2, 3, dtype=torch.float16), 0.5)),
    (aten.masked_fill.Scalar, (m(2, 3), m(2, 3, dtype=torch.bool), 0.0)),
    (aten.roll.default, (m(1, 4, 4, 3), [2, 2], [1, -3])),
    (aten.index.Tensor, (m(9, 3), [m(16, dtype=torch.int64)])),
    (aten.index.Tensor, (m(9, 3, 2), [m(4, 4, dtype=torch.int64)])),
    # One of them has values.
    (aten.add.Tensor, (m(2, 3), torch.zeros(()))),
    (aten.mm.default, (m(2, 3), torch.zeros(3, 4))),
    # The last that still fits.
    (aten._softmax.default, (m(2, 3), -2, False)),
    (aten._softmax.default, (m(2, 3), 1, False)),
    (aten.mean.dim, (m(2, 3), [-2])),
    (aten.mean.dim, (m(2, 3), [0, 1])),
    (aten.cat.default, ([m(2, 3), m(4, 3)], -2)),
    (aten.stack.default, ([m(2, 3), m(2, 3)], -3)),
    (aten.stack.default, ([m(2, 3), m(2, 3)], 2)),
    (aten.native_layer_norm.default, (m(5, 3), [5, 3], None, None, 1e-5)),
    (aten.convolution.default, (m(1, 4, 3, 3), m(6, 4, 5, 5), None, *CONV)),
    (aten.convolution.default, (m(1, 4, 1), m(4, 1, 1), m(4), [1], [0], [1], False, [0], 4)),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [2, 2], [2, 2], [1, 1])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 3, 3), [3, 3])),
    (aten.add.Tensor, (m(2, 3), m(2, 3)), {"alpha": 2}),
    (aten.sum.dim_IntList, (m(2, 3), [1], False)),
    (aten.constant_pad_nd.default, (m(2, 3), [1, 2, 3, 4])),
    (aten.mm.default, (m(2, 3, dtype=torch.float16), m(3, 4, dtype=torch.float16))),
]


@pytest.mark.parametrize("call", PLAIN, ids=lambda call: str(call[0]))
def test_plain_calls_are_answered_as_pytorch_does(call: tuple[Any, ...]) -> None:
    """Everything a usual network asks has an answer, and it is the meta kernel's."""
    assert agrees(*call)


def test_deformable_convolutions_are_answered_as_torchvision_does() -> None:
    """The answer stands under the name of an operator that exists only once torchvision is imported."""
    operator = torch.ops.torchvision.deform_conv2d.default
    args = (m(1, 4, 9, 9), m(6, 2, 3, 3), m(1, 18, 7, 7), m(1, 9, 7, 7), m(6), *[1, 1, 0, 0, 1, 1], 2, 1, True)
    assert outcome(META_KERNELS["torchvision::deform_conv2d"](args, {})) == outcome(operator(*args))


def test_batch_norm_saves_nothing_as_on_the_cpu() -> None:
    """With running statistics a real run returns no others, which PyTorch's meta kernel does: they cost no memory."""
    vectors = [None, None, torch.zeros(3), torch.ones(3)]
    real = aten.native_batch_norm.default(torch.zeros(2, 3, 4), *vectors, False, 0.1, 1e-5)
    vectors = [None if vector is None else vector.to("meta") for vector in vectors]
    meta_kernel = META_KERNELS[aten.native_batch_norm.default]((m(2, 3, 4), *vectors, False, 0.1, 1e-5), {})
    assert [outcome(tensor)[:3] for tensor in meta_kernel] == [outcome(tensor)[:3] for tensor in real]


ELSE = [
    (aten.relu.default, (m(3, 1).expand(3, 4),)),
    (aten.relu.default, (m(4, 1, 1)[::2],)),
    (aten.relu_.default, (m(2, 3).t(),)),
    (aten.ne.Scalar, (m(2, 3, dtype=torch.int64), 0)),
    (aten.ne.Scalar, (m(2, 3).t(), 0)),
    (aten.ne.Scalar, (m(2, 3), 1j)),
    (aten.masked_fill.Scalar, (m(2, 3), m(3, dtype=torch.bool), 0.0)),
    (aten.masked_fill.Scalar, (m(2, 3), m(2, 3, dtype=torch.uint8), 0.0)),
    (aten.roll.default, (m(2, 3), [1])),
    (aten.roll.default, (m(2, 3), [1, 1], [0])),
    (aten.roll.default, (m(2, 3), [1], [2])),
    (aten.index.Tensor, (m(9, 3), [m(9, 3, dtype=torch.bool)])),
    (aten.index.Tensor, (m(9, 3), [None, m(4, dtype=torch.int64)])),
    (aten.index.Tensor, (m(9, 3), [m(4, dtype=torch.int64)] * 2)),
    (aten.relu.default, (m(2, 3, dtype=torch.int64),)),
    (aten.add.Tensor, (m(2, 3), m(2, 3, dtype=torch.float64))),
    (aten.add.Tensor, (m(2, 3), m(2))),
    (aten.add_.Tensor, (m(3), m(2, 3))),
    (aten.mul.Scalar, (m(2, 3), 2j)),
    (aten.convolution.default, (m(1, 4, 9, 7), m(6, 3, 3, 3), m(6), *CONV)),
    (aten.convolution.default, (m(1, 4, 9, 7), m(6, 4, 3, 3), m(5), *CONV)),
    (aten.convolution.default, (m(1, 4, 1, 1), m(6, 4, 5, 5), None, *CONV)),
    (aten.convolution.default, (m(1, 4, 9, 7), m(4, 6, 3, 3), None, [1, 1], [1, 1], [1, 1], True, [0, 0], 1)),
    (aten.mm.default, (m(2, 3), m(2, 3))),
    (aten.addmm.default, (m(4), m(2, 3), m(3, 5))),
    (aten.native_batch_norm.default, (m(2, 3, 4), m(4), m(4), m(4), m(4), False, 0.1, 1e-5)),
    (aten.native_batch_norm.default, (m(2, 3, 4), m(3), m(3), m(3), m(3), True, 0.1, 1e-5)),
    (aten.native_layer_norm.default, (m(2, 3), [4], m(4), m(4), 1e-5)),
    (aten.mean.dim, (m(2, 3), [2])),
    (aten.mean.dim, (m(2, 3), [0, 0])),
    (aten.sum.dim_IntList, (m(2, 3), None)),
    (aten.cat.default, ([m(2, 3), m(3, 4)], 1)),
    (aten.cat.default, ([m(0), m(3, 4)], 1)),
    (aten.cat.default, ([],)),
    (aten.clone.default, (m(1, 2, 3, 3).to(memory_format=torch.channels_last),)),
    (aten.clone.default, (m(1, 2, 3, 3),), {"memory_format": torch.channels_last}),
    (aten.stack.default, ([],)),
    (aten.stack.default, ([m(2, 3), m(3, 2)],)),
    (aten.stack.default, ([m(2, 3)], 3)),
    (aten.sum.default, (m(2, 3, dtype=torch.int64),)),
    (aten.sum.default, (m(2, 3),), {"dtype": torch.float64}),
    (aten.bmm.default, (m(5, 2, 3), m(5, 2, 3))),
    (aten.bmm.default, (m(5, 2, 3), m(4, 3, 2))),
    (aten.constant_pad_nd.default, (m(1, 2, 5, 7), [-1, 1])),
    (aten.constant_pad_nd.default, (m(4), [1, 1, 1, 1])),
    (aten.upsample_nearest2d.default, (m(3, 4, 5), [8, 10])),
    (aten.upsample_nearest2d.default, (m(1, 3, 4, 5).to(memory_format=torch.channels_last), [8, 10])),
    (aten.max_pool2d_with_indices.default, (m(2, 9, 7), [3, 3])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [3, 3], [2, 2], [0, 0], [1, 1], True)),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [3, 3], [2, 2], [2, 2])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 2, 7), [3, 3])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [3, 3], [0, 0])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [3, 3, 3])),
    (aten.zeros.default, ([2, 3],), {"device": torch.device("cpu")}),
    # The first that no longer fits.
    (aten._softmax.default, (m(2, 3), 2, False)),
    (aten._softmax.default, (m(2, 3), -3, False)),
    (aten._softmax.default, (m(2, 3), 1, True)),
    (aten._safe_softmax.default, (m(2, 3), 1), {"dtype": torch.float64}),
    (aten.mean.dim, (m(2, 3), [-3])),
    (aten.mean.dim, (m(2, 3), [])),
    (aten.mean.dim, (m(2, 0), [1])),
    (aten.mean.dim, (m(2, 3), [1]), {"dtype": torch.float64}),
    (aten.cat.default, ([m(2, 3), m(2, 3)], 2)),
    (aten.cat.default, ([m(2, 3), m(2, 3)], -3)),
    (aten.cat.default, ([m(2, 0), m(2, 0)], 0)),
    (aten.cat.default, ([m(2, 3), m(2, 3, 1)], 0)),
    (aten.stack.default, ([m(2, 3), m(2, 3)], -4)),
    (aten.stack.default, ([m(0, 3)],)),
    (aten.native_layer_norm.default, (m(3), [2, 3], None, None, 1e-5)),
    (aten.native_layer_norm.default, (m(2, 3), [3], m(2), None, 1e-5)),
    (aten.native_layer_norm.default, (m(2, 3, dtype=torch.float16), [3], None, None, 1e-5)),
    (aten.native_batch_norm.default, (m(3), None, None, m(3), m(3), False, 0.1, 1e-5)),
    (aten.native_batch_norm.default, (m(2, 3), None, None, None, m(3), False, 0.1, 1e-5)),
    (aten.native_batch_norm.default, (m(2, 3), None, None, m(3), None, False, 0.1, 1e-5)),
    (aten.native_batch_norm.default, (m(2, 3), m(3), m(3), m(3), m(2), False, 0.1, 1e-5)),
    (aten.convolution.default, (m(4, 9), m(6, 4, 3), None, [1], [0], [1], False, [0], 1)),
    (aten.convolution.default, (m(1, 4, 9, 7), m(6, 4, 3), None, *CONV)),
    (aten.convolution.default, (m(1, 4, 9, 7), m(5, 2, 3, 3), None, *CONV[:-1], 2)),
    (aten.convolution.default, (m(0, 4, 9, 7), m(6, 4, 3, 3), None, *CONV)),
    (aten.convolution.default, (m(1, 4, 9, 7), m(6, 4, 3, 3), None, [1], *CONV[1:])),
    (aten.convolution.default, (m(1, 4, 9, 7), m(6, 4, 3, 3), None, [1, 1], [-1, 0], *CONV[2:])),
    (aten.convolution.default, (m(1, 4, 9, 7), m(6, 4, 3, 3), m(6, dtype=torch.float64), *CONV)),
    (aten.mm.default, (m(2, 3), m(3, 4, dtype=torch.float64))),
    (aten.mm.default, (m(2, 3), m(3))),
    (aten.addmm.default, (m(5), m(2, 3), m(4, 5))),
    (aten.addmm.default, (m(2, 5), m(2, 3), m(3, 5))),
    (aten.bmm.default, (m(2, 3), m(2, 3, 4))),
    (aten.bmm.default, (m(2, 3, 4), m(2, 3))),
    (aten.bmm.default, (m(5, 2, 3), m(5, 3, 2, dtype=torch.float64))),
    (aten.div.Tensor, (m(2, 3), m(2, 3)), {"rounding_mode": "floor"}),
    (aten.constant_pad_nd.default, (m(0, 3), [1, 1])),
    (aten.constant_pad_nd.default, (m(2, 3), [1, 1, 1])),
    (aten.upsample_nearest2d.default, (m(1, 3, 4, 5), [0, 10])),
    (aten.upsample_nearest2d.default, (m(1, 3, 4, 5), [8])),
    (aten.upsample_nearest2d.default, (m(0, 3, 4, 5), [8, 8])),
    (aten.max_pool2d_with_indices.default, (m(1, 0, 9, 7), [3, 3])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [3, 3], [2, 2], [-1, 0])),
    (aten.max_pool2d_with_indices.default, (m(1, 2, 9, 7), [3, 3], [2, 2], [0, 0], [0, 1])),
    (aten.zeros.default, ([2, 3],), {"device": torch.device("meta"), "memory_format": torch.contiguous_format}),
    (aten.zeros.default, ([2, 3],), {"device": torch.device("meta"), "layout": torch.sparse_coo}),
    (aten._unsafe_view.default, (m(3, 2).t(), [6])),
    (aten._unsafe_view.default, (torch.zeros(3, 2), [6])),
    # All of them have values.
    (aten.relu.default, (torch.zeros(2, 3),)),
    (aten.mm.default, (torch.zeros(2, 3), torch.zeros(3, 4))),
]


@pytest.mark.parametrize("call", ELSE, ids=lambda call: str(call[0]))
def test_anything_else_is_left_to_pytorch(call: tuple[Any, ...]) -> None:
    """Other layouts, types and calls that cannot work have no answer, so that PyTorch's stands or its error is seen."""
    assert not agrees(*call)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    full = draw(st.lists(st.integers(1, 4), max_size=4))
    cut = draw(st.integers(0, len(full)))
    return full, [draw(st.sampled_from([1, side])) for side in full[cut:]]


@settings(max_examples=60, deadline=None)
@given(shapes(), st.booleans())
def test_broadcasts_are_pytorchs(drawn: tuple[list[int], list[int]], swapped: bool) -> None:
    """Any two shapes that broadcast, in either order."""
    left, right = (m(*shape) for shape in (drawn[::-1] if swapped else drawn))
    assert agrees(aten.add.Tensor, (left, right))


SMALL = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.tuples(SMALL, SMALL, st.integers(0, 2), st.integers(1, 2)), SMALL)
def test_convolutions_are_pytorchs(side: int, window: tuple[int, int, int, int], groups: int) -> None:
    """Any arguments: the answer is PyTorch's, or there is none because PyTorch refuses too, or the formula does."""
    kernel, stride, pad, dilation = window
    args = (m(2, 2 * groups, side), m(4 * groups, 2, kernel), None, [stride], [pad], [dilation], False, [0], groups)
    if not agrees(aten.convolution.default, args):
        with pytest.raises(RuntimeError):
            FORMULAS["aten::convolution"](args, aten.convolution.default(*args))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(SMALL, SMALL, st.integers(1, 9), st.integers(1, 9)),
    *[st.lists(st.integers(least, most), min_size=1, max_size=2) for least, most in ((1, 4), (1, 3), (0, 2), (1, 2))],
)
def test_pools_are_pytorchs(
    shape: tuple[int, ...], size: list[int], step: list[int], pad: list[int], gap: list[int]
) -> None:
    """Any arguments: the answer is PyTorch's, or it is left to PyTorch."""
    agrees(aten.max_pool2d_with_indices.default, (m(*shape), size, step, pad, gap))


@settings(max_examples=60, deadline=None)
@given(st.lists(SMALL, min_size=1, max_size=4), st.lists(st.integers(0, 2), max_size=8), st.integers(-5, 4))
def test_pads_stacks_and_repeats_are_pytorchs(shape: list[int], pads: list[int], dim: int) -> None:
    """Any shape, sides of one included, whose strides say little."""
    agrees(aten.constant_pad_nd.default, (m(*shape), pads))
    agrees(aten.stack.default, ([m(*shape), m(*shape)], dim))
    agrees(aten.upsample_nearest2d.default, (m(*shape), [2, 3]))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t", "vit_b_16"])
def test_whole_models_count_the_same_without_our_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PyTorch's kernels alone all costs the same; only batch norms' unused statistics take memory there."""
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    with_ours = count(model, torch.zeros(1, 3, 224, 224))
    monkeypatch.setattr("featherpress.budgets.counting.dispatch.META_KERNELS", {})
    monkeypatch.setattr("featherpress.budgets.counting.layers.LAYERS", {})
    without = count(model, torch.zeros(1, 3, 224, 224))
    assert with_ours.work == without.work
    assert with_ours.elementwise_work == without.elementwise_work
    assert with_ours.operator_calls.keys() == without.operator_calls.keys()
    channels = sum(norm.num_features for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d))
    assert without.activations - with_ours.activations == 2 * 4 * channels
