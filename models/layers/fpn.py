"""The plain top-down pyramid of RetinaFace."""

from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.models.layers.convolution import ConvNorm


class FPN(nn.Module):
    """Lateral 1x1 convolutions, nearest upsampling added from above, a 3x3 after each sum.

    Shapes: three tensors (N, in_l, H_l, W_l) -> three tensors (N, C, H_l, W_l).
    Parameters: sum(in_l) * C + 2 * 9*C^2 + 5 * 2*C.
    Source: Lin et al. 2017, Feature Pyramid Networks; Deng et al. 2020, RetinaFace.
    """

    def __init__(self, in_channels: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        leak = 0.1 if channels <= 64 else 0.0
        self.laterals = nn.ModuleList(
            ConvNorm(width, channels, 1, activation=nn.LeakyReLU(leak)) for width in in_channels
        )
        self.merge_p3 = ConvNorm(channels, channels, 3, activation=nn.LeakyReLU(leak))
        self.merge_p4 = ConvNorm(channels, channels, 3, activation=nn.LeakyReLU(leak))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Carry the coarse levels down into the fine ones."""
        p3, p4, p5 = (lateral(x) for lateral, x in zip(self.laterals, features, strict=True))
        p4 = self.merge_p4(p4 + F.interpolate(p5, size=p4.shape[-2:], mode="nearest"))
        p3 = self.merge_p3(p3 + F.interpolate(p4, size=p3.shape[-2:], mode="nearest"))
        return [p3, p4, p5]
