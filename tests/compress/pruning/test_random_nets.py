"""Any network of these parts: limits hold, the oracle agrees, nothing can be given back."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.compress import prune

from .nets import IMAGE

WIDTHS = st.sampled_from([4, 6, 8, 12, 16])
PARTS = ("conv", "norm", "group norm", "grouped", "depthwise", "residual", "joined", "halves", "shuffle", "attention",
         "shared", "gate")  # fmt: skip


class Block(nn.Module):
    """One part between two widths."""

    def __init__(self, part: str, width: int, out: int) -> None:
        super().__init__()
        self.part, self.heads = part, 2
        kernel = {"padding": 1}
        match part:
            case "conv":
                self.a = nn.Conv2d(width, out, 3, **kernel)
            case "norm":
                self.a, self.n = nn.Conv2d(width, out, 1), nn.BatchNorm2d(out)
            case "group norm":
                self.a, self.n = nn.Conv2d(width, out, 1), nn.GroupNorm(2, out)
            case "grouped":
                self.a = nn.Conv2d(width, out, 3, groups=2, **kernel)
            case "depthwise":
                self.a, self.b = nn.Conv2d(width, width, 3, groups=width, **kernel), nn.Conv2d(width, out, 1)
            case "joined":
                self.a, self.b = nn.Conv2d(width, out // 2, 1), nn.Conv2d(width, out - out // 2, 3, **kernel)
            case "halves":
                self.a, self.b = nn.Conv2d(width, 2 * out, 1), nn.Conv2d(out, out, 3, **kernel)
            case "attention":
                self.q, self.o, self.n = nn.Linear(width, 3 * width), nn.Linear(width, out), nn.LayerNorm(width)
            case "gate":
                self.a, self.b, self.c = nn.Conv2d(width, out, 1), nn.Linear(width, 4), nn.Linear(4, out)
            case _:
                self.a, self.b = nn.Conv2d(width, width, 3, **kernel), nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        match self.part:
            case "conv" | "grouped":
                return self.a(x).relu()
            case "norm" | "group norm":
                return F.silu(self.n(self.a(x)))
            case "residual":
                return self.b((x + self.a(x)).sigmoid())
            case "shared":
                return self.b(x + self.a(self.a(x).relu()))
            case "joined":
                return torch.cat([self.a(x).relu(), self.b(x)], 1)
            case "halves":
                some, others = self.a(x).chunk(2, 1)
                return some.sigmoid() * self.b(others)
            case "shuffle":
                return self.b(F.channel_shuffle(self.a(x), 2))
            case "attention":
                return self.attend(x)
            case "gate":
                return self.a(x) * self.c(self.b(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
            case _:
                return self.b(self.a(x).relu())

    def attend(self, x: Tensor) -> Tensor:
        batch, width, high, wide = x.shape
        rows = self.n(x.flatten(2).transpose(1, 2))
        parts = self.q(rows).view(batch, high * wide, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        rows = F.scaled_dot_product_attention(*parts.unbind(0)).transpose(1, 2).reshape(batch, high * wide, width)
        return self.o(rows).transpose(1, 2).unflatten(2, (high, wide))


class Random(nn.Module):
    """Parts in a row, some of which take what an earlier one gave as well."""

    def __init__(self, parts: list[tuple[str, int, bool]]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.blocks, self.skips = nn.ModuleList(), [skip for *_, skip in parts]
        width = 8
        for part, out, skip in parts:
            self.blocks.append(Block(part, width, out))
            width = out + width if skip else out
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            x = torch.cat([x, block(x)], 1) if skip else block(x)
        return self.head(x.mean((2, 3)))


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    parts=st.lists(st.tuples(st.sampled_from(PARTS), WIDTHS, st.booleans()), min_size=1, max_size=4),
    share=st.floats(0.3, 0.95),
    by_macs=st.booleans(),
)
def test_a_random_net_is_cut_and_proven(
    parts: list[tuple[str, int, bool]], share: float, by_macs: bool, take_steps: Callable[..., Any]
) -> None:
    """Limits in parameters or MACs hold by count, the error is rounding, and no unit can be given back."""
    torch.manual_seed(len(parts))
    model = Random(parts)
    quantity = "macs" if by_macs else "params"
    whole = getattr(count(model, IMAGE), quantity)
    limit = int(whole * share)
    steps = take_steps(model, IMAGE, floor=0.0, strict=False, **{quantity: limit})
    if steps is None:
        return
    made = prune(model, IMAGE, floor=0, **{quantity: limit})
    assert made.error < 1e-9
    assert getattr(count(made.model, IMAGE), quantity) <= limit
    for _, larger in steps.give_back():
        assert getattr(count(larger, IMAGE), quantity) > limit
