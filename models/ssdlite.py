"""SSDlite on a MobileNetV3 of any width and input size: torchvision's parts, whose own factory has one of each.

Source: Sandler et al. 2018, MobileNetV2, section 6.2, and Howard et al. 2019, MobileNetV3, section 6.3.
"""

from functools import partial

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead

from featherpress.errors import UsageError

_BACKBONES = {"mobilenet_v3_large": mobilenet_v3_large, "mobilenet_v3_small": mobilenet_v3_small}
_LEVELS = 6


def ssdlite(num_classes: int, backbone: str = "mobilenet_v3_small", width: float = 1.0, size: int = 320) -> SSD:
    """Build an SSDlite with fresh weights; `num_classes` counts the background, `size` is the side it looks at.

    Errors: `UsageError` for another backbone, and for a width or a size that is too small.
    """
    if backbone not in _BACKBONES or not 0.1 <= width <= 4 or size < 64:
        known = " or ".join(_BACKBONES)
        raise UsageError(f"expected {known}, a width from 0.1 to 4 and a size from 64, got {backbone}, {width}, {size}")
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    layers = _BACKBONES[backbone](width_mult=width, norm_layer=norm, reduced_tail=True).features
    # The last layer that halves the image: its expansion is the first level.
    fourth = [place for place, layer in enumerate(layers) if getattr(layer, "_is_cn", False)][-1]
    features = SSDLiteFeatureExtractorMobileNet(layers, fourth, norm, width_mult=width)
    anchors = DefaultBoxGenerator([[2, 3]] * _LEVELS, min_ratio=0.1, max_ratio=0.95)
    features.eval()
    with torch.no_grad():
        channels = [each.shape[1] for each in features(torch.zeros(1, 3, size, size)).values()]
    features.train()
    head = SSDLiteHead(channels, anchors.num_anchors_per_location(), num_classes, norm)
    return SSD(
        features,
        anchors,
        (size, size),
        num_classes,
        head=head,
        score_thresh=0.01,
        nms_thresh=0.55,
        detections_per_img=100,
        topk_candidates=300,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
