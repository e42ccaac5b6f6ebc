"""The settings of models, which can be listed without building them."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

from featherpress.errors import UsageError

Attention = Literal["none", "cbam", "shared"]
Context = Literal["deformable", "deformable_ssh", "grouped_ssh"]
ShuffleOrder = Literal["group_first", "channel_first"]
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
        """Refuse sizes out of range, and unknown choices."""
        for each in fields(self):
            value, choices = getattr(self, each.name), get_args(each.type)
            most = _MOST_REPEATS if each.name == "bifpn_repeats" else _MOST
            if each.type is int and not 1 <= value <= most:
                raise UsageError(f"{each.name} must be at least 1 and at most {most:,}, got {value}")
            if choices and value not in choices:
                raise UsageError(f"{each.name} is one of {', '.join(choices)}, got {value!r}")
