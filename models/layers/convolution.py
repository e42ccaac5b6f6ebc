"""Convolution, normalisation and activation in the few arrangements that every block here uses."""

from torch import Tensor, nn

from featherpress.errors import UsageError


def require_divisible(channels: int, by: int, *, block: str) -> None:
    """Refuse a width that a block cannot split into equal parts.

    Errors: `UsageError` that names the block, the width and the nearest widths that work.
    """
    if channels % by:
        below, above = channels // by * by, (channels // by + 1) * by
        nearest = f"{below} or {above}" if below else str(above)
        raise UsageError(f"{block} needs a width divisible by {by}, got {channels}; the nearest are {nearest}")


class ConvNorm(nn.Sequential):
    """A convolution without bias, BatchNorm and, where given, an activation.

    Shapes: (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)) for odd kernels.
    Parameters: k^2 * in * out / groups + 2 * out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(out_channels),
        ]
        super().__init__(*layers, *([activation] if activation else []))


class PerLevel(nn.ModuleList):
    """One module per pyramid level, each applied to its own level.

    Shapes: a list of L tensors -> a list of L tensors.
    """

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Apply the i-th module to the i-th level."""
        return [module(feature) for module, feature in zip(self, features, strict=True)]
