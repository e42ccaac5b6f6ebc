"""One sweep over every registered model."""

import copy

import pytest
import torch

from featherpress.budgets import count
from featherpress.models import create_detector, create_model, find_model, fuse, list_models
from featherpress.models.zoo import DECLARED_SIDE

COMPONENTS = {
    "featherface_v1": (213_072, 11_528, 139_076, 2_310, 112_413, 0, 7_200),
    "featherface_v1_ssh": (213_072, 11_528, 77_916, 1_485, 192_555, 0, 5_472),
    "featherface_v1_ssh_plain": (213_072, 0, 77_916, 0, 192_555, 0, 5_472),
    "featherface_paper": (213_072, 11_528, 112_606, 2_040, 232_965, 13_920, 6_240),
    "featherface_v2": (213_072, 996, 19_412, 292, 11_616, 0, 11_424),
}


def parameters(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("name", list_models())
def test_count_is_as_declared(name: str) -> None:
    """Every model has exactly the parameters, MACs and strides that its entry declares, and as many when fused."""
    model, entry = create_model(name), find_model(name)
    cost = count(model, torch.zeros(1, 3, DECLARED_SIDE, DECLARED_SIDE))
    assert parameters(model) == entry.params
    assert (cost.params, cost.macs, model.anchors.strides) == (entry.params, entry.macs, entry.strides)
    assert parameters(fuse(model)) == entry.fused


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_are_exact(name: str) -> None:
    """Each child of a FeatherFace has exactly its documented parameters."""
    counts = tuple(parameters(child) for child in create_model(name).children())
    assert counts == COMPONENTS[name]


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", [(64, 64), (160, 96), (333, 257)])
def test_outputs_agree_with_priors(name: str, size: tuple[int, int]) -> None:
    """At any size there is one finite box, pair of logits and set of landmarks a prior."""
    torch.manual_seed(0)
    model = create_detector(name).eval()
    with torch.no_grad():
        boxes, logits, landmarks = model(torch.randn(2, 3, *size))
    priors = model.priors(*size)
    assert boxes.shape == (2, len(priors), 4)
    assert logits.shape == (2, len(priors), 2)
    assert landmarks.shape == (2, len(priors), 10)
    assert all(output.isfinite().all() for output in (boxes, logits, landmarks))


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_learns(name: str) -> None:
    """No parameter is declared without taking part: each receives a gradient."""
    torch.manual_seed(0)
    model = create_model(name)
    sum(output.square().mean() for output in model(torch.randn(2, 3, 96, 96))).backward()
    without = [path for path, weight in model.named_parameters() if weight.grad is None]
    assert without == []


@pytest.mark.parametrize("name", list_models())
def test_same_seed_same_weights(name: str) -> None:
    """A seed decides every weight."""
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", list_models())
def test_channels_last_changes_nothing(name: str) -> None:
    """The memory layout does not change what a model says."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    images = torch.randn(1, 3, 64, 96)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for ours, theirs in zip(model(images), other(images.to(memory_format=torch.channels_last)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list_models())
def test_state_goes_round(name: str) -> None:
    """A state dict loaded into a model of other weights makes it say exactly the same."""
    torch.manual_seed(0)
    source, target, images = create_model(name).eval(), create_model(name).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = target(images)
        target.load_state_dict(source.state_dict())
        pairs = list(zip(source(images), target(images), strict=True))
        assert not torch.equal(before[0], pairs[0][0])
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("name", list_models())
def test_same_seed_same_outputs(name: str) -> None:
    """A training step's outputs and gradients are decided by the seed too: nothing in a forward is random."""
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        model = create_model(name)
        outputs = model(torch.randn(2, 3, 64, 64))
        sum(output.square().mean() for output in outputs).backward()
        found.append([*outputs, *(weight.grad for weight in model.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("name", list_models())
def test_exports(name: str) -> None:
    """`torch.export` takes the whole model, and the graph says what the model says."""
    torch.manual_seed(0)
    model, images = create_model(name).eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        graph = torch.export.export(model, (images,)).module()
        for ours, theirs in zip(graph(images), model(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list_models())
def test_bfloat16_autocast(name: str) -> None:
    """Under bfloat16 autocast a model trains and says about the same as in float32: eight bits of it."""
    torch.manual_seed(0)
    model, images = create_model(name), torch.randn(2, 3, 64, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images)
        sum(output.float().square().mean() for output in outputs).backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    model.eval()
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(images)
    for ours, theirs in zip(outputs, expected, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours.float() / scale, theirs / scale, rtol=0, atol=0.05)


def test_overrides_change_the_shape() -> None:
    """A keyword overrides its preset: three anchors a cell need 144 weights more a channel and bias in nine heads."""
    model = create_model("featherface_v1", num_anchors=3)
    assert parameters(model) == 485_599 + 48 * 75
    assert model(torch.zeros(1, 3, 64, 64))[0].shape[1] == 3 * (64 + 16 + 4)


@pytest.mark.parametrize(
    ("overrides", "difference"),
    [
        ({"bifpn_repeats": 2}, 113_610 - 139_076),
        ({"cbam_reduction": 8}, 129 * 4 + 257 * 8 + 513 * 16 + 3 * 149 * 5),
        ({"attention": "none"}, -11_528 - 2_310),
        ({"shuffle_groups": 37}, 0),
        ({"context_groups": 1}, 3 * 9 * 74 * 37),
    ],
)
def test_documented_variants(overrides: dict[str, object], difference: int) -> None:
    """Each keyword changes V1 by what the formulas of its blocks say, and it still runs."""
    model = create_model("featherface_v1", **overrides).eval()
    assert parameters(model) == 485_599 + difference
    assert model(torch.zeros(1, 3, 64, 64))[0].shape == (1, 2 * (64 + 16 + 4), 4)


@pytest.mark.parametrize("keyword", ["out_channels", "out_channel"])
@pytest.mark.parametrize("c", [64, 96])
def test_width_follows_the_formulas(keyword: str, c: int) -> None:
    """At any width V1 is the sum of its blocks; the published configuration's name for the width is taken too."""
    h = c // 16
    attention = 3 * (2 * c * h + h + c + 100)
    pyramid = 3 * (4 * (9 * c + c * c + 3 * c) + 10) + 832 * c + 15 * c
    context = 3 * (9 * c * c // 2 + 18 * (9 * c + 1) + 9 * (c + 1) + 2 * c)
    total = 213_072 + 11_528 + pyramid + attention + context + 96 * (c + 1)
    assert parameters(create_model("featherface_v1", **{keyword: c})) == total


@pytest.mark.parametrize(
    ("context", "params"), [("deformable_ssh", 77_655), ("grouped_ssh", 52_672), ("deformable", 47_963)]
)
def test_contexts_are_a_choice(context: str, params: int) -> None:
    """The context of any preset can be another one; at width 64 each has the size of its formula."""
    model = create_model("featherface_paper", context=context)
    assert parameters(model.context[0]) == params
