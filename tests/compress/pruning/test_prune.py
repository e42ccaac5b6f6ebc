"""A model cut to a budget: within every limit, no unit to give back, and the original untouched."""

from pathlib import Path

import pytest
import torch
from torch import nn

from featherpress.budgets import count
from featherpress.compress import load_pruned, prune
from featherpress.errors import CheckpointError, PruneError, UsageError


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 5),
    )  # fmt: skip


EXAMPLE = torch.zeros(1, 3, 16, 16)


def test_a_chain_is_cut_to_its_limits(tmp_path: Path) -> None:
    """Both limits hold by count, the class stays, and a saved file builds the same model back."""
    model = chain()
    made = prune(model, EXAMPLE, params=3000, macs=500_000)
    cost = count(made.model, EXAMPLE)
    assert cost.params <= 3000
    assert cost.macs <= 500_000
    assert made.cost == cost
    assert type(made.model) is nn.Sequential
    assert made.error < 1e-9
    made.save(tmp_path / "student.safetensors")
    back = load_pruned(chain, tmp_path / "student.safetensors")
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(back.eval()(image), made.model.eval()(image))


def test_a_limit_out_of_reach_says_the_least() -> None:
    """The error names the least that can be reached."""
    with pytest.raises(PruneError, match="the least that can be reached is params") as caught:
        prune(chain(), EXAMPLE, params=10)
    least = caught.value.least["params"]
    assert prune(chain(), EXAMPLE, params=least).cost.params == least


def test_bad_requests_are_one_sentence(tmp_path: Path) -> None:
    """No limit, a pattern that matches nothing, and another factory's model are refused."""
    with pytest.raises(UsageError, match="needs a limit"):
        prune(chain(), EXAMPLE)
    with pytest.raises(UsageError, match="matches no module"):
        prune(chain(), EXAMPLE, params=3000, keep=("head",))
    prune(chain(), EXAMPLE, params=3000).save(tmp_path / "student.safetensors")
    with pytest.raises(CheckpointError, match="factory"):
        load_pruned(lambda: nn.Linear(3, 4), tmp_path / "student.safetensors")
