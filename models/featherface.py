"""FeatherFace: the face detector, from the published model to the distilled V2.

    images -> backbone -> attention -> BiFPN -> attention -> context -> shuffle -> heads

Source: Kim, Jung, Kim, "FeatherFace", Electronics 2025, 14(3), 517.
"""

from typing import Any

from torch import Tensor, nn

from featherpress.models.detectors import Detector
from featherpress.models.layers.attention import CBAM, SharedCBAM
from featherpress.models.layers.bifpn import BiFPN
from featherpress.models.layers.context import SSH, DeformableContext, GroupedSSH
from featherpress.models.layers.convolution import PerLevel
from featherpress.models.layers.heads import Detections, SeparateHeads, SharedHeads
from featherpress.models.layers.shuffle import ChannelShuffle, ShuffleBottleneck
from featherpress.models.mobilenet import TAP_CHANNELS, MobileNetV1Quarter
from featherpress.models.priors import PriorSpec
from featherpress.models.specs import FeatherFaceSpec


class FeatherFace(Detector):
    """A single-stage face detector over three levels; inputs and outputs as `Detector` says.

    Its children are the components that a budget names: `backbone`, `backbone_attention`, `bifpn`,
    `pyramid_attention`, `context`, `shuffle`, `heads`.
    """

    def __init__(self, spec: FeatherFaceSpec) -> None:
        super().__init__(PriorSpec(per_cell=spec.num_anchors))
        self.spec = spec
        width, levels = spec.out_channels, len(TAP_CHANNELS)
        self.backbone = MobileNetV1Quarter()
        self.backbone_attention = _attention(spec, TAP_CHANNELS)
        self.bifpn = BiFPN(
            TAP_CHANNELS, width, repeats=spec.bifpn_repeats, groups=spec.bifpn_groups, light=spec.light_pyramid
        )
        self.pyramid_attention = _attention(spec, (width,) * levels)
        self.context = PerLevel(_context(spec) for _ in range(levels))
        self.shuffle = PerLevel(_shuffle(spec) for _ in range(levels))
        heads = SharedHeads if spec.heads == "shared" else SeparateHeads
        self.heads = heads(width, levels=levels, anchors=spec.num_anchors)

    def forward(self, images: Tensor) -> Detections:
        """Return raw boxes, class logits and landmarks for every prior."""
        features = self.backbone(images)
        features = self.backbone_attention(features)
        features = self.bifpn(features)
        features = self.pyramid_attention(features)
        features = self.context(features)
        features = self.shuffle(features)
        detections: Detections = self.heads(features)
        return detections


def _attention(spec: FeatherFaceSpec, widths: tuple[int, ...]) -> nn.Module:
    if spec.attention == "none":
        return nn.Identity()
    if spec.attention == "shared":
        return SharedCBAM(widths, spec.cbam_reduction)
    return PerLevel(CBAM(width, spec.cbam_reduction) for width in widths)


def _context(spec: FeatherFaceSpec) -> nn.Module:
    if spec.context == "deformable":
        return DeformableContext(spec.out_channels, groups=spec.context_groups)
    if spec.context == "grouped_ssh":
        return GroupedSSH(spec.out_channels, groups=spec.context_groups)
    return SSH(spec.out_channels, deformable=True)


def _shuffle(spec: FeatherFaceSpec) -> nn.Module:
    block = ShuffleBottleneck if spec.shuffle_conv else ChannelShuffle
    return block(spec.out_channels, groups=spec.shuffle_groups, order=spec.shuffle_order)


def build(**settings: Any) -> FeatherFace:
    """Build a FeatherFace from the settings of its spec."""
    return FeatherFace(FeatherFaceSpec(**settings))
