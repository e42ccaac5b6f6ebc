"""Networks that people use, small and not deep: what can be followed, what cannot, and how little is locked."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from featherpress.budgets import count
from featherpress.compress import prune
from featherpress.errors import PruneError
from featherpress.models import create_model

Make = Callable[[], nn.Module]
BLOCK = models.convnext.CNBlockConfig
B0 = [
    models.efficientnet.MBConvConfig(*each)
    for each in ((1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2))
]
V3 = [
    models.mobilenetv3.InvertedResidualConfig(*each, 1, 1)
    for each in ((16, 3, 16, 16, True, "RE", 2), (16, 3, 72, 24, False, "RE", 2), (24, 3, 88, 24, False, "RE", 1),
                 (24, 5, 96, 40, True, "HS", 2), (40, 5, 240, 40, True, "HS", 1))
]  # fmt: skip


def shallow(model: nn.Module) -> nn.Module:
    """Keep two of the blocks of each stage."""
    for stage in model.modules():
        kinds = set(map(type, stage)) if isinstance(stage, nn.Sequential) else set()
        if len(kinds) == 1 and not issubclass(*kinds, nn.Sequential):
            del stage[2:]
    return model


KNOWN: dict[str, tuple[Make, int, float]] = {
    "resnet": (lambda: models.ResNet(models.resnet.BasicBlock, [2, 1, 1, 1], num_classes=10), 64, 0.01),
    "resnext": (lambda: models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=4), 64, 0.01),
    "mobilenet_v2": (lambda: models.MobileNetV2(10, 0.35, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]), 64, 0.02),
    "mobilenet_v3_small": (lambda: models.MobileNetV3(V3, 128, num_classes=10), 64, 0.01),
    "mnasnet": (lambda: shallow(models.mnasnet0_5(num_classes=10)), 64, 0.01),
    "squeezenet": (lambda: models.squeezenet1_1(num_classes=10), 64, 0.01),
    "googlenet": (lambda: models.googlenet(num_classes=10, aux_logits=False, init_weights=False), 64, 0.01),
    "densenet": (lambda: models.DenseNet(8, (2, 2, 2), 16, num_classes=10), 64, 0.1),
    "shufflenet": (lambda: shallow(models.shufflenet_v2_x0_5(num_classes=10)), 64, 0.03),
    "regnet": (lambda: shallow(models.regnet_x_400mf(num_classes=10)), 64, 0.02),
    "efficientnet": (lambda: models.EfficientNet(B0, 0.2, num_classes=10), 64, 0.01),
    "convnext": (lambda: models.ConvNeXt([BLOCK(24, 48, 1), BLOCK(48, None, 1)], num_classes=10), 64, 0.06),
    "vit": (lambda: models.VisionTransformer(32, 8, 2, 4, 48, 96, num_classes=10), 32, 0.08),
    "swin": (lambda: models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10), 64, 0.1),
    "featherface_v2": (lambda: create_model("featherface_v2"), 96, 0.1),
    "featherface_v1": (lambda: create_model("featherface_v1"), 96, 0.05),
    "retinaface": (lambda: create_model("retinaface_mnet025"), 96, 0.02),
}


@pytest.mark.parametrize("name", KNOWN)
def test_half_of_a_known_model(name: str) -> None:
    """Half of the parameters and 60% of the MACs, exactly; what cannot shrink at all is little."""
    torch.manual_seed(0)
    make, side, least = KNOWN[name]
    model, image = make(), torch.zeros(1, 3, side, side)
    whole = count(model, image)
    made = prune(model, image, params=whole.params // 2, macs=int(whole.macs * 0.6))
    assert made.cost.params <= whole.params // 2
    assert made.cost.macs <= whole.macs * 0.6
    assert made.error < 1e-9
    with pytest.raises(PruneError) as caught:
        prune(model, image, params=1, floor=0)
    assert caught.value.least["params"] / whole.params < least


def test_parts_that_run_in_training_alone_shrink_with_the_rest() -> None:
    """GoogLeNet's auxiliary heads do not run in eval mode: what is pruned trains with them all the same."""
    torch.manual_seed(0)
    model, image = models.googlenet(num_classes=10, aux_logits=True, init_weights=False), torch.zeros(1, 3, 64, 64)
    cost = count(model, image)
    made = prune(model, image, params=cost.params // 10, macs=cost.macs // 10)
    assert made.model.aux1.conv.conv.in_channels < model.aux1.conv.conv.in_channels
    assert made.model.aux1.fc1.out_features < model.aux1.fc1.out_features
    results = made.model.train()(torch.randn(2, 3, 64, 64))
    assert [tuple(each.shape) for each in results] == [(2, 10)] * 3


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "bert"])
def test_transformers_of_other_packages(name: str) -> None:
    """Heads, their width and what numbers modules keep of both follow; the residual shrinks too, where it may."""
    torch.manual_seed(0)
    if name == "bert":
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=50, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96
        )
        model, example = transformers.BertModel(config).eval(), torch.arange(16)[None]
    else:
        timm = pytest.importorskip("timm")
        model = timm.create_model(name, depth=2, img_size=32, num_classes=10).eval()
        example = torch.zeros(1, 3, 32, 32)
    made = prune(model, example, params=int(count(model, example).params * 0.75))
    assert made.error < 1e-9
    if name == "bert":
        block = made.model.encoder.layer[0].attention.self
        assert block.all_head_size == block.attention_head_size * 4 == block.query.out_features < 48
    else:
        block = made.model.blocks[0].attn
        assert block.head_dim * 3 == block.qkv.out_features // 3
        assert made.model.pos_embed.shape[2] == block.qkv.in_features < 192


def test_parts_that_never_run_stay_and_are_named() -> None:
    """A layer that no forward reads is whole, and the reason says why."""
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    model[1].spare = nn.Linear(7, 9)
    made = prune(model, torch.zeros(1, 4), params=150)
    assert made.model[1].spare.weight.shape == (9, 7)
    reasons = {unit.axes[0]: unit.locked for unit in made.locked}
    assert reasons["1.spare.weight[0]"] == "not used by this forward"


def test_a_face_detector_at_the_size_of_another() -> None:
    """V1 at V2's 256,000 parameters, just below."""
    model, image = create_model("featherface_v1"), torch.zeros(1, 3, 96, 96)
    made = prune(model, image, params=256_000)
    assert 255_000 < made.cost.params <= 256_000
