"""Every way of moving channels about: cut, within the limit, and computing what the original does without them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from featherpress.budgets import count
from featherpress.compress import prune
from featherpress.compress.pruning.labels import MEETS
from featherpress.errors import PruneError

from .nets import NETS, Attention, Sorted, Vit, build

#: The least share of the parameters that can be reached at two channels an axis, where something stays.
LEAST = {"slices": 0.1, "tied": 0.02, "recurrent": 0.47, "sorted": 1.0, "divided later": 0.46, "separable": 0.13,
         "shuffled": 0.19, "grouped": 0.1, "multihead": 0.09, "multihead with weights": 0.09,
         "separate": 0.09, "divided": 0.07, "single": 0.09}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_limit_holds_and_the_oracle_agrees(name: str) -> None:
    """`count` is within the limit, the least is as low as it can be, and nothing that stays has no reason."""
    model, example = build(name)
    whole = count(model, example).params
    with pytest.raises(PruneError) as caught:
        prune(model, example, params=1, floor=0)
    least = caught.value.least["params"]
    assert least / whole <= LEAST.get(name, 0.04)
    limit = max(int(whole * 0.6), least)
    made = prune(model, example, params=limit)
    assert count(made.model, example).params == made.cost.params <= limit
    assert made.error < 1e-9
    assert all(unit.locked for unit in made.units if unit.before == unit.after and unit.before < 4)


@pytest.mark.parametrize("name", ["chain", "residual", "grouped", "split", "swin", "multihead", "tied", "shuffled"])
def test_no_unit_that_was_cut_can_be_given_back(name: str, take_steps: Callable[..., Any]) -> None:
    """One more unit of any family that was cut is beyond a limit, by count of the model that is built with it."""
    model, example = build(name)
    cost = count(model, example)
    limits = {"params": int(cost.params * 0.6), "macs": int(cost.macs * 0.6)}
    steps = take_steps(model, example, **limits)
    tried = 0
    for family, larger in steps.give_back():
        after = count(larger, example)
        assert after.params > limits["params"] or after.macs > limits["macs"], family.names
        tried += 1
    assert tried


def test_what_no_rule_knows_is_locked_with_its_name() -> None:
    """A sort over channels locks what goes in, and says so."""
    _, example = build("sorted")
    with pytest.raises(PruneError, match="sort, for which there is no rule"):
        prune(Sorted(), example, params=100)


def test_of_what_is_in_the_way_each_reason_is_named_once() -> None:
    """Not three axes for the same reason: the widest for each, and before those that only meet something."""
    _, example = build("sorted")
    with pytest.raises(PruneError) as caught:
        prune(Sorted(), example, params=100)
    reasons = [each.partition(": ")[2] for each in caught.value.reasons]
    assert len(set(reasons)) == len(reasons) == 3
    assert "sort" in reasons[0]
    assert MEETS in reasons[1:]


def test_the_axis_that_a_number_is_computed_from_stays() -> None:
    """A division by a width that no weight can make good locks that width, and no other."""
    model, example = build("divided later")
    made = prune(model, example, params=int(count(model, example).params * 0.5))
    assert (made.model.a.out_channels, made.model.b.out_channels) == (16, 2)
    with pytest.raises(PruneError) as caught:
        prune(model, example, params=1, floor=0)
    assert caught.value.least["params"] > 0.4 * count(model, example).params


def test_numbers_of_a_module_follow_the_width_that_they_name() -> None:
    """`head_dim` is the width of a head after the cut; the constant scale stays."""
    model, example = build("timm")
    made = prune(model, example, params=count(model, example).params // 2)
    block = made.model.attn
    assert isinstance(block, Attention)
    assert block.head_dim * block.num_heads * 3 == block.qkv.out_features < 144
    assert block.scale == 12**-0.5


def test_a_computed_width_keeps_heads_times_what_the_residual_keeps() -> None:
    """kept(residual) = heads x kept(width), column by column."""
    model, example = build("swin")
    made = prune(model, example, params=count(model, example).params // 2)
    assert isinstance(made.model, Vit)
    width = made.model.pos.shape[-1]
    assert width % 4 == 0
    assert made.model.attn.qkv.weight.shape == (3 * width, width)


def test_a_computed_scale_is_made_good_in_the_weights() -> None:
    """Attention that divides by the root of a smaller width computes what the original does without the columns."""
    model, example = build("swin")
    made = prune(model, example, params=count(model, example).params // 2)
    block = made.model.attn
    ratio = (made.model.pos.shape[-1] / 48) ** 0.5
    rows = {tuple(row.tolist()) for row in model.attn.qkv.bias.detach().reshape(3, 48)[0][:, None]}
    many = block.qkv.bias.shape[0] // 3
    scaled = block.qkv.bias.detach()[:many] / ratio
    assert all(any(abs(value - row[0]) < 1e-7 for row in rows) for value in scaled.tolist())
    assert any(abs(value - before) > 1e-7 for value, before in zip(scaled * ratio, scaled, strict=True))


def test_a_layer_norm_is_over_what_is_left() -> None:
    """A network pruned by hand, normalising over the kept channels, gives the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[[1, 5, 6]] *= 1e-3
    made = prune(model, torch.zeros(1, 4), params=55)
    left = [0, 2, 3, 4, 7]
    twin = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    assert made.cost.params == sum(each.numel() for each in twin.parameters())
    with torch.no_grad():
        twin[0].weight.copy_(model[0].weight[left])
        twin[0].bias.copy_(model[0].bias[left])
        twin[2].weight.copy_(model[2].weight[:, left])
        twin[2].bias.copy_(model[2].bias)
    rows = torch.randn(3, 4)
    assert all(torch.equal(a, b) for a, b in zip(made.model.parameters(), twin.parameters(), strict=True))
    torch.testing.assert_close(made.model(rows), twin(rows))
