"""CBAM, and the lighter form that shares its spatial half between levels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _hidden_width(channels: int, reduction: int) -> int:
    return max(channels // reduction, 1)


class ChannelGate(nn.Module):
    """Weigh each channel by a shared MLP over its global average and its global maximum.

    sigmoid(MLP(avg x) + MLP(max x)) * x, MLP: C -> h -> C with h = max(C // r, 1).

    Shapes: (N, C, H, W) -> (N, C, H, W).
    Parameters: 2*C*h + h + C.
    Source: Woo et al. 2018, CBAM, eq. 2.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = _hidden_width(channels, reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with each channel scaled into (0, 1)."""
        pooled = torch.stack([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))])
        scores = self.expand(F.relu(self.reduce(pooled))).sum(dim=0)
        return x * torch.sigmoid(scores)[:, :, None, None]


class GroupedGate(nn.Module):
    """The channel gate with a block-diagonal MLP: h groups, no biases.

    Shapes: (N, C, H, W) -> (N, C, H, W); C divisible by h = max(C // r, 1).
    Parameters: 2*C, whatever r.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = _hidden_width(channels, reduction)
        self.reduce = nn.Conv2d(channels, hidden, 1, groups=hidden, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, groups=hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with each channel scaled into (0, 1)."""
        average, maximum = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        scores = self._mlp(average) + self._mlp(maximum)
        return x * torch.sigmoid(scores)

    def _mlp(self, pooled: Tensor) -> Tensor:
        hidden: Tensor = F.relu(self.reduce(pooled))
        scores: Tensor = self.expand(hidden)
        return scores


class SpatialGate(nn.Module):
    """Weigh each position by one map shared across channels: a 7x7 over the channels' maximum and mean.

    Shapes: (N, C, H, W) -> (N, C, H, W), any C.
    Parameters: 98 + 2.
    Cost: 98 * H * W MACs.
    Source: Woo et al. 2018, CBAM, eq. 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with each position scaled into (0, 1)."""
        summary = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.norm(self.conv(summary)))


class CBAM(nn.Module):
    """Channel gate, then spatial gate, around a residual: relu(spatial(channel(x)) + x).

    Shapes: (N, C, H, W) -> (N, C, H, W).
    Parameters: 2*C*h + h + C + 100, h = max(C // r, 1).
    Source: Woo et al. 2018, CBAM, eq. 1; the residual is FeatherFace's (Kim, Jung, Kim 2025).
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction)
        self.spatial = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Attend to channels, then to positions, and add what came in."""
        return F.relu(self.spatial(self.channel(x)) + x)


class SharedCBAM(nn.Module):
    """CBAM over several levels: a grouped channel gate for each width, one spatial gate for all.

    Shapes: L tensors (N, C_l, H_l, W_l) -> the same shapes.
    Parameters: 2 * sum(C_l) + 100.
    """

    def __init__(self, widths: tuple[int, ...], reduction: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(GroupedGate(width, reduction) for width in widths)
        self.spatial = SpatialGate()

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Attend level by level and add what came in."""
        return [F.relu(self.spatial(gate(x)) + x) for gate, x in zip(self.gates, features, strict=True)]
