"""Small networks, one for each way in which channels are moved about."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = torch.zeros(1, 3, 16, 16)
WORDS = torch.arange(9)[None]
ROWS = torch.zeros(2, 5, 6)
VOLUME = torch.zeros(1, 2, 6, 6, 6)


class Pooled(nn.Module):
    """A body, the mean of each channel, and a linear layer."""

    def __init__(self, body: nn.Module, width: int, classes: int = 5) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).mean((2, 3)))


class C2f(nn.Module):
    """YOLO's block: an axis in halves, by `chunk`, `split` or slices with numbers that the module keeps."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.c, self.how = 12, how
        self.cv1, self.cv2 = nn.Conv2d(16, 24, 1), nn.Conv2d(48, 24, 1)
        self.m = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        match self.how:
            case "chunk":
                parts = list(x.chunk(2, 1))
            case "split":
                parts = list(x.split((self.c, self.c), 1))
            case _:
                parts = [x[:, : self.c], x[:, self.c :]]
        for each in self.m:
            parts.append(each(parts[-1]).relu())
        return self.cv2(torch.cat(parts, 1))


class Viewed(nn.Module):
    """A block that keeps its width under the name that PyTorch's layers give theirs, and views by it."""

    def __init__(self, some: int, more: int) -> None:
        super().__init__()
        self.out_channels, self.layer = more, nn.Conv2d(some, more, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).relu().view(x.shape[0], self.out_channels, *x.shape[2:])


class Residual(nn.Module):
    """Two branches and a shortcut; the norm of the channels scales them, as their mean and maximum do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.n, self.mix = nn.BatchNorm2d(24), nn.Conv2d(2, 1, 3, padding=1)
        self.o = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).sigmoid()
        x = F.normalize(x + self.n(self.b(x)))
        spatial = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.o(x * self.mix(spatial).sigmoid())


class Unet(nn.Module):
    """Down and up again by a transposed convolution, with a skip that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x).relu()
        y = self.up(self.deep(F.max_pool2d(x, 2)).relu())
        return self.out(self.join(torch.cat([y, x], 1)).relu())


class Attention(nn.Module):
    """Attention as timm and torchvision's Swin write it: a width that is kept, or computed; a scale that is too."""

    def __init__(self, style: str, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.style, self.num_heads, self.head_dim = style, heads, width // heads
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, many, width = x.shape
        head = self.head_dim if self.style == "timm" else width // self.num_heads
        q, k, v = self.qkv(x).reshape(batch, many, 3, self.num_heads, head).permute(2, 0, 3, 1, 4).unbind(0)
        if self.style == "sdpa":
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            scale = self.scale if self.style == "timm" else (width // self.num_heads) ** -0.5
            x = ((q * scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, many, width))


class Vit(nn.Module):
    """A transformer over patches, with a class token and positions."""

    def __init__(self, style: str, width: int = 48) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        self.n1, self.n2, self.n3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(style)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        x = x + self.attn(self.n1(x))
        return self.head(self.n3(x + self.mlp(self.n2(x)))[:, 0])


class MultiHead(nn.Module):
    """PyTorch's own attention, with or without weights of attention to return."""

    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.weights = weights
        self.e, self.n, self.o = nn.Linear(6, 32), nn.LayerNorm(32), nn.Linear(32, 3)
        self.a = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x)
        return self.o(self.n(x + self.a(x, x, x, need_weights=self.weights)[0]))


class Separate(nn.Module):
    """Query, key and value by layers of their own, and the width of a head by division."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.o = nn.Linear(6, 32), nn.Linear(32, 3)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x)
        batch, many, width = x.shape
        q, k, v = (each(x).view(batch, many, 4, width // 4).transpose(1, 2) for each in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, many, width))


class Tied(nn.Module):
    """An embedding that is the last layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.o = nn.Embedding(100, 32), nn.Linear(32, 100, bias=False)
        self.l = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32))
        self.o.weight = self.e.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.e(words)
        return self.o(x + self.l(x))


class Recurrent(nn.Module):
    """An LSTM between linear layers: its recurrence stays, what goes in does not."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.l, self.o = nn.Linear(6, 24), nn.LSTM(24, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.l(self.i(x).relu())[0][:, -1])


class Single(nn.Module):
    """Code that asks for single precision by default, by name and by method, as a state and positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.s, self.p, self.o = nn.Linear(6, 24), nn.Linear(16, 24), nn.Linear(1, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], x.shape[1], 16, device=x.device)
        places = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)[:, None]
        return self.o((self.i(x).float() + self.s(state) + self.p(places)).relu())


class Shared(nn.Module):
    """One layer that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.s, self.o = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        for _ in range(3):
            x = x + self.s(x).relu()
        return self.o(x)


class Divided(nn.Module):
    """A number in the code that follows a width: the mean of a sum."""

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.a, self.b, self.o, self.power = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3), nn.Conv2d(8, 2, 1), power

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu())
        x = x / self.a.out_channels if self.power == 1 else (x + 1).relu() / self.a.out_channels
        return self.o(x.relu())


class Sorted(nn.Module):
    """An operator that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(torch.sort(self.a(x), dim=1).values + self.b(self.a(x)))


def chain(*widths: int, between: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    layers: list[nn.Module] = []
    for some, more in pairwise((3, *widths)):
        layers += [nn.Conv2d(some, more, 3, padding=1), between(more), nn.ReLU()]
    return Pooled(nn.Sequential(*layers), widths[-1])


def grouped() -> nn.Module:
    """Groups that shrink alike, groups that go whole, norms of groups, a shuffle, and one slope a channel."""
    return Pooled(
        nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.GroupNorm(4, 32), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=4), nn.GroupNorm(1, 32),
            nn.ChannelShuffle(4), nn.Conv2d(32, 32, 3, groups=16), nn.PReLU(32), nn.Conv2d(32, 16, 1),
        ),
        16,
    )  # fmt: skip


def separable() -> nn.Module:
    """Depthwise convolutions, one of which doubles the channels, then a flattened image."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.Conv2d(16, 32, 3, groups=16), nn.Hardswish(), nn.Conv2d(32, 12, 1),
        nn.Conv2d(12, 12, 3, groups=12), nn.Flatten(), nn.Linear(12 * 9, 5),
    )  # fmt: skip


def shuffled() -> nn.Module:
    """Pixels from channels, and channels from pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(8, 8, 3, padding=1), nn.PixelUnshuffle(2),
        nn.Conv2d(32, 4, 1),
    )  # fmt: skip


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "chain": (lambda: chain(16, 24), IMAGE),
    "layer norms": (lambda: chain(16, 24, between=lambda width: nn.GroupNorm(1, width)), IMAGE),
    "residual": (Residual, IMAGE),
    "unet": (Unet, IMAGE),
    "grouped": (grouped, IMAGE),
    "separable": (separable, IMAGE),
    "shuffled": (shuffled, IMAGE),
    "chunk": (lambda: Pooled(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), C2f("chunk")), 24), IMAGE),
    "split": (lambda: Pooled(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), C2f("split")), 24), IMAGE),
    "slices": (lambda: Pooled(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), C2f("slices")), 24), IMAGE),
    "timm": (lambda: Vit("timm"), IMAGE),
    "swin": (lambda: Vit("swin"), IMAGE),
    "sdpa": (lambda: Vit("sdpa"), IMAGE),
    "multihead": (lambda: MultiHead(weights=False), ROWS),
    "multihead with weights": (lambda: MultiHead(weights=True), ROWS),
    "separate": (Separate, ROWS),
    "tied": (Tied, WORDS),
    "recurrent": (Recurrent, ROWS),
    "single": (Single, ROWS),
    "shared": (Shared, IMAGE),
    "divided": (Divided, IMAGE),
    "divided later": (lambda: Divided(2), IMAGE),
    "sorted": (Sorted, IMAGE),
    "viewed": (lambda: Pooled(nn.Sequential(Viewed(3, 16), Viewed(16, 24)), 24), IMAGE),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(2, 16, 3), nn.ReLU(), nn.Conv3d(16, 12, 3), nn.Conv3d(12, 2, 1)),
        VOLUME,
    ),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, example = NETS[name]
    return make(), example
