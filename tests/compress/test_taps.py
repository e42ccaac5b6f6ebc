"""Taps and adapters: checked before a run, gone after it."""

import pytest
import torch
from torch import nn

from featherpress.compress.distillation import Adapters, ramp
from featherpress.compress.recipes import DistillationRecipe
from featherpress.compress.taps import Tap, tap_widths
from featherpress.errors import UsageError
from featherpress.models import create_model


def test_widths_of_levels() -> None:
    """The widths at a tap are known before a run, and the model is left as it was found."""
    model = create_model("featherface_v1_ssh_plain").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert tap_widths(model, "shuffle", size=64) == [56, 56, 56]
    assert tap_widths(model, "backbone.stage2", size=64) == [128]
    assert model.training
    assert not model.shuffle._forward_hooks
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_unknown_path_lists_the_children() -> None:
    """A path that is not there is answered with those that are."""
    with pytest.raises(UsageError, match=r"no module 'neck'.*bifpn"):
        Tap(create_model("featherface_v2"), "neck")


def test_tap_that_caught_nothing_says_so() -> None:
    """A tap whose module did not run raises, so that no loss is silently zero."""
    tap = Tap(nn.Sequential(nn.Linear(2, 2)), "0")
    with tap.open(), pytest.raises(RuntimeError, match="caught nothing"):
        tap.take()


def test_tap_is_taken_once() -> None:
    """What a forward left is read once: the next read needs a new forward."""
    model = nn.Sequential(nn.Linear(2, 2))
    tap = Tap(model, "0")
    with tap.open():
        model(torch.zeros(1, 2))
        assert tap.take()[0].shape == (1, 2)
        with pytest.raises(RuntimeError, match="caught nothing"):
            tap.take()


def test_adapters_between_v2_and_v1() -> None:
    """From V2's 32 channels to V1's 56 on three levels there are 5,544 adapter weights."""
    adapters = Adapters([32, 32, 32], [56, 56, 56])
    assert sum(weight.numel() for weight in adapters.parameters()) == 5_544
    with pytest.raises(UsageError, match="3 levels, the teacher's 1"):
        Adapters([32, 32, 32], [128])


def test_ramp() -> None:
    """Distillation grows over the ramp, stays at 1, and is off for the last tenth."""
    recipe = DistillationRecipe(ramp_steps=4, stop=0.1)
    factors = [ramp(step, total=20, recipe=recipe) for step in range(20)]
    assert factors == [0.25, 0.5, 0.75, *[1.0] * 15, 0.0, 0.0]
