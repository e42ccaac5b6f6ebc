"""What is asked of `prune`: limits of all kinds, what is kept, how importance is measured, and what it leaves alone."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.budgets.counting.inputs import Inputs
from featherpress.compress import load_pruned, prune
from featherpress.compress.pruning import proven
from featherpress.compress.pruning.oracle import _choose_sizes
from featherpress.compress.pruning.trace import Subject
from featherpress.errors import CheckpointError, PruneError, UsageError

from .nets import IMAGE, NETS, Pooled, build, chain

BUDGET = """
model = "chain"
input = [1, 3, 16, 16]
[total]
params = {max = 9000}
macs = {max = 1500000, warn = 1000000}
[components.stem]
modules = ["body.0", "body.1"]
params = {target = 200, tolerance = "10%"}
[components.head]
bytes = {max = 300}
"""


def make() -> nn.Module:
    torch.manual_seed(0)
    return chain(16, 24, 24)


def test_a_chain_is_cut_to_both_limits_and_saved(tmp_path: Path) -> None:
    """Both limits hold by count, the class stays, and a saved file builds the same model back."""
    model = make()
    made = prune(model, IMAGE, params=3000, macs=900_000)
    cost = count(made.model, IMAGE)
    assert cost.params <= 3000
    assert cost.macs <= 900_000
    assert made.cost == cost
    assert made.slack == {"params": 3000 - cost.params, "macs": 900_000 - cost.macs}
    assert type(made.model) is Pooled
    made.save(tmp_path / "student.safetensors")
    back = load_pruned(make, tmp_path / "student.safetensors")
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(back.eval()(image), made.model.eval()(image))


@pytest.mark.parametrize("name", ["tied", "timm", "recurrent", "grouped", "split", "multihead", "swin"])
def test_every_kind_is_built_back_from_its_file(name: str, tmp_path: Path) -> None:
    """Tied tensors, attributes of modules and buffers come back; owners of one tensor still share it."""
    model, example = build(name)
    made = prune(model, example, params=int(count(model, example).params * 0.7))
    made.save(tmp_path / "student.safetensors")
    back = load_pruned(NETS[name][0], tmp_path / "student.safetensors")
    assert count(back, example).params == made.cost.params
    given = example if example.dtype == torch.int64 else torch.randn(example.shape)
    agree = torch.allclose(back.eval()(given), made.model.eval()(given), rtol=1e-5, atol=1e-6)
    assert agree  # memory lies otherwise, and sums round otherwise
    assert all(torch.equal(*pair) for pair in zip(back.parameters(), made.model.parameters(), strict=True))
    if name == "tied":
        assert back.o.weight is back.e.weight


@pytest.mark.parametrize("example", [[IMAGE], {"image": IMAGE}, Inputs((), {"image": IMAGE})])
def test_an_example_is_what_forward_takes(example: Any) -> None:
    assert prune(make(), example, params=3000).slack == prune(make(), IMAGE, params=3000).slack


def test_limits_of_a_budget_file_hold_in_each_component(tmp_path: Path) -> None:
    """Upper limits of the total and of components, targets with their tolerance, in parameters, MACs and bytes."""
    path = tmp_path / "budget.toml"
    path.write_text(BUDGET)
    made = prune(make(), IMAGE, budget=path)
    assert made.limits == {"total params": 9000, "total macs": 1500000, "stem params": 220, "head bytes": 300}
    assert min(made.slack.values()) >= 0
    assert sum(made.cost.subtree(each).params for each in ("body.0", "body.1")) <= 220
    assert made.cost.subtree("head").bytes <= 300
    path.write_text(BUDGET.replace("bytes", "activations"))
    with pytest.raises(UsageError, match="activations of head, which pruning cannot promise"):
        prune(make(), IMAGE, budget=path)


def test_a_limit_out_of_reach_says_the_least() -> None:
    """The error names the least that can be reached, and that much can be."""
    with pytest.raises(PruneError, match="the least that can be reached is params") as caught:
        prune(make(), IMAGE, params=10)
    least = caught.value.least["params"]
    assert caught.value.exit_code == 1
    assert caught.value.reasons
    made = prune(make(), IMAGE, params=least)
    assert made.cost.params == least
    assert made.model.head.out_features == 5
    with pytest.raises(PruneError):
        prune(make(), IMAGE, params=least - 1)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"floor": 0.5}, "cut as far as floor and multiples allow"),
        ({"multiple_of": 4}, "cut as far as floor and multiples allow"),
        ({"floor": 0.99}, "already as narrow as the floor allows"),
        ({"multiple_of": 7}, "its width is no multiple, as asked"),
    ],
)
def test_a_floor_or_a_multiple_that_is_in_the_way_is_said_to_be(how: dict[str, Any], words: str) -> None:
    """Not the ends alone, which always stay; where neither was asked for there is no such word."""
    with pytest.raises(PruneError, match=f"in the way: .*{words}"):
        prune(make(), IMAGE, params=10, **how)
    with pytest.raises(PruneError, match="in the way") as caught:
        prune(make(), IMAGE, params=10, floor=0)
    assert "floor" not in str(caught.value)


def test_bad_requests_are_one_sentence(tmp_path: Path) -> None:
    """No limit, a pattern that matches nothing, a failing example, and another factory's file are refused."""
    for how, words in (
        ({}, "needs a limit"),
        ({"params": 0}, "whole number of at least 1"),
        ({"params": 3000, "keep": ("tail",)}, "matches no module"),
        ({"params": 3000, "floor": 1.0}, "floor is a share"),
        ({"params": 3000, "multiple_of": 0}, "multiple_of is"),
        ({"params": 3000, "importance": "size"}, "importance is"),
        ({"params": 3000, "importance": "taylor"}, "needs batches and loss"),
    ):
        with pytest.raises(UsageError, match=words):
            prune(make(), IMAGE, **how)
    with pytest.raises(UsageError, match="fails on inputs"):
        prune(make(), torch.zeros(1, 4, 16, 16), params=3000)
    prune(make(), IMAGE, params=3000).save(tmp_path / "student.safetensors")
    with pytest.raises(CheckpointError, match="factory"):
        load_pruned(lambda: nn.Linear(3, 4), tmp_path / "student.safetensors")


def numbers() -> list[int]:
    return np.random.get_state()[1].tolist()  # noqa: NPY002  # the state that all share


def test_the_model_given_is_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, buffers, gradients, hooks, modes and random states are as they were, and it still runs."""
    model = make().train()
    model.body[0].eval()
    calls: list[int] = []
    model.body.register_forward_hook(lambda *_: calls.append(1))
    model.head.weight.requires_grad_(False)
    image = torch.randn(2, 3, 16, 16)
    state = {name: (id(held), held.clone()) for name, held in model.state_dict(keep_vars=True).items()}
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), numbers()
    vars_before = {path: sorted(vars(each)) for path, each in model.named_modules()}
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)  # of devices that may be used later, too
    made = prune(model, IMAGE, params=3000)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert numbers() == states[2]
    assert not seeds
    assert not calls
    assert {path: sorted(vars(each)) for path, each in model.named_modules()} == vars_before
    for name, held in model.state_dict(keep_vars=True).items():
        assert id(held) == state[name][0]
        assert torch.equal(held, state[name][1])
    assert model.training
    assert not model.body[0].training
    # The copy has the original's modes, hooks and frozen weights.
    assert made.model.training
    assert not made.model.body[0].training
    assert not made.model.head.weight.requires_grad
    made.model(image)
    assert not {each.data_ptr() for each in made.model.parameters()} & {each.data_ptr() for each in model.parameters()}


def test_kept_modules_stay_whole() -> None:
    """Modules and tensors that a pattern matches have all their channels, in and out."""
    made = prune(make(), IMAGE, params=7000, keep=("head", "body.0.bias"))
    assert made.model.head.weight.shape == (5, 24)
    assert made.model.body[0].out_channels == 16
    assert made.model.body[3].out_channels < 24
    with pytest.raises(PruneError, match="kept, as asked"):
        prune(make(), IMAGE, params=500, keep=("body.*",))


def test_what_stays_is_a_multiple_where_that_is_asked() -> None:
    """Each free axis keeps a multiple of eight; an axis that is none stays as it is, and is listed."""
    torch.manual_seed(0)
    model = chain(16, 20, 32)
    made = prune(model, IMAGE, params=6000, multiple_of=8)
    assert [each.out_channels for each in made.model.body if isinstance(each, nn.Conv2d)][1] == 20
    assert all(each.out_channels % 8 == 0 for each in made.model.body[::6] if isinstance(each, nn.Conv2d))
    assert any("multiple" in unit.locked and unit.before == 20 for unit in made.units)
    assert made.cost.params < count(model, IMAGE).params


def test_a_floor_is_a_share_of_each_axis() -> None:
    """No axis keeps less than its share, nor fewer than two channels."""
    made = prune(make(), IMAGE, params=3500, floor=0.5)
    assert all(each.out_channels >= 8 for each in made.model.body if isinstance(each, nn.Conv2d))
    with pytest.raises(PruneError) as caught:
        prune(make(), IMAGE, params=1, floor=0)
    made = prune(make(), IMAGE, params=caught.value.least["params"], floor=0)
    assert {each.out_channels for each in made.model.body if isinstance(each, nn.Conv2d)} == {2}


class Branches(nn.Module):
    """Cheap units, half of them weak, beside dear ones."""

    def __init__(self) -> None:
        super().__init__()
        self.cheap = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.dear = nn.Sequential(nn.Linear(100, 8), nn.ReLU(), nn.Linear(8, 2))
        with torch.no_grad():
            for tensor in (self.cheap[0].weight, self.cheap[0].bias, self.cheap[2].weight.T):
                tensor[16:] *= 1e-6

    def forward(self, some: Tensor, more: Tensor) -> Tensor:
        return self.cheap(some) + self.dear(more)


def test_what_a_dear_unit_leaves_is_filled_with_cheap_ones() -> None:
    """The weak go first, then a dear unit, which saves more than was wanted: weak ones come back until none fits."""
    torch.manual_seed(0)
    model = Branches()
    whole = sum(each.numel() for each in model.parameters())
    cheap, dear = 4 + 1 + 2, 100 + 1 + 2
    made = prune(model, (torch.zeros(1, 4), torch.zeros(1, 100)), params=whole - 16 * cheap - dear // 2)
    assert made.model.dear[0].out_features == 7
    assert made.model.cheap[0].out_features == 16 + (dear - dear // 2) // cheap
    assert made.slack["params"] < cheap


@pytest.mark.parametrize("importance", ["l2", "l1", "batchnorm", "taylor"])
def test_the_least_important_go_first(importance: str) -> None:
    """Channels that a measure calls weak are those that go."""
    model = make()
    weak = [1, 4, 5, 9]
    with torch.no_grad():
        for tensor in (model.body[0].weight, model.body[0].bias, model.body[1].weight, model.body[1].bias):
            tensor[weak] *= 1e-4
        model.body[3].weight[:, weak] *= 1e-4

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        return network(batch).square().sum()

    how: dict[str, Any] = {"batches": [torch.randn(4, 3, 16, 16)], "loss": loss} if importance == "taylor" else {}
    strong = [each for each in range(16) if each not in weak]
    made = prune(model, IMAGE, params=int(count(model, IMAGE).params * 0.95), importance=importance, **how)
    left = made.model.body[0].weight
    kept = [row for row in range(16) if any(torch.equal(model.body[0].weight[row], each) for each in left)]
    assert len(kept) == len(left)
    assert set(strong) <= set(kept) or not set(kept) & set(weak)


def test_a_wrong_result_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the whole model can be proven the request is refused, whatever it would cost."""
    monkeypatch.setattr(proven, "measure_error", lambda *_: 1e-6)
    with pytest.raises(PruneError, match="does not compute what it did"):
        prune(make(), IMAGE, params=3000)


class Cast(nn.Module):
    """Code that asks for single precision."""

    def forward(self, image: Tensor) -> Tensor:
        return image.float()


@pytest.mark.parametrize(("side", "sizes"), [(16, {48, 16}), (224, {96, 128})])
def test_the_oracle_runs_at_two_sizes_of_images(side: int, sizes: set[int]) -> None:
    """Layers with biases too, which take no other type than their own."""
    model = nn.Sequential(Cast(), make())
    found = _choose_sizes(Subject(model=model, args=(torch.zeros(1, 3, side, side),), kwargs={}))
    assert {resize(side) for resize in found} == sizes


def test_the_oracle_sees_a_row_in_another_place(take_steps: Callable[..., Any]) -> None:
    """Of a cut whose rows of one weight are taken from other channels the error is large."""
    from featherpress.compress.pruning.oracle import measure_error

    model = make()
    steps = take_steps(model, IMAGE, params=3000)
    cut = steps.followed.cut(steps.chooser.units(steps.kept))
    assert measure_error(steps.followed, cut) < 1e-12
    sliced, wrong = cut.sliced, id(model.body[3].weight)
    cut.sliced = lambda tensor, values=None: (  # type: ignore[method-assign]
        sliced(tensor, values).roll(1, 1) if id(tensor) == wrong else sliced(tensor, values)
    )
    assert measure_error(steps.followed, cut) > 1e-3


def test_a_pruned_model_can_be_pruned_again(tmp_path: Path) -> None:
    """The file of what was cut twice builds back from the first factory."""
    once = prune(make(), IMAGE, params=1200)
    twice = prune(once.model, IMAGE, params=1100, keep=("body.0",))
    twice.save(tmp_path / "student.safetensors")
    back = load_pruned(make, tmp_path / "student.safetensors")
    assert count(back, IMAGE).params == twice.cost.params <= 1100
    assert back.body[0].out_channels == back.body[0].weight.shape[0] < 16
