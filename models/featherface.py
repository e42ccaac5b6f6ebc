"""FeatherFace: the face detector, from the published model to the distilled V2.

    images -> backbone -> attention -> BiFPN -> attention -> context -> shuffle -> heads

Source: Kim, Jung, Kim, "FeatherFace", Electronics 2025, 14(3), 517.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from featherpress.errors import UsageError
from featherpress.models.detectors import Detector
from featherpress.models.layers.attention import CBAM, SharedCBAM
from featherpress.models.layers.bifpn import BiFPN
from featherpress.models.layers.context import SSH, DeformableContext, GroupedSSH
from featherpress.models.layers.convolution import PerLevel
from featherpress.models.layers.heads import Detections, SeparateHeads, SharedHeads
from featherpress.models.layers.shuffle import ChannelShuffle, ShuffleBottleneck, ShuffleOrder
from featherpress.models.mobilenet import TAP_CHANNELS, MobileNetV1Quarter
from featherpress.models.priors import PriorSpec
from featherpress.models.registry import ModelEntry, register

Attention = Literal["none", "cbam", "shared"]
Context = Literal["deformable", "deformable_ssh", "grouped_ssh"]
Heads = Literal["separate", "shared"]


_MOST, _MOST_REPEATS = 4096, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatherFaceSpec:
    """The whole shape of a FeatherFace.

    `out_channels` is the width of the pyramid; `light_pyramid` drops biases and the second laterals; `shuffle_conv`
    puts the shuffle inside a bottleneck of convolutions. The trained public checkpoints need the `channel_first` order.
    """

    out_channels: int
    attention: Attention = "cbam"
    cbam_reduction: int = 16
    bifpn_repeats: int = 2
    bifpn_groups: int = 1
    light_pyramid: bool = False
    context: Context = "deformable"
    context_groups: int = 1
    shuffle_groups: int = 2
    shuffle_order: ShuffleOrder = "group_first"
    shuffle_conv: bool = False
    heads: Heads = "separate"
    num_anchors: int = 2

    def __post_init__(self) -> None:
        """Refuse sizes that no model has, and choices there are not."""
        for name in (
            "out_channels",
            "cbam_reduction",
            "bifpn_repeats",
            "bifpn_groups",
            "context_groups",
            "shuffle_groups",
            "num_anchors",
        ):
            most = _MOST_REPEATS if name == "bifpn_repeats" else _MOST
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be at least 1 and at most {most:,}, got {getattr(self, name)}")
        choices = {"attention": Attention, "context": Context, "shuffle_order": ShuffleOrder, "heads": Heads}
        for name, choice in choices.items():
            if getattr(self, name) not in get_args(choice):
                known = ", ".join(get_args(choice))
                raise UsageError(f"{name} is one of {known}, got {getattr(self, name)!r}")


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


PRESETS: dict[str, tuple[FeatherFaceSpec, int, str]] = {
    "featherface_v1": (
        FeatherFaceSpec(out_channels=74, bifpn_repeats=3, context="deformable", context_groups=2),
        485_599,
        "V1: CBAM twice, three BiFPN cells, one grouped deformable convolution a level",
    ),
    "featherface_v1_ssh": (
        FeatherFaceSpec(out_channels=56, context="deformable_ssh"),
        502_028,
        "V1 with deformable SSH at width 56, and CBAM twice",
    ),
    "featherface_v1_ssh_plain": (
        FeatherFaceSpec(out_channels=56, context="deformable_ssh", attention="none", shuffle_order="channel_first"),
        489_015,
        "V1 with deformable SSH at width 56 and no attention; public weights exist",
    ),
    "featherface_paper": (
        FeatherFaceSpec(
            out_channels=64,
            bifpn_repeats=3,
            context="deformable_ssh",
            shuffle_conv=True,
            shuffle_order="channel_first",
        ),
        592_371,
        "The published model, 0.49M by its paper; public weights exist",
    ),
    "featherface_v2": (
        FeatherFaceSpec(
            out_channels=32,
            attention="shared",
            cbam_reduction=32,
            bifpn_groups=4,
            light_pyramid=True,
            context="grouped_ssh",
            context_groups=4,
            shuffle_groups=4,
            heads="shared",
        ),
        256_812,
        "V2: shared attention, light BiFPN, grouped SSH, shared heads",
    ),
}

_WEIGHTS = {
    "featherface_v1_ssh_plain": ("featherface_v1_c56_ssh_489015.pth",),
    "featherface_paper": ("featherface_paper_c64_592371.pth",),
}

_SHIPPED = {"featherface_v2": Path(__file__).parent / "weights" / "featherface_v2.safetensors"}


def _build(spec: FeatherFaceSpec, **overrides: Any) -> FeatherFace:
    return FeatherFace(replace(spec, **overrides))


for _name, (_spec, _params, _summary) in PRESETS.items():
    register(
        ModelEntry(
            name=_name,
            build=partial(_build, _spec),
            settings=asdict(_spec),
            params=_params,
            summary=_summary,
            year=2025,
            paper="FeatherFace",
            source="Kim, Jung, Kim, FeatherFace, Electronics 2025, 14(3), 517",
            weights=_WEIGHTS.get(_name, ()),
            shipped=_SHIPPED.get(_name),
        )
    )
