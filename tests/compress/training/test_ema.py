"""The moving average of a model."""

import torch
from torch import nn

from featherpress.compress.training.ema import MovingAverage


def test_average_follows_by_hand() -> None:
    """The first step moves by 1 - 2/11 of the way; whole-number buffers are copied."""
    model = nn.BatchNorm1d(1)
    average = MovingAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.num_batches_tracked.fill_(7)
    average.update(model)
    torch.testing.assert_close(average.model.weight.data, torch.tensor([1 + 9 / 11]))
    assert average.model.num_batches_tracked == 7
    assert not average.model.training


def test_decay_reaches_its_limit() -> None:
    """After many steps the average moves by 1 - decay."""
    model = nn.Linear(1, 1)
    average = MovingAverage(model, decay=0.5)
    average.updates = 1000
    before = average.model.weight.clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update(model)
    torch.testing.assert_close(average.model.weight.data, before.data + 0.5)
