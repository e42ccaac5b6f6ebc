"""Memory between operators, worked out by hand."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.budgets import count

KB = 4 * 256  # bytes of a map of 256 floats
MAP = torch.zeros(1, 1, 16, 16)


class Does(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def memory(function: Any, *inputs: Tensor) -> tuple[int, int]:
    """Return what was written and the peak, in maps."""
    cost = count(Does(function), *(inputs or (MAP,)))
    return cost.activations // KB, cost.peak // KB


def test_a_chain_holds_two_maps_at_a_time() -> None:
    """Each operator writes one map, and only its own input has to be there."""
    assert memory(lambda x: F.relu(F.relu(F.relu(x)))) == (3, 2)


def test_a_branch_keeps_what_is_read_later() -> None:
    """A residual keeps its input alive: input, two maps of the branch, then the sum."""
    assert memory(lambda x: F.relu(F.relu(x)) + x) == (3, 3)


def test_views_and_work_in_place_write_nothing() -> None:
    """A reshape shares its storage and keeps it alive; an activation in place writes into it."""
    assert memory(lambda x: F.relu(x.reshape(256)).relu_().view(16, 16)) == (1, 2)


def test_results_stay_to_the_end() -> None:
    """What the model returns cannot be freed, however early it was made."""
    assert memory(lambda x: {"early": F.relu(x), "late": F.relu(F.relu(F.relu(x)))}) == (4, 3)
    assert memory(lambda x: (F.relu(x), F.relu(F.relu(F.relu(x))))[1]) == (4, 2)


def test_weights_are_not_activations() -> None:
    """A convolution holds its input and its output."""
    cost = count(nn.Conv2d(1, 3, 3, padding=1), MAP)
    assert (cost.activations, cost.peak) == (3 * KB, 4 * KB)


def test_precisions_scale_floats_alone() -> None:
    """Whole numbers keep their size at any precision of the floating-point tensors, in weights and activations."""
    cost = count(Does(lambda x: x * 2.0 + x.argmax(0)), torch.zeros(4, 8, 4))
    floats, whole = 2 * 4 * 128, 8 * 32
    assert cost.activations == floats + whole
    assert (cost.activation_footprint.fp16, cost.activation_footprint.int8) == (
        floats // 2 + whole,
        floats // 4 + whole,
    )
    norm = count(nn.BatchNorm1d(5), torch.zeros(2, 5))
    assert (norm.weight_footprint.fp32, norm.weight_footprint.fp16) == (4 * 20 + 8, 2 * 20 + 8) == (norm.bytes, 48)


def test_rows_sum_and_the_batch_scales_all() -> None:
    """Bytes belong to the module that wrote them, and twice the images are twice the memory."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(2, 1, 1)))
    one, two = count(model, MAP), count(model, MAP.repeat(2, 1, 1, 1))
    assert {row.path: row.activations // KB for row in one.modules if row.activations} == {"0": 2, "1.0": 2, "1.1": 1}
    assert (two.activations, two.peak) == (2 * one.activations, 2 * one.peak) == (10 * KB, 8 * KB)
    assert one.subtree("1").activations == 3 * KB


def test_every_way_of_counting_agrees() -> None:
    """Fake tensors and a real run see the same tensors live."""
    peeks = (lambda x: None, lambda x: x.device.type == "meta" and 1 / 0, lambda x: x.sum().tolist())
    for function, maps in ((lambda x: F.relu(F.relu(x)) + x, 3), (attend, 4), (nn.RMSNorm(16), 2)):
        costs = [count(Does(lambda x, see=see, do=function: (see(x), do(x))[1]), MAP) for see in peeks]
        assert [cost.method for cost in costs] == ["meta", "fake", "real"]
        assert [cost.peak // KB for cost in costs] == [maps] * 3


def attend(x: Tensor) -> Tensor:
    """Attention that writes 16 times 16 scores."""
    return F.scaled_dot_product_attention(x, x, x)


def test_a_new_tensor_where_another_was_is_another() -> None:
    """Tensors of numbers, which no operator writes, may lie where one lay that is gone: that one stays gone."""

    def twice(x: Tensor) -> Tensor:
        for _ in range(2):
            x = x.repeat(8, 1, 1, 1).amax(0, keepdim=True)
            for _ in range(20):
                x = x * torch.tensor(2.0)
        return x

    for peek in (lambda x: None, lambda x: x.sum().tolist()):
        assert memory(lambda x, peek=peek: (peek(x), twice(x))[1])[1] == 9
