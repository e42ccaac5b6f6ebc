"""Models that keep what they compute where no copy reaches: the count is right or refused, and nothing stays behind."""

import gc
import logging
import os
import pickle
import sys
import threading
import weakref
from array import array
from collections import ChainMap, Counter, OrderedDict, UserDict
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from functools import cache, partial
from io import BytesIO
from queue import Queue
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from featherpress.budgets import count
from featherpress.budgets.counting.generators import Generators
from featherpress.budgets.counting.surroundings import Surroundings
from featherpress.errors import CountError, UsageError

FOUND: dict[str, Any] = {}
LAST: Any = None
LOCAL = threading.local()
CONTEXT: ContextVar[Any] = ContextVar("CONTEXT")
MODELS: list[nn.Module] = []
RECENT = OrderedDict(a=1, b=2, c=3)
STEPS = torch.zeros(1)
#: No count takes back what is said here.
HEARD = BytesIO()
COUNTER: Counter[str] = Counter()
SPACE = SimpleNamespace(calls=0)


class Named(dict[str, int]):
    """A dictionary of a class of its own, with an attribute."""

    calls = 0


class Listed(list[int]):
    """A list of a class of its own."""


class Slots:
    """An object without a dictionary."""

    __slots__ = ("calls",)


NUMBERS, TABLE, BYTES = np.zeros((2, 2)), array("i", [1]), bytearray(b"ab")
LAYERS_OF, OWN, LINE = ChainMap[str, int]({}), UserDict[str, int](), Queue[int]()
OUTER = torch.zeros(3)
NAMED, LISTED, SLOTS = Named(), Listed([1]), Slots()
SLOTS.calls = 0


class Tapped(nn.Module):
    """Two convolutions; what lies between them goes by way of `keep` and `get`."""

    by_class: ClassVar[dict[str, Any]] = {}
    last: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 2, 1, bias=False)
        self.calls, self.fails = [0], False

    keep: Any
    get: Any

    def forward(self, x: Tensor) -> Any:
        self.calls[0] += 1
        self.keep(self.backbone(x))
        if self.fails:
            raise ValueError("not today")
        return self.head(self.get())


def in_a_hooks_closure(model: Any) -> Any:
    found: dict[str, Any] = {}
    model.found = found
    model.backbone.register_forward_hook(lambda module, args, out: found.update(out=out))
    model.keep, model.get = lambda out: None, lambda: found["out"]
    return lambda: dict(found)


def in_a_variable_of_a_function(model: Any) -> Any:
    last = None

    def keep(out: Any) -> None:
        nonlocal last
        last = out

    model.keep, model.get = keep, lambda: last
    return lambda: last


def in_a_default(model: Any) -> Any:
    def keep(out: Any, found: dict[str, Any] = {}) -> Any:  # noqa: B006 - the fault that is meant
        found["out"] = out if out is not None else found["out"]
        return found["out"]

    model.keep, model.get = keep, partial(keep, None)
    return lambda: dict(keep.__defaults__[0])  # type: ignore[index]


def in_a_functions_attribute(model: Any) -> Any:
    def keep(out: Any) -> None:
        model.keep.last = out

    model.keep, model.get = keep, lambda: model.keep.last
    return lambda: dict(vars(keep))


def in_a_partial(model: Any) -> Any:
    found: dict[str, Any] = {}
    model.keep, model.get = partial(found.__setitem__, "out"), partial(found.get, "out")
    return lambda: dict(found)


def in_a_lists_own_method(model: Any) -> Any:
    found: list[Any] = []
    model.keep, model.get = found.append, found.pop
    return lambda: list(found)


def by_a_weak_reference(model: Any) -> Any:
    reference: Any = weakref.ref(model)
    model.keep, model.get = lambda out: setattr(reference(), "out", out), lambda: reference().out
    return lambda: vars(model).get("out")


def by_a_proxy(model: Any) -> Any:
    model.me = [weakref.proxy(model)]
    model.keep, model.get = lambda out: setattr(model.me[0], "out", out), lambda: model.me[0].out
    return lambda: vars(model).get("out")


def in_a_global_dictionary(model: Any) -> Any:
    model.keep, model.get = lambda out: FOUND.update(out=out), lambda: FOUND["out"]
    return lambda: dict(FOUND)


def keep_in_global(out: Any) -> None:
    global LAST  # noqa: PLW0603 - the fault that is meant
    LAST = out


def in_a_global_variable(model: Any) -> Any:
    model.keep, model.get = keep_in_global, lambda: LAST
    return lambda: LAST


def in_the_class(model: Any) -> Any:
    model.keep, model.get = lambda out: setattr(Tapped, "last", out), lambda: Tapped.last
    return lambda: Tapped.last


def in_a_dictionary_of_the_class(model: Any) -> Any:
    model.keep, model.get = lambda out: model.by_class.update(out=out), lambda: model.by_class["out"]
    return lambda: dict(Tapped.by_class)


@cache
def table(side: int) -> Tensor:
    return torch.ones(side, side)


def in_a_context_variable(model: Any) -> Any:
    model.keep, model.get = CONTEXT.set, CONTEXT.get
    return lambda: CONTEXT.get(None)


def in_a_cache(model: Any) -> Any:
    kept: list[Any] = []
    model.kept = kept
    model.keep = lambda out: model.kept.append(out * table(out.shape[-1]))
    model.get = lambda: model.kept.pop()  # noqa: PLW0108 - by the model's name
    return lambda: list(kept)


def in_a_threads_own_place(model: Any) -> Any:
    model.keep, model.get = lambda out: setattr(LOCAL, "out", out), lambda: LOCAL.out
    return lambda: dict(vars(LOCAL))


EXACT = (
    in_a_hooks_closure, in_a_variable_of_a_function, in_a_default, in_a_functions_attribute, in_a_partial,
    in_a_lists_own_method, by_a_weak_reference, by_a_proxy, in_a_global_dictionary, in_a_global_variable, in_the_class,
    in_a_dictionary_of_the_class, in_a_cache, in_a_context_variable, in_a_threads_own_place,
)  # fmt: skip


def in_a_class_of_pytorch(model: Any) -> Any:
    model.keep, model.get = lambda out: setattr(nn.Conv2d, "found", out), lambda: nn.Conv2d.found  # type: ignore[attr-defined]
    return lambda: vars(nn.Conv2d).get("found")


def in_another_package(model: Any) -> Any:
    model.keep, model.get = lambda out: setattr(sys, "found", out), lambda: sys.found  # type: ignore[attr-defined]
    return lambda: vars(sys).get("found")


def in_the_model_by_its_global_name(model: Any) -> Any:
    MODELS[:] = [model]
    model.keep, model.get = lambda out: setattr(MODELS[0], "out", out), lambda: MODELS[0].out
    return lambda: vars(model).get("out")


def in_a_global_tensor(model: Any) -> Any:
    kept: list[Any] = []
    model.keep, model.get = lambda out: (kept.extend([out]), STEPS.add_(1)), kept.pop
    return STEPS.tolist


REFUSED = (
    in_a_class_of_pytorch, in_another_package, in_the_model_by_its_global_name,
    in_a_global_tensor,
)  # fmt: skip


def test_an_input_that_is_kept_elsewhere_is_taken_out() -> None:
    """What the model was fed is a tensor of the count too."""

    class Keeps(Tapped):
        def forward(self, x: Tensor) -> Any:
            sys.kept = [x]  # type: ignore[attr-defined]
            return self.head(self.backbone(x))

    with pytest.raises(CountError, match="keeps tensors of the count"):
        count(Keeps(), torch.zeros(1, 3, 4, 4))
    assert sys.kept == []  # type: ignore[attr-defined]
    del sys.kept  # type: ignore[attr-defined]


def check(place: Callable[[Any], Any], side: int, *, ran: bool, fails: bool) -> None:
    """Count a model that keeps its features in a place; assert the number, and that all is as it was."""
    model: Any = Tapped()
    left = place(model)
    image = torch.zeros(1, 3, side, side)
    if ran and place not in REFUSED:
        model(image[..., :2, :2])
    model.fails = fails
    state, flags, before = dict(vars(model)), [module.training for module in model.modules()], left()
    calls, hooks = list(model.calls), dict(model.backbone._forward_hooks)
    if fails:
        with pytest.raises((UsageError, CountError)):
            count(model, image)
    elif place in REFUSED:
        with pytest.raises(CountError):
            count(model, image)
    else:
        assert count(model, image).macs == side * side * (24 + 16)
    after = left()
    assert str(after) == str(before)
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[name] is state[name] for name in state)
    assert (model.calls, dict(model.backbone._forward_hooks)) == (calls, hooks)
    assert [module.training for module in model.modules()] == flags
    assert not _get_current_dispatch_mode_stack()
    model.fails = False
    if place not in REFUSED:
        assert not model(image).is_meta


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EXACT), st.integers(1, 40), st.booleans(), st.booleans())
def test_what_is_kept_elsewhere_is_counted_and_put_back(place: Any, side: int, ran: bool, fails: bool) -> None:
    """Closures, defaults, bound methods, globals, classes, caches: the number is right, also after a real run."""
    check(place, side, ran=ran, fails=fails)
    FOUND.clear()
    Tapped.by_class.clear()
    keep_in_global(None)
    Tapped.last = None


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("place", REFUSED)
def test_what_cannot_be_followed_is_refused_and_taken_out(place: Any, fails: bool) -> None:
    """What is written where nothing was noted is found, taken away, and the count refused in a sentence."""
    check(place, 8, ran=False, fails=fails)


def test_a_count_in_a_test_does_not_go_through_all_tests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pytest puts into a test's globals leads to every test that was collected, but is not followed."""
    monkeypatch.setitem(globals(), "ASKED", request)
    seen = Surroundings(Tapped().modules(), Generators())._seen
    assert id(request) in seen
    assert id(request.node) not in seen


def test_a_dictionary_in_the_order_of_use_stays_as_it_was() -> None:
    """Its keys lie in another order than in memory; that something beside it is put back leaves them their values."""
    RECENT.move_to_end("a")
    check(in_a_global_variable, 8, ran=False, fails=False)
    assert [*RECENT.items()] == [("b", 2), ("c", 3), ("a", 1)]


def test_switches_and_modes_of_pytorch_are_put_back() -> None:
    """A forward that changes types, gradients, devices and modes for the program does so for the count alone."""

    class Turns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.set_default_dtype(torch.float64)
            torch.set_default_device("meta")
            torch.set_grad_enabled(False)
            torch.overrides.BaseTorchFunctionMode().__enter__()  # type: ignore[no-untyped-call]
            return x @ x

    assert count(Turns(), torch.zeros(2, 2)).macs == 8
    assert (torch.get_default_dtype(), torch.zeros(1).device.type) == (torch.float32, "cpu")
    assert torch.is_grad_enabled()
    assert not torch._C._len_torch_function_stack()


@pytest.mark.parametrize("fails", [False, True])
def test_objects_that_a_module_keeps_are_put_back(fails: bool) -> None:
    """A counter, a namespace, containers of own classes and objects with slots are as they were."""

    class Notes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            COUNTER["calls"] += 1
            SPACE.calls, SPACE.out = 1, x
            NAMED["calls"] = NAMED.calls = 1
            LISTED.append(2)
            SLOTS.calls += 1
            if fails:
                raise ValueError("not today")
            return x @ x

    with pytest.raises(UsageError) if fails else nullcontext():
        assert count(Notes(), torch.zeros(2, 2)).macs == 8
    assert (dict(COUNTER), vars(SPACE), NAMED, LISTED, SLOTS.calls) == ({}, {"calls": 0}, {}, [1], 0)
    assert NAMED.calls == 0


@pytest.mark.parametrize("fails", [False, True])
def test_arrays_and_containers_of_the_standard_library_are_put_back(fails: bool) -> None:
    """Numbers in an array as well, its length, and what lies below a chain of dictionaries."""

    class Notes(nn.Module):
        marks: ClassVar[Any] = np.zeros(3)[::2]

        def forward(self, x: Tensor) -> Tensor:
            NUMBERS[0] += 1
            self.marks[1] = 1
            TABLE.append(2)
            BYTES[:] = b"c"
            LAYERS_OF["a"] = OWN["a"] = LOCAL.calls = 1
            LINE.put(1)
            if fails:
                raise ValueError("not today")
            return x @ x

    with pytest.raises(UsageError) if fails else nullcontext():
        assert count(Notes(), torch.zeros(2, 2)).macs == 8
    assert not NUMBERS.any()
    assert not Notes.marks.any()
    assert (list(TABLE), BYTES, dict(LAYERS_OF), dict(OWN)) == ([1], b"ab", {}, {})
    assert not hasattr(LOCAL, "calls")
    assert (LINE.qsize(), LINE.unfinished_tasks) == (0, 0)


def test_a_tensor_outside_the_model_looks_at_what_it_did() -> None:
    """What it is set to has no memory; nor do its gradient and its attributes outlive a count."""

    class Moves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            OUTER.mark = 1  # type: ignore[attr-defined]
            OUTER.data = x.flatten()
            OUTER.requires_grad_().grad = x.flatten()
            return x @ x

    assert count(Moves(), torch.zeros(2, 2)).macs == 8
    assert (OUTER.tolist(), OUTER.grad, OUTER.requires_grad, vars(OUTER)) == ([0.0] * 3, None, False, {})


def test_the_environment_logging_and_printing_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As are levels of forward differentiation that were not left."""
    monkeypatch.setenv("FEATHERPRESS_TEST_A", "1")
    logger = logging.getLogger("featherpress.test.untouched")
    marks: Any = (os.environ.copy, lambda: (logger.level, logging.root.level, logging.root.manager.disable))
    marks = (*marks, lambda: dict(vars(torch._tensor_str.PRINT_OPTS)), lambda: forward_ad._current_level)

    class Sets(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            del os.environ["FEATHERPRESS_TEST_A"]
            os.environ["FEATHERPRESS_TEST_B"] = "1"
            logger.setLevel("ERROR")
            logging.root.setLevel("ERROR")
            logging.disable()
            torch.set_printoptions(precision=9)
            forward_ad.enter_dual_level()  # type: ignore[no-untyped-call]
            return x @ x

    was = [mark() for mark in marks]
    assert count(Sets(), torch.zeros(2, 2)).macs == 8
    assert [mark() for mark in marks] == was


def test_what_a_compiler_sets_up_at_its_first_use_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half undone, numba would run nothing any more."""
    monkeypatch.setitem(sys.modules, "numba", ModuleType("numba"))
    kernel: Any = type("Kernel", (), {"__module__": "numba", "ready": False})()

    class Runs(nn.Module):
        kernel: Any

        def forward(self, x: Tensor) -> Tensor:
            type(self.kernel).ready = True
            return x @ x

    model = Runs()
    model.kernel = kernel
    count(model, torch.zeros(2, 2))
    assert kernel.ready


def turn(name: str) -> tuple[Any, Any]:
    return partial(getattr(torch._C, f"_get_{name}_sdp_enabled")), partial(getattr(torch._C, f"_set_sdp_use_{name}"))


@pytest.mark.parametrize(
    ("get", "put"),
    [
        (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        (torch.is_warn_always_enabled, torch.set_warn_always),
        (partial(torch.is_autocast_enabled, "cpu"), partial(torch.set_autocast_enabled, "cpu")),
        (torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled),
        (torch._C._get_cudnn_benchmark, torch._C._set_cudnn_benchmark),
        (torch._C._get_cudnn_deterministic, torch._C._set_cudnn_deterministic),
        (torch._C._get_cudnn_enabled, torch._C._set_cudnn_enabled),
        (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
        (torch._C._is_view_replay_enabled, torch._C._set_view_replay_enabled),
        *map(turn, ("flash", "math", "mem_efficient", "cudnn")),
    ],
)
def test_a_switch_of_pytorch_is_put_back(get: Any, put: Any) -> None:
    """What a forward turns for the program it turns for the count alone."""
    was = get()

    class Turns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            put(not was)
            return x @ x

    try:
        assert count(Turns(), torch.zeros(2, 2)).macs == 8
        assert get() == was
    finally:
        put(was)


def test_a_nested_tensor_is_counted_by_what_it_does() -> None:
    """A class of tensors with operators of its own is asked for them: 8 rows of a ragged batch by 6 x 6."""

    class Ragged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, rows: Tensor) -> Any:
            ragged = torch.nested.nested_tensor_from_jagged(rows, torch.tensor([0, 3, 8]))
            return self.layer(ragged).values()

    model, rows = Ragged(), torch.randn(8, 6)
    assert count(model, rows).macs == 288
    assert not _get_current_dispatch_mode_stack()
    assert model(rows).shape == (8, 6)


def test_the_first_jagged_tensor_of_a_program_may_be_that_of_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch makes one of its own with it, and keeps it: not one of the count."""

    class Ragged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Any:
            return self.layer(torch.nested.nested_tensor([x[0, :2], x[1]], layout=torch.jagged)).values()

    monkeypatch.setattr("torch.nested._internal.nested_tensor._dummy_instance", None)
    model, x = Ragged(), torch.randn(2, 3, 8)
    assert count(model, x).macs == 5 * 8 * 6
    assert model(x).shape == (5, 6)


def test_code_that_is_written_anew_to_be_copied_is_no_change() -> None:
    """A traced part writes its code again where it is pickled, as a copy does that keeps it in bytes."""

    class Pickled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = torch.fx.symbolic_trace(nn.Linear(3, 4))

        def __getstate__(self) -> dict[str, Any]:
            return {**self.__dict__, "saved": pickle.dumps(self.part)}

        def forward(self, x: Tensor) -> Any:
            return self.part(x)

    model = Pickled()
    code = model.part._code
    assert count(model, torch.zeros(2, 3)).macs == 24
    assert model.part._code is code


def test_a_forward_without_end_leaves_no_mode_on() -> None:
    """A recursion that runs out takes the modes off as any failure does."""

    class Endless(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return self(x + 1)

    limit = sys.getrecursionlimit()
    with pytest.raises(UsageError, match="recursion"):
        count(Endless(), torch.zeros(1))
    assert not _get_current_dispatch_mode_stack()
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize("held", [nn.functional, torch.ops.aten.relu, torch.ops.aten.relu.default, threading.Lock()])
def test_what_a_program_has_once_may_be_kept(held: Any) -> None:
    """A Python module, an operator and a lock in a list are shared with the copy: 2 x 4 x 4."""
    model = nn.Sequential(nn.Linear(4, 4))
    model.held = [held]  # type: ignore[assignment]
    assert count(model, torch.zeros(2, 4)).macs == 32


def test_modules_nested_as_deep_as_they_can_run() -> None:
    """200 modules in each other run; following them takes no more depth than there is."""
    model: nn.Module = nn.Linear(4, 3)
    for _ in range(200):
        model = nn.Sequential(model)
    assert count(model, torch.zeros(2, 4)).macs == 24


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("within", [True, False])
def test_the_garbage_collector_is_as_it_was(before: bool, within: bool) -> None:
    """It rests while tensors have no memory, works in a real run, and is put back whatever forward makes of it."""

    HEARD.truncate(0)
    HEARD.seek(0)

    class Switches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            HEARD.write(bytes([gc.isenabled()]))
            (gc.enable if within else gc.disable)()
            return x if x.sum() > 0 else x + 1

    usual = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        count(Switches(), torch.zeros(1))
        assert gc.isenabled() is before
        assert list(HEARD.getvalue()[:2]) == [False, before]  # on meta tensors, then for real
    finally:
        (gc.enable if usual else gc.disable)()
