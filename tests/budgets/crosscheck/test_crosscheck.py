"""The second opinion: other counters agree, or the sentence says why not."""

import importlib
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torchvision
from rich.console import RenderableType
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.budgets import CrossCheck, cross_check
from featherpress.budgets.views.printing import render_cross_check

Printer = Callable[[RenderableType], str]


class Borrowing(nn.Module):
    """A convolution module that only lends its weight, to a deformable convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.lender = nn.Conv2d(4, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        offset = x.new_zeros(x.shape[0], 18, *x.shape[2:])
        return self.norm(torchvision.ops.deform_conv2d(x, offset, self.lender.weight, padding=(1, 1)))


class Varied(nn.Module):
    """One part for each way counters are known to differ in."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.same = nn.Conv2d(4, 4, 3, padding="same")
        self.deformable = Borrowing()
        self.up = nn.ConvTranspose2d(6, 3, 2, 2)
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.recurrent = nn.LSTM(3, 2, batch_first=True)
        self.bilinear = nn.Bilinear(2, 2, 2)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.deformable(self.same(self.plain(x))))
        rows = x.flatten(2).transpose(1, 2)
        rows = self.recurrent(self.attention(rows, rows, rows, need_weights=False)[0])[0]
        return (self.bilinear(rows, rows) * self.scale) @ self.scale


@pytest.fixture(scope="module")
def varied() -> CrossCheck:
    return cross_check(Varied(), torch.zeros(1, 3, 4, 4))


def sentences(result: CrossCheck, tool: str) -> dict[str, str]:
    return {found.component: found.sentence for found in result.disagreements if found.tool == tool}


def test_fvcore_agrees_wherever_it_has_a_handle(varied: CrossCheck) -> None:
    """By a trace instead of a dispatch mode, every component but the LSTM and the bilinear form is the same number."""
    rows = {row.name: (row.macs, row.peer_macs["fvcore"]) for row in varied.rows}
    differ = {name for name, (ours, theirs) in rows.items() if ours != theirs}
    assert differ == {"recurrent", "bilinear", "total"}
    assert sentences(varied, "fvcore") == {
        "recurrent": "fvcore has no handle for aten::lstm (calls: 1) and misses 2,560 MACs",
        "bilinear": "fvcore has no handle for aten::bilinear (calls: 1) and misses 768 MACs",
    }


def test_torch_agrees_but_for_the_bilinear_form(varied: CrossCheck) -> None:
    """With the formulas it lacks, FlopCounterMode is a third counter with the same numbers."""
    assert sentences(varied, "torch") == {"bilinear": "torch has no formula for aten::_trilinear and misses 768 MACs"}


def test_every_difference_of_thop_has_its_reason(varied: CrossCheck) -> None:
    """Norms it adds, weights and work it cannot see, transposed convolutions it gets wrong: each is said."""
    found = sentences(varied, "thop")
    assert found["plain"] == "thop adds 256 MACs for BatchNorm2d, which is not core work"
    assert "does not see 3,456 MACs of deform_conv2d" in found["deformable"]
    assert "does not see 216 weights of Conv2d used through deform_conv2d" in found["deformable"]
    assert found["up"] == "thop gives 4,608 MACs for ConvTranspose2d, not 1,152"
    assert "weights of MultiheadAttention used through" in found["attention"]
    assert "same" not in found
    assert varied.explained


def test_the_models_state_is_not_touched() -> None:
    """thop leaves buffers behind and fvcore hooks: on their copies, not on the model."""
    model = Borrowing().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cross_check(model, torch.zeros(2, 4, 5, 5))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_tool_that_fails_is_reported(print_plain: Printer) -> None:
    """A model that cannot be traced still gets our count, and a sentence for each tool that gave up."""

    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("no traces here")
            return self.linear(x)

    result = cross_check(Untraceable(), torch.zeros(1, 4))
    assert sentences(result, "fvcore") == {"total": "fvcore failed: no traces here"}
    assert result.rows[-1].peer_macs == {"fvcore": None, "thop": 8, "torch": 8}
    assert "fvcore failed" in print_plain(render_cross_check(result))


def test_two_parents_are_told_apart() -> None:
    """A module called through two parents confuses fvcore and thop in known ways, which are said."""

    class TwoParents(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = nn.Linear(4, 4)
            self.left, self.right = nn.Sequential(shared), nn.Sequential(shared)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.left(x)) + self.right(x)

    result = cross_check(TwoParents(), torch.zeros(1, 4))
    assert {row.name: row.macs for row in result.rows} == {"left": 16, "right": 16, "shared": 0, "total": 32}
    assert sentences(result, "fvcore")["left"] == "fvcore credits a module with several parents to the first of them"
    assert "gives 64 MACs for Linear, not 16; counts 20 shared weights again" in sentences(result, "thop")["left"]


def test_the_table_fits_eighty_columns(print_plain: Printer, varied: CrossCheck) -> None:
    """Component, ours and the tools, in exact numbers, with the distributions that were found."""
    text = print_plain(render_cross_check(varied))
    assert max(map(len, text.splitlines())) <= 80
    assert "thop: thop 0." in text
    assert "every difference is explained" in text


def test_peers_are_imported_only_when_asked() -> None:
    """Counting and auditing load neither fvcore nor thop."""
    code = "import sys, featherpress.budgets; sys.exit(bool({'fvcore', 'thop'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert importlib.import_module("featherpress.budgets")
