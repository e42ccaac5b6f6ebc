"""What commands feed a model: what was typed, what a file says, what the model says, or a guess that is told."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from featherpress.budgets import audit, count, cross_check, dump_budget, fit
from featherpress.budgets.auditing.budget_file import parse_budget
from featherpress.budgets.fitting.fit import parse_knob
from featherpress.errors import BudgetFileError, CountError, UsageError

Run = Callable[..., tuple[int, str, str]]
MINE = """
import os

import torch
from torch import nn


class Tok(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, width), nn.Linear(width, 5)

    def forward(self, ids, mask=None):
        return self.head(self.embed(ids))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x, y):
        return self.a(x) + y


class Batch(nn.Module):
    def __init__(self, ratio=1.0, bias=True):
        super().__init__()
        self.a = nn.Linear(4, int(8 * ratio), bias=bias)

    def forward(self, batch, scale=None):
        return self.a(batch["x"]) * batch["many"][0]

    class Inner:
        @staticmethod
        def wide():
            return Batch(2.0)


class Filter(nn.Module):
    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x))


class Prints(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        print("shape", x.shape)
        os.system("echo from below")
        return self.a(x)
"""


@pytest.fixture
def run(run_command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in a folder with a module of models, outside any CI job."""
    (tmp_path / "fed_models.py").write_text(MINE)
    (tmp_path / "my_formulas.py").write_text(
        "FORMULAS = {'aten::_fft_r2c': lambda args, out: 7, 'aten::_fft_c2r': lambda args, out: args[0].numel()}\n"
        "BROKEN = {'aten::_fft_r2c': lambda args, out: args[9]}\n"
    )
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return lambda *arguments: run_command(*(word.replace("mine:", "fed_models:") for word in arguments))


def record(run: Run, *words: str) -> dict[str, Any]:
    code, out, err = run(*words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize(
    ("words", "signature"),
    [
        (["mine:Tok", "--input", "ids=1x7:int64", "--input", "mask=1x7:bool"], ["ids=1x7:int64", "mask=1x7:bool"]),
        (["mine:Two", "--input", "1x3,3:float32"], ["1x3", "3:float32"]),
        (["mine:Batch", "--input", "batch={x=2x4,many=[scalar,8:]}"], ["batch={x=2x4,many=[scalar,8:float32]}"]),
    ],
)
def test_an_init_keeps_what_was_fed(run: Run, words: list[str], signature: list[str]) -> None:
    """A budget that --init wrote is kept by the same model alone, --pin and --baseline too."""
    assert record(run, "audit", *words)["signature"] == signature
    assert run("audit", *words, "--init", "b.toml")[0] == 0
    assert run("audit", words[0], "--budget", "b.toml", "--pin", "p.json")[0] == 0
    kept = record(run, "audit", words[0], "--baseline", "p.json")
    assert (kept["signature"], kept["input_source"]) == (signature, "from p.json")


class Scales(nn.Module):
    def forward(self, x: Tensor, factor: float) -> Tensor:
        return x * factor


def test_what_no_text_can_say_is_no_budget() -> None:
    """A budget file that could not feed the model again is not written."""
    with pytest.raises(UsageError, match="a budget file cannot say what Scales was fed: 1x4, float"):
        dump_budget(count(Scales(), torch.zeros(1, 4), 2.5))


def test_a_text_of_inputs_in_a_budget_file(run: Run, tmp_path: Path) -> None:
    """A file may say in words what --input takes; a wrong one is an error of the file, with its place."""
    (tmp_path / "b.toml").write_text('model = "x"\ninput = "ids=1x7:int64"\n[total]\nmacs = { max = 560 }\n')
    assert run("audit", "mine:Tok", "--budget", "b.toml")[0] == 0
    code, _, err = run("audit", "mine:Tok", "--budget", "b.toml", "--input", "1x7:int64", "--format", "csv")
    assert (code, err) == (0, "")
    with pytest.raises(BudgetFileError, match=r"input is the side of a square image"):
        parse_budget('model = "x"\ninput = ["ids=1x"]\n', file="b.toml")


@pytest.mark.parametrize(
    ("words", "signature", "source"),
    [
        (["featherface_v2", "--budget", "loose.toml", "--input", "64"], "1x3x64x64", "as given"),
        (["featherface_v1_ssh_plain"], "1x3x640x640", "the zoo's size"),
        (["torchvision.models:resnet18"], "1x3x224x224", "as ResNet18_Weights say"),
        (["torchvision.models:efficientnet_b1"], "1x3x240x240", "as EfficientNet_B1_Weights say"),
        (["timm:create_model", "--set", "model_name=inception_v4"], "1x3x299x299", "as its pretrained_cfg says"),
        (["torchvision.models.video:r3d_18"], "1x3x16x112x112", "as R3D_18_Weights say"),
        (["torch.nn:ReLU"], "1x3x224x224", "no --input was given, and the model says no size"),
    ],
)
def test_without_an_input_the_model_says_its_size(
    run: Run, tmp_path: Path, words: list[str], signature: str, source: str
) -> None:
    """timm, torchvision and the zoo say what they take; where nothing does the line says so."""
    if words[0].startswith("timm"):
        pytest.importorskip("timm")
    (tmp_path / "loose.toml").write_text('model = "x"\ninput = [1, 3, 640, 640]\n')
    found = record(run, "audit", *words)
    assert (found["signature"], found["input_source"]) == ([signature], source)


def test_arguments_of_factories_and_dotted_names(run: Run) -> None:
    """--set gives literals, `none` of torchvision stays None, and a name may go on after the colon."""
    plain = record(run, "audit", "mine:Batch", "--set", "bias=false", "--input", "{x=1x4,many=[scalar]}")
    wide = record(run, "audit", "fed_models.py:Batch.Inner.wide", "--input", "{x=1x4,many=[scalar]}")
    assert [found["total"]["params"] for found in (plain, wide)] == [32, 80]
    detector = "torchvision.models.detection:ssdlite320_mobilenet_v3_large"
    assert record(run, "audit", detector, "--set", "num_classes=3")["signature"] == ["1x3x224x224"]
    for words in (["--set", "width"], ["--set", "1=2"], ["--set", "depth=3"]):
        code, _, err = run("audit", "mine:Tok", *words)
        assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        ("mine:Two", "--input x=1x3 --input y=1x3"),
        ("mine:Tok", "--input ids=1x16:int64"),
        ("torch.nn:Bilinear --set in1_features=2 --set in2_features=2 --set out_features=2", "--input input1="),
        ("torch.nn:GRU --set input_size=6 --set hidden_size=2", "--input input=1x16x6"),
    ],
)
def test_a_model_that_fails_on_the_guess_is_answered_with_what_to_try(run: Run, model: str, advice: str) -> None:
    """The sentence says what was fed, that nobody asked for it, and an --input with the forward's own names."""
    code, out, err = run("audit", *model.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "one image of 1x3x224x224 was fed by default (no --input was given" in err
    assert f"try {advice}" in err
    assert "makes its own input" in err


def test_a_size_that_failed_is_not_advised_again(run: Run, tmp_path: Path) -> None:
    """A model of images that takes no 224x224 hears of another size."""
    module = """
from torch import nn


def net(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.LayerNorm(36))
"""
    (tmp_path / "small.py").write_text(module)
    code, _, err = run("audit", "small:net")
    assert code == 2
    assert "was fed by default" in err
    assert ": try another size, as --input input=1x3x64x64, or name" in err
    grey = run("audit", "small:net", "--set", "channels=1", "--input", "1x1x224x224")[2]
    assert ": try another size, as --input input=1x1x64x64, or name" in grey


def test_weights_that_are_drawn_are_the_same_every_time(run: Run, tmp_path: Path) -> None:
    """A forward that branches by its weights costs the same at every audit, whatever was drawn before."""
    module = """
from torch import nn


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.judge, self.body = nn.Linear(4, 1), nn.Linear(4, 4)

    def forward(self, x):
        return self.body(x) if self.judge.weight.sum() > 0 else x
"""
    (tmp_path / "gated.py").write_text(module)
    found = set()
    for seed in range(6):
        torch.manual_seed(seed)
        found.add(record(run, "audit", "gated:Gate", "--input", "1x4")["total"]["macs"])
    assert len(found) == 1


def test_what_was_given_and_fails_is_answered_too(run: Run) -> None:
    """Then nothing was fed by default."""
    code, _, err = run("audit", "mine:Tok", "--input", "1x7")
    assert code == 2
    assert "; 1x7 was fed (as given): try --input ids=1x16:int64" in err


def test_formulas_from_the_command_line(run: Run) -> None:
    """Expressions by operator, or a module's table; what is no formula, or fails, is one sentence."""
    model = ("mine:Filter", "--input", "1x8")
    assert run("audit", *model)[0] == 3
    assert '--formula "aten::_fft_r2c=...' in run("audit", *model)[2]
    typed = (
        "--formula",
        "aten::_fft_r2c = 2 * prod(args[0].shape)",
        "--formula",
        "aten::_fft_c2r=result.numel()*log2(8)",
    )
    assert record(run, "audit", *model, *typed)["total"]["macs"] == 2 * 8 + 8 * 3
    assert record(run, "audit", *model, "--formula", "my_formulas")["total"]["macs"] == 7 + 5
    assert record(run, "audit", *model, *typed, "--formula", "aten::_fft_r2c=result.numel()**2")["total"]["macs"] > 0
    idle = record(run, "audit", *model, *typed, "--formula", "lib::gone=1", "--formula", "aten::mm=1")["notes"]
    assert "no operator runs that a formula is given for: aten::mm, lib::gone" in idle
    for wrong, code, words in (
        ("my_formulas:BROKEN", 3, "the formula of aten::_fft_r2c fails"),
        ("aten::_fft_r2c=result.numel() / 3", 3, "expected a whole number"),
        ("aten::_fft_r2c=__import__('os')", 2, "expected arithmetic on args, result"),
        ("aten::_fft_r2c=args[0].__class__", 2, "expected arithmetic on args, result"),
        ("aten::_fft_r2c=2 *", 2, "is no expression"),
        ("aten::_fft_r2c=9**9**9", 2, "expected powers and shifts by a number up to 64"),
        ("aten::_fft_r2c=1 << args[0].numel()", 2, "expected powers and shifts by a number up to 64"),
        ("my_formulas:GONE", 2, "whose GONE maps such names to functions"),
        ("aten::_fft_r2c", 2, "--formula is library::operator=EXPRESSION"),
        ("_fft_r2c=2", 2, "--formula is library::operator=EXPRESSION"),
    ):
        ended, _, err = run("audit", *model, "--formula", wrong)
        assert (ended, err.count("\n")) == (code, 1)
        assert words in err


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor | None = None, *, scale: Tensor | None = None) -> Tensor:
        return self.head(self.embed(ids)) * (1 if scale is None else scale)


def test_keywords_and_formulas_in_python() -> None:
    """`audit` and `cross_check` take what `count` takes; a file of a budget holds the names too."""
    ids = torch.zeros(1, 5, dtype=torch.int64)
    assert audit(Named(), name="x", kwargs={"ids": ids}).total.macs == 40
    assert audit(Named(), parse_budget(dump_budget(count(Named(), ids)), file="b"), name="x").verdict == "within"
    checked = cross_check(Named(), kwargs={"mask": ids, "ids": ids}, formulas={"a::b": lambda args, out: 0})
    assert (checked.rows[-1].peer_macs["fvcore"], checked.explained) == (40, True)
    model = Named()
    scaled = cross_check(model, ids, kwargs={"scale": torch.ones(1)}).rows[-1]
    assert set(scaled.peer_macs.values()) == {scaled.macs}
    assert type(model) is Named
    sine = nn.Sequential(nn.Linear(4, 4))
    sine.forward = torch.fft.fft  # type: ignore[method-assign]
    with pytest.raises(CountError):
        audit(sine, name="x", example_inputs=torch.zeros(1, 4))
    counted = audit(sine, name="x", example_inputs=torch.zeros(1, 4), formulas={"aten::_fft_r2c": lambda a, b: 3})
    assert counted.total.macs == 3


def test_fit_takes_any_inputs_and_fractions(run: Run) -> None:
    """Token models, keywords, factors with a fraction, fixed arguments; models that read their weights."""
    words = ("fit", "mine:Tok", "--knob", "width=8:64:8", "--params", "3000")
    assert run(*words)[0] == 2
    assert "try --input ids=1x16:int64" in run(*words)[2]
    best = record(run, *words, "--input", "ids=1x7:int64")
    assert best["rows"][0]["settings"] == {"width": 48}
    assert best["signature"] == ["ids=1x7:int64"]
    ratios = ("fit", "mine:Batch", "--knob", "ratio=0.25:1.5:0.25", "--set", "bias=False", "--params", "41")
    found = record(run, *ratios, "--input", "batch={x=1x4,many=[scalar]}")
    assert [row["settings"]["ratio"] for row in found["rows"]] == [1.25, 1, 0.75, 0.5, 0.25]

    class Reads(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.line = nn.Linear(4, width)
            nn.init.ones_(self.line.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.line(x) if self.line.weight.sum() > 0 else x

    result = fit(Reads, [parse_knob("width=1:3")], name="reads", macs=8, example_inputs=torch.zeros(1, 4))
    assert [row.settings["width"] for row in result.rows] == [2, 1]


COMMANDS = """
import sys
from featherpress.cli import main

for words in (["audit", "fed_models:Prints", "--input", "1x3", "--format", sys.argv[1]], ["diff", "fed_models:Prints",
              "fed_models:Prints", "--input", "1x3", "--json"]):
    sys.argv = ["featherpress", *words]
    try:
        main()
    except SystemExit as ending:
        assert not ending.code
    print("---", flush=True)
"""


@pytest.mark.parametrize("style", ["json", "junit"])
def test_what_a_forward_prints_is_not_our_output(run: Run, tmp_path: Path, style: str) -> None:
    """JSON and XML stay whole whatever the model prints, from Python or from below."""
    ended = subprocess.run(
        [sys.executable, "-c", COMMANDS, style], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    audited, compared, _ = ended.stdout.split("---\n")
    json.loads(compared)
    assert ElementTree.fromstring(audited) if style == "junit" else json.loads(audited)  # noqa: S314 -- our own
    assert ended.stderr.count("shape") == ended.stderr.count("from below") == 3


def test_a_byte_order_mark_is_no_key(run: Run, tmp_path: Path) -> None:
    """Files that Notepad saved are read: a budget, a pin, a module that a file names."""
    (tmp_path / "b.toml").write_text('\ufeffmodel = "x"\ninput = "ids=1x7:int64"\n[total]\nparams = { max = 885 }\n')
    assert run("audit", "mine:Tok", "--budget", "b.toml", "--pin", "p.json")[0] == 0
    (tmp_path / "p.json").write_text("\ufeff" + (tmp_path / "p.json").read_text())
    assert run("audit", "mine:Tok", "--baseline", "p.json")[0] == 0
