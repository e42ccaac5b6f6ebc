"""What the counter promises besides the numbers: strict, tied tensors once, and the model untouched."""

import copy
import gc
import pickle
import random
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.errors import CountError, UsageError

from .does import Does


class Tied(nn.Module):
    """An embedding and an output layer with one weight between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))


class TwoParents(nn.Module):
    """One convolution registered under two branches and called through both."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(4, 4, 1, bias=False)
        self.left, self.right = nn.Sequential(conv), nn.Sequential(nn.ReLU(), conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, int], int]:
    groups = draw(st.integers(1, 3))
    kernel = draw(st.integers(1, 3))
    conv = nn.Conv2d(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
    )
    side = st.integers(2 * kernel, 12)
    return conv, (draw(side), draw(side)), draw(st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_batch_doubles_macs_and_not_params(drawn: tuple[nn.Conv2d, tuple[int, int], int]) -> None:
    """Any convolution follows its closed form, and twice the batch is twice the MACs and the same parameters."""
    conv, (height, width), batch = drawn
    image = torch.zeros(batch, conv.in_channels, height, width)
    one, two = count(conv, image), count(conv, torch.cat([image, image]))
    positions = conv(image)[0, 0].numel()
    kernel = conv.kernel_size[0] * conv.kernel_size[1]
    assert one.macs == batch * positions * conv.out_channels * conv.in_channels // conv.groups * kernel
    assert (two.macs, two.params) == (2 * one.macs, one.params)
    assert two.elementwise == 2 * one.elementwise


@settings(max_examples=30, deadline=None)
@given(convolutions(), st.integers(1, 2))
def test_transposed_convolutions_follow_their_closed_form(
    drawn: tuple[nn.Conv2d, tuple[int, int], int], stride: int
) -> None:
    """One kernel for each input position, whatever the other arguments."""
    like, (height, width), batch = drawn
    sizes = {"kernel_size": like.kernel_size, "stride": stride, "dilation": like.dilation, "groups": like.groups}
    conv = nn.ConvTranspose2d(like.in_channels, like.out_channels, **sizes)
    kernel = like.kernel_size[0] * like.kernel_size[1]
    cost = count(conv, torch.zeros(batch, like.in_channels, height, width))
    assert cost.macs == batch * height * width * like.in_channels * like.out_channels // like.groups * kernel


def test_tied_weight_counts_once_and_names_its_owners() -> None:
    """A tensor in two modules is one row of its own; neither owner claims it."""
    cost = count(Tied(), torch.zeros(2, 3, dtype=torch.long))
    assert (cost.params, cost.macs) == (40, 6 * 40)
    (row,) = cost.shared
    assert (row.owners, row.params) == (("embed.weight", "head.weight"), 40)
    assert {r.path: r.params for r in cost.modules if not r.owners} == {"": 0, "embed": 0, "head": 0}


def test_a_module_with_two_parents_works_where_it_is_called() -> None:
    """The convolution's two calls are credited to the branch that ran, not twice to the first."""
    cost = count(TwoParents(), torch.zeros(1, 4, 3, 3))
    macs = {row.path: (row.macs, row.calls) for row in cost.modules if row.macs}
    assert macs == {"left.0": (144, 1), "right.1": (144, 1)}
    assert cost.params == 16
    assert cost.subtree("right").macs == 144


def test_unused_and_frozen_parameters_have_columns() -> None:
    """A weight handed to a function counts as used though its module never ran; one nobody reads is unused."""

    class Borrowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lender = nn.Linear(4, 3, bias=False)
            self.idle = nn.Linear(4, 2, bias=False)
            self.lender.weight.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.lender.weight.data)

    cost = count(Borrowed(), torch.zeros(1, 4))
    assert (cost.params, cost.trainable, cost.frozen, cost.unused) == (20, 8, 12, 8)
    assert cost.unused_names == ("idle.weight",)
    assert next(row for row in cost.modules if row.path == "lender").calls == 0


def test_functional_work_belongs_to_the_running_module() -> None:
    """A matrix product written in a forward is credited to that module's own row."""

    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.T

    cost = count(nn.Sequential(Block(), nn.Linear(3, 1)), torch.zeros(3, 5))
    assert {row.path: row.macs for row in cost.modules} == {"": 0, "0": 45, "1": 9}


def test_a_forward_that_fails_leaves_its_module() -> None:
    """What a parent does after it caught a child's failure is the parent's work, and the child was called."""

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError(x @ x.T)

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child = Fails()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.child(x)
            except KeyError:
                return x @ x.T

    cost = count(Catches(), torch.zeros(3, 5))
    assert {row.path: (row.macs, row.calls) for row in cost.modules} == {"": (45, 1), "child": (45, 1)}


def test_an_unknown_operator_is_an_error_that_names_it() -> None:
    """An operator from elsewhere is never a silent zero: the error names it and the module, and a formula mends it."""

    @torch.library.custom_op("featherpress_test::mystery", mutates_args=())
    def mystery(x: Tensor) -> Tensor:
        return x.clone()

    mystery.register_fake(torch.empty_like)

    class Swallows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return mystery(x)
            except Exception:
                return x

    model = nn.Sequential(nn.Linear(4, 4), Swallows())
    with pytest.raises(CountError, match=r"featherpress_test::mystery in module 1 \(Swallows\)") as caught:
        count(model, torch.zeros(2, 4))
    assert caught.value.exit_code == 3
    cost = count(model, torch.zeros(2, 4), formulas={"featherpress_test::mystery": lambda args, out: out.numel()})
    assert cost.macs == 32 + 8


def test_an_operator_that_only_tells_a_number_costs_nothing() -> None:
    """A forward that imports torchvision asks for the version of its CUDA; one that takes anything may do work."""

    @torch.library.custom_op("featherpress_test::version", mutates_args=())
    def version() -> int:
        return 3

    @torch.library.custom_op("featherpress_test::work", mutates_args=())
    def work(handle: int) -> int:
        return handle

    layer = nn.Linear(4, 4)
    asks = Does(lambda self, x: self.layer(x) * torch.ops.featherpress_test.version(), layer=layer)
    assert count(asks, torch.zeros(2, 4)).macs == 2 * 4 * 4
    works = Does(lambda self, x: self.layer(x) * torch.ops.featherpress_test.work(3), layer=layer)
    with pytest.raises(CountError, match="featherpress_test::work"):
        count(works, torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("aten::_fft_r2c", torch.fft.fft),
        ("aten::_cdist_forward", lambda x: torch.cdist(x, x)),
        ("higher_order::cond", lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))),
    ],
)
def test_work_outside_the_convention_is_refused(name: str, function: Callable[[Tensor], Tensor]) -> None:
    """A Fourier transform, pairwise distances and a branch on values have no core MACs by our convention: no zero."""

    class Calls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    with pytest.raises(CountError, match=f"no formula for operator {name}"):
        count(Calls(), torch.zeros(2, 4))


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        # No backend runs here, and to import the default one warns on PyTorch 2.11.
        partial(torch.compile, backend="eager"),
        lambda m: nn.utils.parametrizations.weight_norm(m, dim=None),
    ],
    ids=["data parallel", "compiled", "weight norm"],
)
def test_wrappers_do_not_change_the_count(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """What stands around a module adds no MACs and hides none."""
    assert count(wrap(nn.Linear(4, 3)), torch.zeros(2, 4)).macs == 24


def test_modes_of_the_caller_do_not_change_the_count() -> None:
    """Inference mode and autocast around the call leave the numbers alone."""
    linear = nn.Linear(4, 3)
    with torch.inference_mode():
        assert count(linear, torch.zeros(2, 4)).macs == 24
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert count(linear, torch.zeros(2, 4)).macs == 24


def test_core_work_after_a_value_dependent_shape_is_refused() -> None:
    """A count that would depend on the pixels is no count; harmless post-processing only leaves a note."""

    class Selects(nn.Module):
        def __init__(self, *, then: nn.Module) -> None:
            super().__init__()
            self.body, self.then = nn.Linear(4, 4), then

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            return self.then(x[x[:, 0] > -1e9])

    with pytest.raises(CountError, match="depends on values"):
        count(Selects(then=nn.Linear(4, 2)), torch.zeros(3, 4))
    cost = count(Selects(then=nn.ReLU()), torch.zeros(3, 4))
    assert (cost.macs, cost.method) == (48, "meta")
    assert "aten::index" in cost.notes[0]


class Stateful(nn.Module):
    """Changes itself, draws random numbers and fails when told to."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()
        self.fails, self.calls = fails, 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        random.random()  # noqa: S311 - only moves the generator
        x = self.drop(self.norm(self.conv(x))) + torch.rand(1, device=x.device)
        if self.fails:
            raise ValueError("not today")
        return x


def test_rows_are_made_when_they_are_read() -> None:
    """They are the same then, whatever became of the model; and as a tuple they compare, slice, copy and pickle."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    held = [weakref.ref(each) for each in (model[0], model[1].running_mean, model[0].weight)]
    early, late, copied = (count(model, torch.zeros(1, 3, 5, 5)) for _ in range(3))
    made = tuple(early.modules)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model[0] = nn.Identity()
    del model
    gc.collect()
    assert not any(each() for each in held)
    assert late == early
    assert late.modules[0] is late.modules[0]
    assert late.modules[1:3] == made[1:3]
    assert (late.modules != early.modules, len(late.modules), hash(late.modules)) == (False, 4, hash(made))
    assert repr(late.modules) == repr(made)
    assert pickle.loads(pickle.dumps(copied)) == copy.deepcopy(copied) == early  # noqa: S301 - our own
    assert early.modules != made[1:]


def test_rows_that_do_not_sum_to_the_totals_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads them is told."""
    cost = count(nn.Linear(2, 3), torch.zeros(1, 2))
    monkeypatch.setattr("featherpress.budgets.counting.summary.rows_of", lambda owned: {"": {"params": 8}})
    with pytest.raises(CountError, match=r"the rows of Linear sum to 8 params, not 9: this is a bug in featherpress"):
        list(cost.modules)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_comes_back_untouched(fails: bool) -> None:
    """State, hooks, train flags, gradients and random generators are as before, even when forward raises."""
    model = Stateful(fails=fails).train()
    model.norm.eval()
    before: dict[str, Any] = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), torch.backends.mha.get_fastpath_enabled()
    if fails:
        with pytest.raises(UsageError, match=r"Stateful fails on inputs 1x3x8x8: not today"):
            count(model, torch.ones(1, 3, 8, 8))
    else:
        assert count(model, torch.ones(1, 3, 8, 8)).macs == 36 * 4 * 27
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.calls == 0
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), torch.backends.mha.get_fastpath_enabled()) == states[1:]


def test_any_nest_of_inputs_and_outputs() -> None:
    """Inputs may be lists and dictionaries, outputs anything; keywords go through `kwargs`."""

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, batch: dict[str, list[Tensor]], *, scale: float) -> dict[str, Any]:
            return {"out": [self.linear(x) * scale for x in batch["images"]], "none": None}

    cost = count(Nested(), {"images": [torch.zeros(1, 4), torch.zeros(3, 4)]}, kwargs={"scale": 2.0})
    assert cost.macs == 4 * 8
    assert cost.inputs == ((1, 4), (3, 4))


@pytest.mark.parametrize(
    ("needs", "method"),
    [
        (lambda x: None, "meta"),
        (lambda x: torch._assert(x.device.type == "cpu", "wants a device"), "fake"),
        (lambda x: x.sum().item(), "real"),
    ],
)
def test_the_ladder_says_which_step_held(needs: Callable[[Tensor], object], method: str) -> None:
    """Who asks for a device gets fake tensors, who asks for values a real run; all three count the same."""

    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            needs(x)
            return self.linear(x)

    cost = count(Asks(), torch.zeros(3, 4))
    assert (cost.macs, cost.params, cost.unused, cost.method) == (24, 10, 0, method)


def test_tensors_outside_parameters_and_buffers() -> None:
    """A tensor kept as a plain attribute, or made in forward without a device, does not stop the meta count."""

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.ones(4, 3)
            self.tables = [torch.ones(3, 2)]

        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.zeros(4)) @ self.table @ self.tables[0]

    cost = count(Keeps(), torch.zeros(5, 4))
    assert (cost.macs, cost.method) == (60 + 30, "meta")


def test_tensors_from_values_meet_those_without() -> None:
    """Numbers and arrays become tensors in forward, and factories are asked for a device: all is counted on meta."""

    class Makes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x + torch.tensor([1.0, 2.0]) + torch.as_tensor([1.0, 2.0]) + torch.from_numpy(np.ones(2, np.float32))
            rows = torch.tensor([2, 3]).sum().item()
            x = x @ torch.ones(2, int(rows), device="cpu") @ torch.empty(5, 7).normal_()
            return x.masked_fill(torch.tensor(True), 0.0) * torch.arange(7.0) + torch.Tensor(3, 7)

    cost = count(Makes(), torch.zeros(3, 2))
    assert (cost.macs, cost.method) == (3 * 2 * 5 + 3 * 5 * 7, "meta")


def test_values_that_would_be_overwritten_are_not_trusted() -> None:
    """A tensor with values, overwritten by one without, ends the count on meta, also if the forward catches that."""

    class Overwrites(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            number = torch.tensor([1])
            with suppress(RuntimeError):
                number += torch.full_like(x[0, :1], 3).long()
            for _ in range(int(number)):
                x = x @ torch.eye(2)
            return x

    cost = count(Overwrites(), torch.zeros(3, 2))
    assert (cost.macs, cost.method) == (4 * 12, "real")


def test_work_in_another_thread_is_refused() -> None:
    """What sees operators is of one thread: modules that run in others would be a silent zero."""

    class Threads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            with ThreadPoolExecutor(1) as pool:
                return sum(pool.map(lambda module: module(x), [self.a, self.b]))

    with pytest.raises(CountError, match=r"module a runs in a thread of its own") as caught:
        count(Threads(), torch.zeros(2, 4))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("forward", "note"),
    [
        (lambda w, x: (w.detach().numpy().sum(), x * 2)[1], "numpy in (root) (Runs) takes values out"),
        (lambda w, x: x @ w if x.sum() > 0 else x, "aten::_local_scalar_dense in (root) (Runs) reads a value"),
    ],
    ids=["numpy", "branch"],
)
def test_values_that_leave_are_noted(forward: Callable[[Tensor, Tensor], Tensor], note: str) -> None:
    """What numpy works out, and what a branch on values did not run, is in no count: a note says so."""

    class Runs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return forward(self.w, x)

    cost = count(Runs(), -torch.ones(2, 4))
    assert (cost.macs, cost.method) == (0, "real")
    assert any(found.startswith(note) for found in cost.notes)


@pytest.mark.parametrize(("draw", "whose"), [(random.random, "Python"), (np.random.rand, "NumPy")])
def test_random_numbers_that_are_drawn_are_noted(draw: Callable[[], float], whose: str) -> None:
    """A layer that is left out at random is in one count and not in the next; the user's own go on as before."""

    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if draw() < 2 else x

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    cost, drawn = count(Drops(), torch.zeros(2, 4)), draw()
    assert cost.macs == 2 * 4 * 4
    assert cost.notes == (
        f"the forward draws random numbers of {whose}: where it goes another way by them, it costs otherwise",
    )
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    assert draw() == drawn
    assert not count(nn.Linear(4, 4), torch.zeros(2, 4)).notes


GENERATORS: dict[str, Any] = {
    "Random": random.Random(0),  # noqa: S311
    "Generator": np.random.default_rng(0),
    "RandomState": np.random.RandomState(0),
}


def draw_by_method(generator: Any) -> Callable[[], float]:
    """Keep a method in place of its generator."""
    return generator.random  # type: ignore[no-any-return]


def draw_by_closure(generator: Any) -> Callable[[], float]:
    """Keep a function that holds a generator."""
    return lambda: generator.random()  # noqa: PLW0108


def draw_by_global(generator: Any) -> Callable[[], float]:
    """Find the generator among this module's variables."""
    name = type(generator).__name__
    return lambda: GENERATORS[name].random()  # type: ignore[no-any-return]  # noqa: PLW0108


@pytest.mark.parametrize("keep", [draw_by_method, draw_by_closure, draw_by_global])
@pytest.mark.parametrize("whose", GENERATORS)
def test_generators_that_are_kept_are_noted_and_go_on_from_where_they_were(
    whose: str, keep: Callable[[Any], Callable[[], float]]
) -> None:
    """Those of a model, of a function and of a module are no one's to move but their owner's."""
    own = copy.deepcopy(GENERATORS[whose])
    before = pickle.dumps((own, GENERATORS[whose]))

    class Drops(nn.Module):
        def __init__(self, draw: Callable[[], float]) -> None:
            super().__init__()
            self.layer, self.draw = nn.Linear(4, 4), draw

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if self.draw() < 2 else x

    assert count(Drops(keep(own)), torch.zeros(2, 4)).notes == (
        f"the forward draws random numbers of a {whose}: where it goes another way by them, it costs otherwise",
    )
    assert pickle.dumps((own, GENERATORS[whose])) == before


DICE = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("generator", [DICE, None])
def test_every_run_draws_the_same(generator: torch.Generator | None) -> None:
    """What one draw decides is not taken for work that depends on the inputs."""

    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if torch.rand((), generator=generator and DICE).item() < 0.5 else x

    model = Drops()
    torch.manual_seed(0)  # 0.496, then 0.768
    states = DICE.get_state(), torch.get_rng_state()
    costs = [count(model, torch.zeros(2, 4)) for _ in range(2)]
    assert costs[0].macs == costs[1].macs
    assert all("reads a value" in cost.notes[0] for cost in costs)
    assert torch.equal(DICE.get_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


def test_parameters_that_no_module_names_are_noted() -> None:
    """Layers in a plain list are no parameters of the model, for PyTorch as for us; a note says how many are read."""

    class Hides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(4, 4), nn.Linear(4, 2)]

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[1](self.layers[0](x))

    cost = count(Hides(), torch.zeros(2, 4))
    assert (cost.params, cost.macs) == (0, 48)
    assert cost.notes[0].startswith("30 parameters that the forward reads are not the model's")


def test_weights_reached_through_the_original_are_used() -> None:
    """A function that holds on to the original model reads its weights: they are not reported as unused."""

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)
            self.function = lambda x: self.inner(x) * 2

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)

    cost = count(Calls(), torch.zeros(2, 4))
    assert (cost.macs, cost.unused) == (24, 0)


def test_values_missing_on_the_meta_device_are_told() -> None:
    """A model built without memory can be counted until it reads a value: then the sentence says what is missing."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3, device="meta")

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if x.sum().item() == 0 else x

    with pytest.raises(UsageError, match="meta device, where they have none: build them on the CPU"):
        count(Reads(), torch.zeros(2, 4))


def test_flexible_attention_costs_what_attention_costs() -> None:
    """An operator that takes functions is counted where it has a formula; a mask saves nothing, as for the others."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention

    class Attends(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return flex(q, q, q)

    assert count(Attends(), torch.zeros(1, 2, 16, 8)).macs == 2 * 16 * 16 * (8 + 8)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.distributions.Normal(x, torch.ones_like(x)).rsample(),
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 255),
        lambda x: nn.functional.embedding(torch.zeros(2, dtype=torch.long), torch.ones(3, 4), max_norm=1.0),
        lambda x: x * torch.hamming_window(4) + x.clone().random_() + torch.fft.fftfreq(4),
        lambda x: torch._foreach_mul([x, x], 2.0)[0],
    ],
    ids=["distribution", "fake quantisation", "embedding with a norm", "windows", "foreach"],
)
def test_work_without_products_costs_no_core_macs(function: Callable[[Tensor], Tensor]) -> None:
    """Sampling, simulated quantisation, renormed look-ups, windows and lists of element-wise work are known."""

    class Runs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    assert count(Runs(), torch.zeros(2, 4)).macs == 0


def test_what_cannot_be_counted_is_a_usage_error() -> None:
    """No module, no shapes yet, a compiled graph, an input that does not fit: one sentence each, and exit code 2."""
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module to count, got function"):
        count(lambda x: x, torch.zeros(2, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(nn.Linear(4, 2), torch.zeros(2, 4))
    with pytest.raises(UsageError, match=r"0 of Sequential is a scripted or traced module"):
        count(nn.Sequential(traced), torch.zeros(2, 4))
    with pytest.raises(UsageError, match="lazy module"):
        count(nn.LazyLinear(3), torch.zeros(2, 4))
    with pytest.raises(UsageError, match="Linear fails on inputs 2x5"):
        count(nn.Linear(3, 4), torch.zeros(2, 5))


def test_large_inputs_need_no_memory() -> None:
    """A 4000x4000 image through 64 channels would take 4 GB; its count takes none, whatever the input's device."""
    conv = nn.Conv2d(3, 64, 3, padding=1)
    assert count(conv, torch.empty(1, 3, 4000, 4000, device="meta")).macs == 4000 * 4000 * 64 * 27
