"""Models that nothing leads back to: less is copied, and the count is the same."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod, wraps
from types import FunctionType
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.ops import Conv2dNormActivation

from featherpress.budgets import Cost, count
from featherpress.budgets.counting import attribution, forward, surroundings
from featherpress.budgets.counting.closed import is_closed, lendable
from featherpress.errors import CountError, UsageError
from featherpress.models import create_model


@contextmanager
def watched(*, trusting: bool = True) -> Iterator[list[str]]:
    """List the classes of lent layers that are copied after all, and "model" for each that is copied as a whole."""
    found: list[str] = []
    copy, counted = attribution.Lent.copy, sys.modules["featherpress.budgets.counting.count"]
    count_in = counted._count_in  # type: ignore[attr-defined]

    def note(lent: attribution.Lent) -> nn.Module:
        found.append(type(lent.layer).__name__)
        return copy(lent)

    def run(method: str, subject: Any, **options: Any) -> Cost:
        found.extend([] if options["trusting"] else ["model"])
        return count_in(method, subject, trusting=options["trusting"] and trusting)  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution.Lent, "copy", note)
        patch.setattr(counted, "_count_in", run)
        yield found


def both(model: nn.Module, *inputs: Any) -> tuple[Cost, list[str]]:
    """Count a model with and without what is known of closed ones: all must be the same."""
    with watched(trusting=False):
        without = count(model, *inputs)
    with watched() as found:
        cost = count(model, *inputs)
    assert cost == without
    return cost, found


def z(*shape: int) -> Tensor:
    return torch.zeros(shape)


def row(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *more).eval()


NETS: dict[str, Callable[[], nn.Module]] = {
    **{name: getattr(torchvision.models, name) for name in ("mobilenet_v3_small", "resnet18", "densenet121")},
    **{name: lambda name=name: create_model(name) for name in ("featherface_v1", "featherface_v2")},  # type: ignore[misc]
    "row": row,
}


@pytest.mark.parametrize("name", NETS)
def test_a_closed_model_costs_what_its_copy_costs(name: str) -> None:
    """Torchvision's, ours and PyTorch's own: no layer of any is copied, and every number is the same."""
    model = NETS[name]().eval()
    assert closed(model)
    cost, found = both(model, z(1, 3, 96, 96))
    assert not found
    assert cost.macs


def test_no_weight_of_a_layer_gets_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are read where they are: only the input is copied."""
    made = []

    def twin(tensor: Tensor) -> Tensor:
        made.append(tensor)
        return torch.empty_like(tensor, device="meta")

    monkeypatch.setattr(forward, "meta_twin", twin)
    count(row(), image := z(1, 3, 8, 8))
    assert [id(tensor) for tensor in made] == [id(image)]


def test_what_is_lent_is_as_it_was() -> None:
    """Nothing is put into a layer that is read where it is, and nothing holds on to it."""
    model = row(nn.MaxPool2d(2, ceil_mode=True))
    before = [dict(vars(layer)) for layer in model]
    cost, _ = both(model, z(1, 3, 9, 9))
    assert [dict(vars(layer)) for layer in model] == before
    assert cost.shapes["3"] == ("1x4x7x7", "1x4x4x4")


@pytest.mark.parametrize(
    ("layer", "x", "copied"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), z(1, 3, 9, 9), ["MaxPool2d"]),
        (nn.AdaptiveAvgPool2d(2), z(1, 3, 9, 9), ["AdaptiveAvgPool2d"]),
        (nn.BatchNorm2d(3).half(), z(1, 3, 9, 9).half(), ["BatchNorm2d"]),
        (nn.Conv2d(3, 5, 3), z(1, 3, 9, 9).to(memory_format=torch.channels_last), ["Conv2d"]),
        (nn.Linear(3, 5), z(2, 2, 2, 3), ["Linear"]),
        (nn.Conv2d(3, 5, 3, padding="same"), z(1, 3, 9, 9), []),  # it holds a list
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_whose_call_has_no_answer_is_copied_alone(layer: nn.Module, x: Tensor, copied: list[str]) -> None:
    """The others stay where they are, and its weights are known for the model's."""
    cost, found = both(nn.Sequential(nn.Identity(), layer, nn.Identity()).eval(), x)
    assert list(dict.fromkeys(found)) == copied
    assert not cost.unused


WAYS: list[Callable[[Any, Tensor], Any]] = []


class Foreign(nn.Module):
    """As if it were of a package that writes nowhere."""

    def __init__(self, way: Callable[[Any, Tensor], Any], *layers: nn.Module) -> None:
        super().__init__()
        self.a, self.b = layers
        WAYS[:] = [way]  # what it holds itself would open it

    def forward(self, x: Tensor) -> Any:
        return WAYS[0](self, x)


def as_if_of(package: str, function: Any) -> Any:
    """Return a function as it would be if it were written there."""
    made = FunctionType(function.__code__, {**globals(), "__name__": package}, closure=function.__closure__)
    made.__module__ = package
    return made


Foreign.__module__ = "torchvision.made_up"
for _name in ("__init__", "forward"):
    setattr(Foreign, _name, as_if_of(Foreign.__module__, vars(Foreign)[_name]))


def asks(model: Any, x: Tensor) -> Tensor:
    return model.a(x) if isinstance(model.a, nn.Linear) and not isinstance(model.a, nn.Conv2d) else model.b(x)


def by_weight(model: Any, x: Tensor) -> Tensor:
    return nn.functional.linear(x, model.a.weight) + model.a(x) + model.b(x)


def by_name(model: Any, x: Tensor) -> Tensor:
    return model.a(input=x) + model.b(x)


def by_two(model: Any, x: Tensor) -> Tensor:
    return model.a(x) if model.a._parameters is model.a._parameters else model.b(model.b(x))


def elsewhere(model: Any, x: Tensor) -> Tensor:
    x = model.b(x)
    with torch.autocast("cpu", torch.bfloat16):
        cast: Tensor = model.a(x)
    return cast.float()


def over_all(model: Any, x: Tensor) -> Tensor:
    return sum(layer(x) for layer in model.children()) + sum(each.sum() for each in model.parameters())  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", [asks, by_weight, by_name, by_two, elsewhere, over_all], ids=lambda way: way.__name__)
def test_more_than_a_call_of_a_layer_finds_a_copy(way: Callable[[Any, Tensor], Any]) -> None:
    """Its class, weights and names are what they are of the layer itself, and it works where the layer would."""
    model = Foreign(way, nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    assert is_closed(list(model.modules()), lendable(list(model.modules())))
    cost, found = both(model, z(2, 4))
    assert set(found) == ({"Linear"} if way is not asks else set())
    assert cost.macs == {"by_weight": 96, "asks": 32, "by_two": 32}.get(way.__name__, 64)


def test_a_call_that_fails_fails() -> None:
    """What no layer takes is not answered."""
    model = Foreign(lambda model, x: model.a(x, scale=2), nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    with pytest.raises(UsageError, match="unexpected keyword argument 'scale'"):
        count(model, z(2, 4))


def test_a_model_that_reads_values_or_has_a_switch_is_copied_as_a_whole() -> None:
    """So that it can run for real, and the other way."""
    model = Foreign(lambda model, x: model.a(x) if x.sum() else model.b(model.a(x)), nn.Linear(4, 4), nn.Linear(4, 4))
    cost, found = both(model.eval(), z(2, 4) + 1)
    assert (cost.method, cost.macs, found[-1]) == ("real", 32, "model")
    model = Foreign(
        lambda model, x: model.a(x) if model.fused else model.b(model.a(x)), nn.Linear(4, 4), nn.Linear(4, 4)
    )
    model.fused = True  # type: ignore[assignment]
    cost, found = both(model.eval(), z(2, 4))
    assert cost.notes == ("fused is True: the other way costs 64 MACs",)
    assert found == ["model"]


def hooked(model: nn.Sequential) -> None:
    model[1].register_forward_hook(lambda module, args, out: nn.functional.conv2d(out, torch.ones(4, 4, 1, 1)))


def own_forward(model: nn.Sequential) -> None:
    model[2].forward = lambda x: x @ x  # type: ignore[method-assign]


def parametrized(model: nn.Sequential) -> None:
    parametrizations.weight_norm(model[0])


def one_storage(model: nn.Sequential) -> None:
    model.append(nn.BatchNorm2d(4).eval())
    model[3].weight = nn.Parameter(model[1].weight.data)


def buffer_of_a_weight(model: nn.Sequential) -> None:
    model[1].running_mean = model[0].bias.data


def buffer_that_is_not_saved(model: nn.Sequential) -> None:
    buffer_of_a_weight(model)
    model[1]._non_persistent_buffers_set.add("running_mean")


def trained(model: nn.Sequential) -> None:
    model.train()


def twice(model: nn.Sequential) -> None:
    model.append(model[2])


@pytest.mark.parametrize(
    ("change", "copied"),
    [
        (hooked, []),
        (own_forward, ["ReLU", "model"]),
        (parametrized, []),
        (one_storage, ["model"]),
        (buffer_of_a_weight, ["model"]),
        (buffer_that_is_not_saved, ["model"]),
        (trained, []),
        (twice, []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_layer_that_is_not_as_usual_is_counted_as_in_a_copy(
    change: Callable[[nn.Sequential], None], copied: list[str]
) -> None:
    """Hooks, a forward of its own, another class, tensors that cannot be told apart, and training."""
    model = row()
    change(model)
    _, found = both(model, z(1, 3, 6, 6))
    assert found == copied


def test_a_model_fed_with_its_own_weight_is_copied_as_a_whole() -> None:
    """The twin that it is fed is the copy's parameter then."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)).eval()
    cost, found = both(model, model[0].weight)
    assert found == ["model"]
    assert cost.macs == 27


def test_an_input_without_a_storage_is_fed_as_ever() -> None:
    """Inside vmap it has none that may be asked for."""
    model = row()

    def inside(x: Tensor) -> Tensor:
        assert both(model, x)[0].macs == 1728
        return x

    torch.vmap(inside)(z(2, 1, 3, 6, 6))


def test_a_sparse_weight_is_copied_as_ever() -> None:
    """What is stored of it is not known without values: its shape alone would cost too much."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False)).eval()
    model[0].weight = nn.Parameter(torch.eye(3).to_sparse())
    cost, found = both(model, z(2, 3))
    assert (cost.method, cost.macs, found) == ("real", 6, ["model", "model"])


@pytest.mark.parametrize("name", NETS)
def test_a_closed_model_may_be_on_meta(name: str) -> None:
    """Its tensors have no values then, and no operator made them."""
    with torch.device("meta"):
        model = NETS[name]().eval()
    cost, found = both(model, z(1, 3, 96, 96))
    assert (cost.method, found) == ("meta", [])


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Data:
    held: Any


@dataclass(frozen=True)
class Frozen:
    held: Any


@dataclass
class Thawed:
    held: Any


Frozen.__module__ = Thawed.__module__ = "torchvision.made_up"


class Subclass(nn.Parameter):
    pass


def closed(model: nn.Module) -> bool:
    modules = list(model.modules())
    return is_closed(modules, lendable(modules))


def block() -> Conv2dNormActivation:
    return Conv2dNormActivation(3, 4, 3).eval()


def test_pytorchs_and_torchvisions_are_closed() -> None:
    """With numbers, names, tuples and classes of theirs."""
    model = block()
    model.size, model.kind, model.name = (3, (4, "same")), nn.BatchNorm2d, "block"  # type: ignore[assignment]
    assert closed(model)
    model.data = Frozen((1, {"a": 2}))
    assert not closed(model)
    model.data = Frozen({"a": 2})
    assert closed(model)


HELD: Sequence[Any] = (
    [1], {"a": 1}, {1}, OrderedDict(a=1), Own, (1, [2]), ((1, {}),), Data((1,)), Frozen([1]), Thawed(1),
    lambda x: x, nn.functional.relu, object(),
)  # fmt: skip


@pytest.mark.parametrize("held", HELD, ids=lambda held: type(held).__name__)
def test_what_can_change_or_run_opens_a_model(held: Any) -> None:
    """Lists, dictionaries, the user's classes and data, functions."""
    model = block()
    model.held = held
    assert not closed(model)


def open_class(model: Conv2dNormActivation) -> None:
    model.append(Own().eval())


def open_hook(model: Conv2dNormActivation) -> None:
    model.register_forward_hook(lambda *args: None)


def open_parameter(model: Conv2dNormActivation) -> None:
    model.extra = Subclass(z(2))


def open_buffer(model: Conv2dNormActivation) -> None:
    model.register_buffer("extra", z(2).as_subclass(torch.Tensor))
    model._buffers["extra"].__class__ = type("Mine", (Tensor,), {})  # type: ignore[union-attr]


def open_copying(model: Conv2dNormActivation) -> None:
    parametrizations.weight_norm(model[0])


def open_table(model: Conv2dNormActivation) -> None:
    model._buffers = OrderedDict()  # type: ignore[assignment]


def open_registry(model: Conv2dNormActivation) -> None:
    del model.__dict__["_forward_hooks"]
    model.odd = OrderedDict()


@pytest.mark.parametrize(
    "change",
    [open_class, open_hook, open_parameter, open_buffer, open_copying, open_table, open_registry],
    ids=lambda change: change.__name__,
)
def test_what_is_not_as_pytorch_makes_it_opens_a_model(change: Callable[[Any], None]) -> None:
    """A class of the user's, of modules or tensors, one that is copied its own way, hooks, and other dictionaries."""
    model = block()
    change(model)
    assert not closed(model)


def test_code_of_the_users_in_a_class_of_theirs_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that was replaced is not torchvision's, though the class is."""
    model = block()
    assert closed(model)
    monkeypatch.setattr(Conv2dNormActivation, "forward", lambda self, x: x, raising=False)
    assert not closed(model)


def as_wrapped(function: Any) -> Any:
    @wraps(function)
    def wrapper(self: Any, x: Tensor) -> Any:
        return function(self, x)

    return wrapper


@pytest.mark.parametrize(
    "change", [as_wrapped, staticmethod, partialmethod, property], ids=lambda change: change.__name__
)
def test_code_of_the_users_opens_a_class_whatever_it_is_called(
    change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What wraps a method has its name and module, and what else a class may call is no function."""
    held = vars(nn.Sequential)["forward"] if change is as_wrapped else lambda self, x: x
    monkeypatch.setattr(Conv2dNormActivation, "forward", change(held), raising=False)
    assert not closed(block())


def test_a_weight_of_the_original_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of PyTorch's that was replaced may hold on to it; the sentence names the layer that it ran in."""
    for layer, trains in ((nn.Linear(3, 3), False), (nn.Linear(3, 3), True), (nn.BatchNorm1d(3), False)):
        model = nn.Sequential(layer, nn.ReLU()).train(trains)
        held = layer.bias if trains else next(layer.buffers(), layer.weight)
        before = held.clone()

        def relu(x: Tensor, inplace: bool = False, held: Tensor = held) -> Tensor:
            held.data.add_(1)
            return x

        monkeypatch.setattr(nn.functional, "relu", relu)
        with pytest.raises(CountError, match=r"in 1 \(ReLU\) writes to a tensor outside the copy"):
            count(model, z(2, 3))
        assert torch.equal(held, before)


def test_a_class_that_is_copied_its_own_way_opens_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it."""

    def own_way(self: Any, memo: Any) -> Any:
        return self

    own_way.__globals__["__name__"], name = "torchvision.made_up", own_way.__globals__["__name__"]
    try:
        own_way.__module__ = "torchvision.made_up"
        monkeypatch.setattr(Conv2dNormActivation, "__deepcopy__", own_way, raising=False)
        assert not closed(block())
    finally:
        own_way.__globals__["__name__"] = name


def test_a_hook_on_all_modules_opens_every_model() -> None:
    """It is told every module."""
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        assert not closed(block())
    finally:
        handle.remove()
    assert closed(block())


def test_a_compiled_part_opens_a_model() -> None:
    """What stands around a module is no part of the list."""
    model = nn.Sequential(torch.compile(block())).eval()  # type: ignore[arg-type]
    modules = [module for module in model.modules() if type(module).__name__ != "OptimizedModule"]
    assert not is_closed(modules, [])


def test_an_open_model_is_noted_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of a closed one nothing is noted."""
    sizes = []
    note = surroundings.Surroundings._note

    def noted(self: Any, items: tuple[Any, ...]) -> Any:
        sizes.append(len(items))
        return note(self, items)

    monkeypatch.setattr(surroundings.Surroundings, "_note", noted)
    count(nn.Sequential(Own(), nn.Linear(2, 2)).eval(), z(1, 2))
    assert sizes[0] == 3
    sizes.clear()
    count(nn.Sequential(nn.Linear(2, 2)).eval(), z(1, 2))
    assert sizes[0] == 0
