"""Channel shuffle: let what one group computed reach the others."""

from torch import Tensor, nn

from featherpress.models.layers.convolution import ConvNorm, require_divisible
from featherpress.models.specs import ShuffleOrder


class ChannelShuffle(nn.Module):
    """Reorder channels across `groups`; no parameters.

    `group_first` reads the channels as (groups, C / groups) and transposes, as ShuffleNet does; `channel_first` reads
    them as (C / groups, groups), its inverse. With two groups of an even width the two differ too.

    Shapes: (N, C, H, W) -> (N, C, H, W), C divisible by `groups`.
    Source: Zhang et al. 2018, ShuffleNet, section 3.1.
    """

    def __init__(self, channels: int, *, groups: int, order: ShuffleOrder = "group_first") -> None:
        super().__init__()
        require_divisible(channels, groups, block="channel shuffle")
        self.rows = groups if order == "group_first" else channels // groups

    def forward(self, x: Tensor) -> Tensor:
        """Interleave the groups."""
        batch, channels, height, width = x.shape
        columns = channels // self.rows
        return x.reshape(batch, self.rows, columns, height, width).transpose(1, 2).reshape(x.shape)

    def extra_repr(self) -> str:
        """Return the number of groups for the module's repr."""
        return f"rows={self.rows}"


class ShuffleBottleneck(nn.Sequential):
    """Shuffle, squeeze to half the width, depthwise 3x3, back to the full width, relu at the end only.

    Shapes: (N, C, H, W) -> (N, C, H, W), C even.
    Parameters: C^2 + 9*C/2 + 4*C; at 64 4,640.
    Source: FeatherFace (Kim, Jung, Kim 2025), after Zhang et al. 2018, ShuffleNet, fig. 2.
    """

    def __init__(self, channels: int, *, groups: int, order: ShuffleOrder = "group_first") -> None:
        require_divisible(channels, 2, block="the shuffle bottleneck")
        half = channels // 2
        super().__init__(
            ChannelShuffle(channels, groups=groups, order=order),
            ConvNorm(channels, half, 1),
            ConvNorm(half, half, 3, groups=half),
            ConvNorm(half, channels, 1, activation=nn.ReLU()),
        )
