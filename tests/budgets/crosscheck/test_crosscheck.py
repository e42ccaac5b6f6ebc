"""The second opinion: other counters agree, or the sentence says why not."""

import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from rich.console import RenderableType
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.budgets import CrossCheck, cross_check
from featherpress.budgets.crosscheck import counters
from featherpress.budgets.crosscheck.counters import COUNTERS, CounterResult
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
    assert sentences(result, "fvcore")["left"] == "fvcore credits a module with several parents to one of them"
    assert "gives 64 MACs for Linear, not 16; counts 20 shared weights again" in sentences(result, "thop")["left"]


def product(x: Tensor, y: Tensor) -> Tensor:
    return x @ y


class Scripted(nn.Module):
    """An LSTM, and a product, which may be in scripted code, beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 8, batch_first=True)
        self.matrix = nn.Parameter(torch.randn(8, 100))

    def forward(self, x: Tensor) -> Tensor:
        return product(self.cells(x)[0], self.matrix)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_what_is_lost_is_blamed_on_what_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent's loss has nothing to do with the operators of its children."""
    monkeypatch.setitem(globals(), "product", torch.jit.script(product))
    found = sentences(cross_check(Scripted(), torch.randn(1, 5, 8)), "fvcore")
    assert found["(root)"] == "fvcore has no handle for prim::CallFunction (calls: 1) and misses 4,000 MACs"
    assert found["cells"].startswith("fvcore has no handle for aten::lstm (calls: 1) and misses")


def test_what_runs_deep_inside_is_not_the_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an LSTM two modules down nothing is left for the root to be excused by."""
    handles = counters._fvcore_handles()
    monkeypatch.setattr(counters, "_fvcore_handles", lambda: {**handles, "aten::matmul": lambda _in, _out: 0})

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.LSTM(8, 8))
            self.matrix = nn.Parameter(torch.randn(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x)[0] @ self.matrix
            return y

    found = sentences(cross_check(Outer(), torch.randn(2, 8)), "fvcore")
    assert found["(root)"] == "fvcore differs and no evidence says why: trust neither count"
    assert found["inner"].startswith("fvcore has no handle for aten::lstm")


class Unused(nn.Module):
    """Runs a layer twice and a sequence once, and returns the layer's second result alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.lost = nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.lost(self.layer(x))
        y: Tensor = self.layer(x)
        return y


def test_dead_work_is_measured() -> None:
    """A trace drops what no output is made of, be it one of two calls; how much that is, another counter saw."""
    result = cross_check(Unused(), torch.randn(2, 8))
    assert sentences(result, "fvcore") == {
        "layer": "fvcore does not see 128 MACs whose result the output does not use",
        "lost": "fvcore does not see 192 MACs whose result the output does not use",
    }
    assert result.explained


def test_a_loss_without_evidence_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle that counts half is neither dead work nor an operator that is not supported."""
    handles = counters._fvcore_handles()
    halved = {**handles, "aten::linear": lambda inputs, outputs: handles["aten::linear"](inputs, outputs) // 2}
    monkeypatch.setattr(counters, "_fvcore_handles", lambda: halved)
    result = cross_check(nn.Sequential(nn.Linear(8, 8), nn.LSTM(8, 8)), torch.randn(2, 8))
    assert sentences(result, "fvcore")["0"] == "fvcore differs and no evidence says why: trust neither count"
    assert not result.explained


def test_a_formula_that_is_there_is_no_excuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlopCounterMode has a formula for addmm, so that a miss there is not explained by having none."""
    ask = counters.ask_torch

    def blind(*arguments: Any) -> CounterResult:
        found = ask(*arguments)
        return replace(found, macs=dict.fromkeys(found.macs, 0), work=Counter())

    monkeypatch.setitem(COUNTERS, "torch", blind)
    result = cross_check(nn.Linear(8, 8), torch.randn(2, 8))
    assert sentences(result, "torch") == {"total": "torch differs and no evidence says why: trust neither count"} or (
        "no evidence" in next(iter(sentences(result, "torch").values()))
    )
    assert not result.explained


def test_torch_counts_on_the_cpu_what_meta_cannot_run() -> None:
    """A model that asks for a value runs for real."""

    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(x)
            return y * 2 if y.sum() > 1e9 else y

    assert cross_check(Asks(), torch.zeros(2, 4)).rows[-1].peer_macs["torch"] == 32


def test_a_weight_may_be_handed_to_a_module() -> None:
    """A class token, as CaiT has it: FlopCounterMode's tracker of modules must not stumble over it."""

    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.mix = nn.Parameter(torch.zeros(1, 1, 4)), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.mix(self.token.expand(x.shape[0], -1, -1)) + self.mix(x)
            return y

    assert cross_check(Token(), torch.zeros(1, 1, 4)).rows[-1].peer_macs["torch"] == 32


def test_outputs_may_be_anything() -> None:
    """A dictionary with an object in it, as language models return their cache: a trace gets its tensors."""

    class Talks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"logits": self.head(x), "cache": object()}

    assert cross_check(Talks(), torch.zeros(1, 4)).rows[-1].peer_macs["fvcore"] == 16


def test_no_second_opinion_explains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every tool fails, nothing was compared."""

    def fail(*_arguments: object) -> CounterResult:
        raise RuntimeError("broken")

    for tool in COUNTERS:
        monkeypatch.setitem(COUNTERS, tool, fail)
    assert not cross_check(nn.Linear(2, 2), torch.zeros(1, 2)).explained


class Products(nn.Module):
    """Convolutions of a subclass, and a product outside of all modules that have a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Scripted()
        self.norm = nn.BatchNorm1d(100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.body(x)[0])
        return y


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # As a thop that counts products wherever they run: at the root, and every module's weights.
        (
            {"body": (2560, 1376, {"cells": (2560, 576, {})}), "norm": (1000, 200, {})},
            {
                "body": "thop counts 4,000 MACs of mm at no module",
                "norm": "thop adds 1,000 MACs for BatchNorm1d, which is not core work",
            },
        ),
        # It says less for the LSTM than anyone, and its weights are no sum of ours.
        (
            {"body": (2560, 7, {"cells": (2560, 7, {})}), "norm": (0, 200, {})},
            {"body": "thop differs and no evidence says why: trust neither count"},
        ),
    ],
    ids=["functions too", "other weights"],
)
def test_other_distributions_of_thop(
    rows: dict[str, Any], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several distributions install a `thop` that counts otherwise: what each reports is the evidence."""
    total = 4000 + sum(macs for macs, _, _ in rows.values())
    import thop

    monkeypatch.setattr(thop, "profile", lambda *_, **__: (total, sum(row[1] for row in rows.values()), rows))
    found = sentences(cross_check(Products().eval(), torch.randn(1, 5, 8)), "thop")
    assert {name: found.get(name) for name in expected} == expected


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
