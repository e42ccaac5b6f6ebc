"""Layers answered whole: the cost is that of their forward, or the forward runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

from featherpress.budgets import Cost, count
from featherpress.budgets.counting import attribution, dispatch, layers

Answers = list[str]


@contextmanager
def answers(*, known: bool = True) -> Iterator[Answers]:
    """List the classes of the layers that are answered whole; none if no class is known, and no row either."""
    found: Answers = []

    def answer(module: nn.Module, x: Any, state: tuple[Any, ...], usual: set[type]) -> layers.Answer | None:
        out = layers.answer_layer(module, x, state, usual) if known else None
        found.extend([type(module).__name__] if out else [])
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "answer_layer", answer)
        if not known:
            patch.setattr(attribution, "is_row", lambda module: False)
        yield found


def both(model: nn.Module, *inputs: Any, **options: Any) -> tuple[Cost, Answers]:
    """Count with and without answers to layers: all must be the same."""
    with answers(known=False):
        without = count(model, *inputs, **options)
    with answers() as found:
        cost = count(model, *inputs, **options)
    assert cost == without, model
    return cost, found


def z(*shape: int) -> Tensor:
    return torch.zeros(shape)


LAYERS: list[tuple[nn.Module, Tensor]] = [
    *((kind(inplace=inside), z(2, 3, 4)) for kind in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.ELU) for inside in (False, True)),
    *((kind(inplace=inside), z(2, 3, 4)) for kind in (nn.Hardswish, nn.Hardsigmoid) for inside in (False, True)),
    *((nn.LeakyReLU(slope, inplace=inside), z(2, 3)) for slope in (0.01, 0.2, 1) for inside in (False, True)),
    *((layer, z(2, 3, 4, 4)) for layer in (nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.GELU("tanh"))),
    *((nn.Linear(4, 5, bias=bias), z(*shape, 4)) for bias in (False, True) for shape in ((2,), (2, 3), (1, 1))),
    (nn.LayerNorm(4), z(2, 3, 4)),
    (nn.LayerNorm((3, 4), elementwise_affine=False), z(2, 3, 4)),
    (nn.LayerNorm(4, bias=False), z(2, 4)),
    *((nn.Dropout(inplace=inside), z(2, 3)) for inside in (False, True)),
    (nn.Identity(), z(2, 3)),
    *((nn.AdaptiveAvgPool2d(size), z(2, 3, 4, 5)) for size in (1, (1, 1))),
    (nn.AdaptiveAvgPool2d(1), z(3, 4, 5)),
    *((nn.MaxPool2d(*window), z(1, 3, 9, 8)) for window in ((2,), (3, 2, 1), ((2, 3), (2, 1)), (3, 1, 1, 2))),
    *((nn.Conv2d(4, 6, 3, *rest), z(2, 4, 9, 8)) for rest in ((), (2,), (1, 1), (1, 2, 2), (1, 0, 1, 2))),
    (nn.Conv1d(4, 6, 3, padding=1), z(2, 4, 9)),
    (nn.Conv3d(2, 2, (1, 2, 3), bias=False), z(1, 2, 4, 4, 4)),
    (nn.BatchNorm1d(3), z(2, 3)),
    (nn.BatchNorm1d(3), z(2, 3, 5)),
    (nn.BatchNorm2d(3, affine=False), z(2, 3, 4, 4)),
    (nn.BatchNorm3d(3), z(1, 3, 2, 2, 2)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_layer_costs_what_its_forward_costs(dtype: torch.dtype) -> None:
    """Work, operators, memory, shapes and notes; and every class is answered."""
    seen: set[str] = set()
    for layer, x in LAYERS:
        _, found = both(nn.Sequential(nn.Conv1d(1, 1, 1), layer, nn.Identity()).to(dtype)[1:], x.to(dtype))
        assert found == [type(layer).__name__, "Identity"], layer
        seen.update(found)
    assert seen == {kind.__name__ for kind in layers.LAYERS}


SMALL = st.integers(1, 4)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LAYERS), st.lists(st.integers(0, 5), max_size=5), st.booleans(), st.booleans())
def test_any_tensor_into_any_layer(layer: tuple[nn.Module, Tensor], shape: list[int], turned: bool, half: bool) -> None:
    """Any shape, layout or type costs the same both ways, or fails the same."""
    x = torch.zeros(shape, dtype=torch.float16 if half else torch.float32)
    same_outcome(layer[0], x.transpose(0, -1) if turned and shape else x)


def same_outcome(model: nn.Module, x: Tensor) -> None:
    try:
        both(model, x)
    except Exception:
        outcomes = []
        for known in (False, True):
            with answers(known=known):
                try:
                    outcomes.append(repr(count(model, x)))
                except Exception as error:
                    outcomes.append(repr(error))
        assert outcomes[0] == outcomes[1]


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[SMALL] * 3), st.tuples(SMALL, SMALL, st.integers(0, 2), SMALL), st.booleans(), st.integers(5, 9))
def test_any_convolution(
    channels: tuple[int, int, int], window: tuple[int, int, int, int], bias: bool, side: int
) -> None:
    """Any arguments."""
    groups, inside, outside = channels[0], channels[0] * channels[1], channels[0] * channels[2]
    layer = nn.Conv2d(inside, outside, *window, groups, bias)
    same_outcome(nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU(inplace=True)), z(2, inside, side, side + 1))


@settings(max_examples=60, deadline=None)
@given(SMALL, SMALL, SMALL, st.booleans(), st.lists(st.integers(0, 4), max_size=3))
def test_any_product_and_norm(inside: int, middle: int, outside: int, bias: bool, rows: list[int]) -> None:
    """Any rows."""
    model = nn.Sequential(
        nn.Linear(inside, middle, bias), nn.LayerNorm(middle), nn.GELU(), nn.Linear(middle, outside, bias)
    )
    same_outcome(model, z(*rows, inside))


class Trains(nn.Module):
    """Puts a layer into training mode as it runs, as where dropout stays on to sample."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer.train()(x)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), z(1, 3, 6, 6)),
        (nn.Conv2d(3, 4, 3, padding="same"), z(1, 3, 6, 6)),
        (nn.MaxPool2d(2, ceil_mode=True), z(1, 3, 5, 5)),
        (nn.MaxPool2d(2, return_indices=True), z(1, 3, 4, 4)),
        (nn.BatchNorm2d(3, track_running_stats=False), z(1, 3, 4, 4)),
        (Trains(nn.BatchNorm2d(3)), z(2, 3, 4, 4)),
        (Trains(nn.Dropout(0.5)), z(2, 3)),
    ],
)
def test_a_layer_with_settings_that_do_more_runs(model: nn.Module, x: Tensor) -> None:
    """Padding by copies, rounding up, places beside values, statistics of the batch, a mask that is drawn."""
    _, found = both(model, x)
    assert not found


def hooked(model: Any) -> None:
    model[0].register_forward_hook(lambda module, args, out: out @ out.new_ones(4, 4))


def hooked_before(model: Any) -> None:
    model[0].register_forward_pre_hook(lambda module, args: (args[0] @ args[0].new_ones(4, 4),))


def with_a_forward(model: Any) -> None:
    model[0].forward = lambda x: F.linear(F.linear(x, model[0].weight), model[0].weight)


def shadowed(model: Any) -> None:
    weight = model[0].weight
    del model[0]._parameters["weight"]
    vars(model[0])["weight"] = torch.cat([weight, weight])
    model[0].bias, model[1] = None, nn.Identity()


def parametrised(model: Any) -> None:
    parametrizations.weight_norm(model[0])


def subclassed(model: Any) -> None:
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(super().forward(x))

    model[0].__class__ = Twice


def without_bias(model: Any) -> None:
    model[0].bias = None


@pytest.mark.parametrize(
    ("change", "macs", "answered"),
    [
        (hooked, 2 * 16 + 16, False),
        (hooked_before, 2 * 16 + 16, False),
        (with_a_forward, 3 * 16, False),
        (shadowed, 2 * 16, False),
        (parametrised, 2 * 16, False),
        (subclassed, 3 * 16, False),
        (without_bias, 2 * 16, True),
    ],
)
def test_a_layer_that_is_not_as_usual_runs(change: Callable[[Any], None], macs: int, answered: bool) -> None:
    """Hooks, forwards, weights and classes of its own are all seen."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    change(model)
    cost, found = both(model, z(1, 4))
    assert cost.macs == macs
    assert (len(found) == 2) is answered


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (F, "relu"),
        (torch, "relu"),
        (nn.ReLU, "forward"),
        *((nn.Module, name) for name in ("_call_impl", "__call__")),
        *((nn.ReLU, name) for name in ("_call_impl", "__call__")),
    ],
)
def test_code_that_was_replaced_runs(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever patches PyTorch is heard."""
    usual = getattr(owner, name)

    def other(*args: Any, **kwargs: Any) -> Any:
        out = usual(*args, **kwargs)
        return out @ out.new_ones(out.shape[-1], 3)

    in_a_row = nn.Sequential(nn.Identity(), nn.ReLU())
    monkeypatch.setattr(owner, name, other)
    if owner is not nn.Module:
        cost, found = both(nn.ReLU(), z(2, 4))
        assert cost.macs == 24
        assert not found
    _, found = both(in_a_row, z(2, 4))
    assert "ReLU" not in found


def test_a_convolution_with_a_padding_of_its_own_runs() -> None:
    """As models that make seamless pictures replace it, in each layer."""
    layer: Any = nn.Conv2d(1, 1, 3, padding=1)
    layer._conv_forward = lambda x, weight, bias: F.conv2d(F.pad(x, (2, 2, 2, 2), mode="circular"), weight, bias)
    assert both(layer, z(1, 1, 4, 4))[0].macs == 6 * 6 * 9


class Around(nn.Module):
    """Runs a layer where more than its forward is done."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.way = nn.Linear(4, 4), way

    def forward(self, x: Tensor) -> Any:
        return self.way(self.layer, x)


def differentiated(layer: nn.Module, x: Tensor) -> Any:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(layer(x).sum(), x)


def mapped(layer: nn.Module, x: Tensor) -> Any:
    return torch.func.vmap(layer)(x)


def forward_mode(layer: nn.Module, x: Tensor) -> Any:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))  # type: ignore[no-untyped-call]
        return layer(dual)


def watched(layer: nn.Module, x: Tensor) -> Any:
    class Twice(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            return func(out, *args[1:], **(kwargs or {})) if func is F.linear else out

    with Twice():
        return layer(x)


def cast(layer: nn.Module, x: Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x)


def inferred(layer: nn.Module, x: Tensor) -> Any:
    with torch.inference_mode():
        return layer(x)


def negated(layer: nn.Module, x: Tensor) -> Any:
    return layer(torch._neg_view(x))


def called_otherwise(layer: Any, x: Tensor) -> Any:
    return layer(input=x) + F.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize(
    "way", [differentiated, mapped, watched, cast, inferred, negated, called_otherwise], ids=lambda way: way.__name__
)
def test_a_layer_in_a_place_that_is_not_as_usual_runs(way: Callable[[nn.Module, Tensor], Any]) -> None:
    """Gradients, transforms, modes and casts see its operators."""
    _, found = both(Around(way), z(2, 4))
    assert not found


def test_a_layer_in_forward_mode_runs() -> None:
    """Tangents go along: a product for the result, one for the input's, and one for the weight's, which is of zeros."""
    with answers() as found:
        cost = count(Around(forward_mode), z(2, 4))
    assert not found
    assert cost.macs == 3 * count(Around(lambda layer, x: layer(x)), z(2, 4)).macs


def test_a_formula_of_the_callers_gets_what_the_dispatcher_gives() -> None:
    """Lists, and defaults left out."""
    seen: list[Any] = []

    def formula(args: Any, out: Any) -> int:
        seen.append(args[3:])
        return 1

    assert count(nn.Conv2d(1, 1, 3), z(1, 1, 4, 4), formulas={"aten::convolution": formula}).macs == 1
    assert seen == [([1, 1], [0, 0], [1, 1], False, [0, 0], 1)]


def test_a_layer_that_writes_outside_the_copy_is_refused() -> None:
    """In place on a tensor that is nobody's: as where the operator arrives alone."""
    held = torch.zeros(2, 3, device="meta")

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act(KEPT[0]) + x
            return out

    KEPT[:] = [held]
    try:
        same_outcome(Writes(), z(2, 3))
        with pytest.raises(Exception, match="outside the copy"):
            count(Writes(), z(2, 3))
    finally:
        KEPT.clear()


KEPT: list[Tensor] = []


class Product(nn.Module):
    """A product with itself, so that a call shows, and something done before it."""

    def __init__(self, turn: Callable[[], Any] = bool) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        self.turn()
        return x @ x


def row() -> Any:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(Product(), nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4))


class Backwards(nn.Sequential):
    """In the other order, by its own way to list its children."""

    def __iter__(self) -> Iterator[nn.Module]:
        return reversed([*self._modules.values()] * 2)  # type: ignore[arg-type]


class Twofold(nn.Sequential):
    """Hands on twice what it has."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(super().forward(x))
        return out


class Called(nn.Sequential):
    """Is called twice."""

    def _call_impl(self, *args: Any) -> Any:
        return super()._call_impl(super()._call_impl(*args))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("change", "macs"),
    [
        (lambda model: None, 4 * 64),
        (lambda model: model[1].register_forward_hook(lambda module, args, out: out @ out), 5 * 64),
        (lambda model: model[1].register_forward_pre_hook(lambda module, args: (args[0] @ args[0],)), 5 * 64),
        (lambda model: vars(model[1]).update(forward=lambda x: x @ x @ x), 4 * 64),
        (lambda model: model.__setitem__(1, Backwards(*model[1])), 6 * 64),
        (lambda model: model.__setitem__(1, Twofold(*model[1])), 6 * 64),
        (lambda model: model.__setitem__(1, Called(*model[1])), 6 * 64),
        (lambda model: model.__setitem__(1, type("Alike", (nn.Sequential,), {})(*model[1])), 4 * 64),
        (lambda model: model.__setitem__(1, nn.Sequential()), 2 * 64),
    ],
)
def test_a_row_does_what_its_forward_does(change: Callable[[Any], Any], macs: int) -> None:
    """With hooks, a forward or an order of its own it runs."""
    model = row()
    change(model)
    cost, _ = both(model, z(4, 4))
    assert cost.macs == macs


def test_layers_in_a_row_are_looked_at_anew_after_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have replaced code, or turned a switch."""
    usual = nn.ReLU.forward
    monkeypatch.setattr(nn.ReLU, "forward", usual)

    def replace() -> None:
        monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: usual(self, x) @ x)

    for turn, macs in ((replace, 2 * 64), (lambda: torch.set_grad_enabled(True), 64)):
        monkeypatch.setattr(nn.ReLU, "forward", usual)
        with answers() as found:
            assert count(nn.Sequential(nn.ReLU(), Product(turn), nn.ReLU()), z(4, 4)).macs == macs
        assert found == ["ReLU"]


class Grows(Product):
    """Puts a new layer behind itself."""

    def forward(self, x: Tensor) -> Tensor:
        self.around[0][1] = nn.Linear(4, 4, device="meta")
        return x


def test_what_is_put_into_a_row_meanwhile_runs() -> None:
    """Also a layer that no count follows."""
    grows: Any = Grows()
    model = nn.Sequential(grows, nn.ReLU())
    grows.around = [model]
    assert both(model, z(4, 4))[0].macs == 64


def test_hooks_on_all_modules_see_rows_and_layers() -> None:
    """Neither is answered."""

    def hook(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out @ out

    with nn.modules.module.register_module_forward_hook(hook):
        for model, macs in ((nn.Linear(4, 4), 2), (nn.Sequential(), 1), (row(), 4 + 7)):
            cost, found = both(model, z(4, 4))
            assert cost.macs == 64 * macs
            assert not found


def test_a_row_may_be_called_by_name() -> None:
    """Then its forward runs."""
    model = Around(lambda layer, x: layer(input=x))
    model.layer = row()
    assert both(model, z(4, 4))[0].macs == 4 * 64
