"""BatchNorms folded into convolutions."""

import pytest
import torch
from torch import nn

from featherpress.errors import UsageError
from featherpress.models import create_model, fuse, list_models, save_model
from featherpress.models.layers.deformable import DeformableConv


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def shake(model: nn.Module) -> None:
    """Give every norm statistics and every deformable convolution offsets, as training does."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, DeformableConv):
            nn.init.normal_(module.offset.weight, std=0.02)
            nn.init.normal_(module.mask.weight, std=0.02)


@pytest.mark.parametrize("name", list_models())
def test_fused_is_equal_and_smaller(name: str) -> None:
    """On every model no BatchNorm is left, each took its scales or scales and a bias along, outputs are as before."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    shake(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused, images = fuse(model), torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        for ours, theirs in zip(fused(images), model(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    saved = parameters(model) - parameters(fused)
    assert sum(norm.num_features for norm in norms) <= saved <= 2 * sum(norm.num_features for norm in norms)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Residual(nn.Module):
    """Names its norms as it likes, and runs one convolution with its norm twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.after = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y = self.after(self.first(x)).relu()
        z: torch.Tensor = self.after(input=self.first(y)) + x
        return z


def test_a_forward_of_ones_own_is_folded() -> None:
    """What a trace shows to be a pair is one, sequence or not; tracing changes neither the model nor what is drawn."""
    torch.manual_seed(0)
    model, x = Residual().eval(), torch.randn(2, 2, 4, 4)
    shake(model)
    state = torch.get_rng_state()
    fused = fuse(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(fused.after, nn.Identity)
    assert (model.calls, fused.calls) == (0, 0)
    torch.testing.assert_close(fused(x), model(x))


def test_a_model_that_keeps_its_norms_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is left out without a word."""
    fuse(Asks())
    assert "BatchNorms stay, as the forward of Asks cannot be traced" in caplog.text


def test_fused_models_do_not_pass_for_the_original(tmp_path: object) -> None:
    """A fused model has other weights than its name says, so that it is not saved as that model."""
    with pytest.raises(UsageError, match="not built by create_model"):
        save_model(fuse(create_model("featherface_v2")), f"{tmp_path}/m.safetensors")


def test_the_original_keeps_its_mode() -> None:
    """The copy is in eval mode, where folding holds; the model stays in training."""
    model = create_model("featherface_v2").train()
    assert not fuse(model).training
    assert model.training


class Between(nn.Module):
    """Uses what lies between its convolution and its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y + self.norm(y)


class Backwards(nn.Sequential):
    """Is no sequence, whatever its base says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in reversed(self):
            x = module(x)
        return x


def tied() -> nn.Module:
    a, b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    a.weight = b.weight
    return nn.Sequential(a, nn.BatchNorm2d(2), nn.ReLU(), b)


def repeated() -> nn.Module:
    conv = nn.Conv2d(2, 2, 1)
    return nn.Sequential(conv, nn.BatchNorm2d(2), nn.ReLU(), conv)


def one_relu_twice() -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(relu, nn.Conv2d(2, 2, 1), relu, nn.BatchNorm2d(2))


class Taps(nn.Module):
    """Steps through its sequence and keeps what the convolution returns."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        taps = [x := layer(x) for layer in self.features]
        return torch.stack(taps)


class Reader(nn.Module):
    """Uses its convolution's weight a second time, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x))
        return y + nn.functional.conv2d(x, self.conv.weight)


class Asks(nn.Module):
    """Returns what lies between for large inputs only, so that a trace that holds for every input does not exist."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        z: torch.Tensor = self.norm(y)
        return z if x.shape[-1] > 4 else y + z


class OneOfTwo(nn.Module):
    """A convolution before a norm, and a second time before none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(self.norm(self.conv(x)))
        return y


def listening() -> nn.Module:
    seen: list[torch.Tensor] = []
    body = nn.Sequential(nn.Conv2d(2, 2, 1))
    body.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    return nn.Sequential(body, nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    "make",
    [
        Between,
        Taps,
        Reader,
        Asks,
        OneOfTwo,
        listening,
        lambda: Backwards(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)),
        tied,
        repeated,
        one_relu_twice,
        lambda: nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)),
        lambda: nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)),
    ],
    ids=[
        "used between",
        "returned between",
        "weight read",
        "untraceable",
        "norm after one of two calls",
        "hook on what returns it",
        "another order",
        "tied weights",
        "used twice",
        "one relu twice",
        "statistics of the batch",
        "relu between",
    ],
)
def test_what_cannot_be_folded_is_left_alone(make: object) -> None:
    """Where anything else sees the convolution's output or weights, the norm stays and the outputs too."""
    torch.manual_seed(0)
    assert callable(make)
    model, x = make().eval(), torch.randn(2, 2, 4, 4)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            norm.running_mean.normal_()
    fused = fuse(model)
    assert parameters(fused) == parameters(model)
    torch.testing.assert_close(fused(x), model(x))
