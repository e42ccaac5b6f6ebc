"""Copies to count on: deepcopy's graph of objects with other tensors, and nothing that the original could feel."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.budgets.counting.replicas import copy_with, meta_twin, real_twin
from featherpress.errors import UsageError

CONTAINERS = (dict, list, tuple, set)


def alike(left: Any, right: Any, pairs: dict[int, Any], back: dict[int, Any]) -> None:
    """Assert that two graphs of objects have one shape: what is shared in one is shared in the other."""
    assert type(left) is type(right)
    if not isinstance(left, (nn.Module, Tensor, *CONTAINERS)):
        assert left == right
        return
    if id(left) in pairs or id(right) in back:
        assert pairs.get(id(left)) is right
        assert back.get(id(right)) is left
        return
    if not isinstance(left, tuple):
        pairs[id(left)], back[id(right)] = right, left
    if isinstance(left, Tensor):
        assert (left.shape, left.stride(), left.dtype) == (right.shape, right.stride(), right.dtype)
        assert left.requires_grad == right.requires_grad
    elif isinstance(left, nn.Module):
        alike(vars(left), vars(right), pairs, back)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            alike(left[key], right[key], pairs, back)
    elif isinstance(left, set):
        assert left == right
    else:
        for a, b in zip(left, right, strict=True):
            alike(a, b, pairs, back)


ATOMS = st.sampled_from([None, True, 3, 2.5, "name", b"bytes", 1j, torch.float16, torch.device("cpu"), nn.ReLU, len])


@st.composite
def modules(draw: st.DrawFn) -> nn.Module:
    """A few modules that hold each other, tensors and containers, some of them more than once."""
    pool: list[Any] = [nn.Parameter(torch.zeros(2, 3)), torch.zeros(3), nn.Parameter(torch.zeros(1), False), {}, []]
    model = nn.Sequential()
    makers = st.sampled_from([nn.Identity, nn.Sequential, lambda: nn.Conv2d(1, 1, 1), nn.ModuleList])
    parts = [model, *(make() for make in draw(st.lists(makers, min_size=1, max_size=4)))]
    for _ in range(draw(st.integers(1, 8))):
        some = draw(st.lists(st.one_of(ATOMS, st.sampled_from(pool)), max_size=3))
        plain = draw(st.lists(ATOMS, max_size=3))
        kinds: list[Callable[[], Any]] = [
            lambda some=some: some,
            lambda some=some: tuple(some),
            lambda some=some: {str(i): item for i, item in enumerate(some)},
            lambda plain=plain: OrderedDict((str(i), item) for i, item in enumerate(plain)),
            lambda plain=plain: set(plain),
            lambda plain=plain: tuple(plain),
        ]
        pool.append(draw(st.sampled_from(kinds))())
    for number, part in enumerate(parts[1:]):
        draw(st.sampled_from(parts[: number + 1])).add_module(f"part{number}", part)
    for number in range(draw(st.integers(1, 6))):
        holder, held = draw(st.sampled_from(parts)), draw(st.sampled_from([*pool, *parts]))
        # A module held in a list is no child, and may well be the parent.
        setattr(holder, f"held{number}", [held] if isinstance(held, nn.Module) else held)
    return model


@settings(max_examples=150, deadline=None)
@given(modules())
def test_copies_have_the_shape_of_deep_copies(model: nn.Module) -> None:
    """Each object is copied where deepcopy copies, shared where it shares; what can change is never the original's."""
    made = copy_with(model, real_twin, {})
    pairs: dict[int, Any] = {}
    alike(model, made, pairs, {})
    alike(copy.deepcopy(model), made, {}, {})
    assert not pairs.keys() & {id(item) for item in pairs.values()}


class Mutable(nn.Module):
    """Changes all that it holds when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.empty: dict[str, int] = {}
        self.nested = {"inner": {"count": [0]}}
        self.tags = {"a"}
        self.linear = nn.Linear(2, 2)
        self.array = np.zeros(3)
        self.table = torch.ones(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(1)
        self.empty["now"] = 1
        self.nested["inner"]["count"][0] += 1
        self.tags.add("b")
        self.array += 1
        self.linear.register_forward_hook(lambda *_: None)
        self.linear.extra = nn.Linear(2, 2)
        self.register_buffer("late", torch.zeros(1))
        return self.linear(x) @ self.table


def test_what_forward_changes_is_the_copys() -> None:
    """Lists, dictionaries, arrays, hooks, children and buffers that a forward touches stay as they were."""
    model = Mutable()
    assert count(model, torch.zeros(1, 2)).macs == 8
    assert (model.seen, model.empty, model.nested, model.tags) == ([], {}, {"inner": {"count": [0]}}, {"a"})
    assert not model.array.any()
    assert not model.linear._forward_hooks
    assert [name for name, _ in model.named_modules()] == ["", "linear"]
    assert not list(model.buffers())


def test_hooks_of_the_model_run_on_the_copy_in_their_module() -> None:
    """What hooks do is part of the forward, and is credited to the module that they hang on."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    weight = torch.ones(4, 4)
    model[1].register_forward_pre_hook(lambda module, args: (args[0] @ weight,))
    model[1].register_forward_hook(lambda module, args, out: out @ weight)
    cost = count(model, torch.zeros(1, 4))
    assert {row.path: row.macs for row in cost.modules} == {"": 0, "0": 16, "1": 32}


class OwnCopy(nn.Linear):
    """Copies itself by hand, and says so."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "OwnCopy":
        made = OwnCopy(self.in_features, self.out_features).to("meta")
        made.copied = True
        return made


class OwnState(nn.Linear):
    """Leaves something out of its state, and puts it back."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.handle: Any = (i for i in range(3))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "handle": None}


class OwnRestore(nn.Linear):
    """Fills in what an old state lacks."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "restored": True})


class OwnReduce(nn.Linear):
    """Is built anew from its sizes."""

    def __reduce__(self) -> Any:
        return rebuilt, (self.in_features, self.out_features)


def rebuilt(*sizes: int) -> OwnReduce:
    return OwnReduce(*sizes).to("meta")


def test_classes_that_say_how_they_are_copied_are_obeyed() -> None:
    """Own methods for copying are used, of a class or of one object, wherever the module is."""
    one_of_a_kind = nn.Linear(2, 2)
    one_of_a_kind.__deepcopy__ = lambda memo: OwnCopy(2, 2).to("meta")  # type: ignore[attr-defined]
    parts = [OwnCopy(2, 2), OwnState(2, 2), OwnRestore(2, 2), OwnReduce(2, 2), one_of_a_kind]
    made = copy_with(nn.Sequential(*parts), meta_twin, {})
    assert made[0].copied
    assert made[1].handle is None
    assert made[2].restored
    assert isinstance(made[3], OwnReduce)
    assert isinstance(made[4], OwnCopy)
    assert all(parameter.is_meta for parameter in made.parameters())
    assert parts[1].handle is not None


def test_what_cannot_be_copied_is_a_usage_error() -> None:
    """A generator has no copy, and counting on the original is no way out: one sentence that says so."""
    model = nn.Linear(2, 2)
    model.stream = (i for i in range(3))  # type: ignore[assignment]
    with pytest.raises(UsageError, match="Linear cannot be copied, and counting never works on the original"):
        count(model, torch.zeros(1, 2))


def test_a_module_that_is_compiled_in_place_runs_as_written() -> None:
    """`Module.compile` replaces what a call runs; the copy's is ours, and the original's stays."""

    def compiled(*args: Any) -> Tensor:
        raise AssertionError("ran what was compiled")

    model = nn.Sequential(nn.Linear(4, 3))
    vars(model[0])["_compiled_call_impl"] = compiled
    cost = count(model, torch.zeros(2, 4))
    assert {row.path: (row.macs, row.calls) for row in cost.modules} == {"": (0, 1), "0": (24, 1)}
    assert vars(model[0])["_compiled_call_impl"] is compiled
    assert "_compiled_call_impl" not in vars(model)


class Doubled(nn.Parameter):
    """A parameter with a method of its own."""

    def twice(self) -> Tensor:
        return self * 2


def test_what_belongs_to_a_tensor_or_cannot_be_copied_comes_along() -> None:
    """Attributes and classes of parameters, locks and generators of random numbers are there in the copy."""

    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(4, 3))
            self.w.scale = torch.ones(3)
            self.d = Doubled(torch.zeros(3, 2))
            self.lock, self.dice = threading.Lock(), torch.Generator()

        def forward(self, x: Tensor) -> Tensor:
            with self.lock:
                noise = torch.rand(2, 4, generator=self.dice)
                return (x + noise) @ self.w * self.w.scale @ self.d.twice()

    model = Holds()
    before = model.dice.get_state()
    assert count(model, torch.zeros(2, 4)).macs == 24 + 12
    assert torch.equal(model.dice.get_state(), before)


class Slotted:
    """An object without a dictionary, as transformers keeps of what its models record."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


def test_objects_with_slots_are_copied() -> None:
    """A model that keeps an object of slots alone, in a list too, is counted."""
    model = nn.Sequential(nn.Linear(4, 3))
    model.kept = [Slotted(3)]
    assert count(model, torch.zeros(2, 4)).macs == 24
    assert model.kept[0].size == 3


def test_modules_of_a_class_that_hold_other_things_are_copied_each_as_it_is() -> None:
    """One has a list where the other has nothing, or under another name; two share a dictionary of tensors."""
    model: Any = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    model[0].kept, model[1].kept, model[2].other = None, [torch.zeros(2)], [torch.zeros(3)]
    model[2]._parameters = model[1]._parameters
    copied: Any = copy_with(model, meta_twin, {})
    assert copied[1].kept[0].is_meta
    assert copied[2].other[0].is_meta
    assert copied[2]._parameters is copied[1]._parameters is not model[1]._parameters
    assert copied[0]._parameters is not copied[1]._parameters
