"""audit, diff and fit as people type them: what they print, and the four ways they end."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from featherpress.budgets.auditing.budget_file import budget_schema

Run = Callable[..., tuple[int, str, str]]
MINE = """
import torch
from torch import nn


def net(width=8, blocks=1):
    if width % 4:
        raise ValueError("width must be divisible by 4")
    return nn.Sequential(nn.Conv2d(3, width, 3), *(nn.Conv2d(width, width, 1) for _ in range(blocks)))


def half():
    return net().half()


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(100, 8), nn.Linear(8, 4)

    def forward(self, words, there):
        return self.last(self.words(words)) * there[..., None]


class Chooses(nn.Module):
    def forward(self, image):
        return image.flatten()[image.flatten().nonzero()] @ torch.ones(1, 2)


class Breaks(nn.Module):
    def forward(self, image):
        return image @ torch.ones(5, 5)
"""


@pytest.fixture
def run(run_command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in a folder with a module of models, outside any CI job."""
    (tmp_path / "mine_in_commands.py").write_text(MINE)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return lambda *arguments: run_command(*(word.replace("mine:", "mine_in_commands:") for word in arguments))


def test_the_four_exit_codes(run: Run, tmp_path: Path) -> None:
    """Within, over, a mistake, and a count that cannot be trusted; the last two say one sentence and no traceback."""
    (tmp_path / "b.toml").write_text('model = "x"\ninput = [1, 3, 8, 8]\n[total]\nparams = { max = 296 }\n')
    assert run("audit", "mine:net", "--budget", "b.toml")[0] == 0
    (tmp_path / "b.toml").write_text('model = "x"\ninput = [1, 3, 8, 8]\n[total]\nparams = { max = 295 }\n')
    assert run("audit", "mine:net", "--budget", "b.toml")[0] == 1
    for code, *command in ((2, "audit", "mine:Breaks", "--input", "8"), (3, "audit", "mine:Chooses", "--input", "8")):
        ended, out, err = run(*command)
        assert (ended, out) == (code, "")
        assert err.startswith("featherpress: ")
        assert err.count("\n") == 1


def test_inputs_of_any_shape_and_type(run: Run) -> None:
    """Oblong images, and several inputs of types of their own, in an audit, beside other counters and in a diff."""
    oblong = json.loads(run("audit", "mine:net", "--input", "1x3x10x20", "--json")[1])
    assert oblong["input"] == [1, 3, 10, 20]
    assert oblong["total"]["macs"] == 27 * 8 * 8 * 18 + 8 * 8 * 8 * 18
    command = ("audit", "mine:Reads", "--input", "1x77:int64, 1x77:bool")
    code, out, err = run(*command, "--cross-check", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["total"]["macs"] == 77 * 8 * 4
    assert "at input 2x3x10x20" in run("diff", "mine:net", "mine:net", "--input", "2x3x10x20")[1]


@pytest.mark.parametrize(
    "shape", ["wide", "0", "70000", "-3", "4x", "x", "1x3x8x8:float7", "1x3:int64,", "²", "1x" * 9]
)
def test_inputs_that_are_none(run: Run, shape: str) -> None:
    """Each is refused in one sentence that shows what is meant."""
    code, out, err = run("audit", "mine:net", "--input", shape)
    assert (code, out) == (2, "")
    assert "a shape for each input, as 1x3x480x640" in err
    assert err.count("\n") == 1


def test_a_model_in_half_precision_gets_an_image_in_it(run: Run, tmp_path: Path) -> None:
    """The input has the type of the model's weights, by size and by budget; its numbers are the same."""
    (tmp_path / "b.toml").write_text('model = "x"\ninput = [1, 3, 8, 8]\n[total]\nmacs = { max = 11_000 }\n')
    for command in (["--input", "8"], ["--budget", "b.toml"]):
        single, half = (run("audit", f"mine:{name}", *command, "--format", "csv") for name in ("net", "half"))
        assert half == single
        assert half[0] == 0


def test_a_failure_in_csv_says_why_beside_it(run: Run, tmp_path: Path) -> None:
    """Rows of numbers have no place for a sentence: it goes to stderr, so that exit code 1 has a reason."""
    (tmp_path / "b.toml").write_text('model = "x"\ninput = [1, 3, 8, 8]\n[total]\nparams = { max = 295 }\n')
    code, out, err = run("audit", "mine:net", "--budget", "b.toml", "--format", "csv")
    assert (code, out.startswith("component,params"), "failed" in out) == (1, True, False)
    assert err.startswith("failed: total has 296 parameters, 1 above the limit of 295")


@pytest.mark.parametrize("style", ["table", "json", "markdown", "csv", "junit"])
def test_every_format_has_the_exact_parameters(run: Run, style: str) -> None:
    """One audit in each format."""
    code, out, _ = run("audit", "mine:net", "--input", "8", "--format", style)
    assert code == 0
    assert ("296" in out) == (style != "junit")
    assert ("<testsuite" in out) == (style == "junit")


def test_views_and_schema(run: Run) -> None:
    """Depth, order, operators and the schema are options of audit."""
    assert "aten::convolution" in run("audit", "mine:net", "--input", "8", "--by", "operator")[1]
    rows = json.loads(run("audit", "mine:net", "--input", "8", "--depth", "1", "--sort", "params", "--json")[1])["view"]
    assert [(row["name"], row["params"]) for row in rows["rows"]] == [("0", 224), ("1", 72)]
    assert run("audit", "mine:net", "--sort", "size")[0] == 2
    assert run("audit", "--schema")[:2] == (0, budget_schema())


def test_pin_and_baseline(run: Run) -> None:
    """Pinned now, within now, and growth of another model over it is 1."""
    assert run("audit", "mine:net", "--input", "8", "--pin", "p.json")[0] == 0
    assert run("audit", "mine:net", "--input", "8", "--baseline", "p.json")[0] == 0
    code, out, _ = run("audit", "featherface_v2", "--baseline", "p.json")
    assert code == 1
    assert "pinned in p.json" in " ".join(out.split())
    assert run("audit", "mine:net", "--input", "8", "--baseline", "gone.json")[0] == 2


def test_fit_finds_uses_and_refuses(run: Run) -> None:
    """The answer, its slack and its neighbours; nothing that fits is 1, a knob that is none 2."""
    command = ("fit", "mine:net", "--knob", "width=4:64:2", "--knob", "blocks=1:3", "--input", "8")
    code, out, _ = run(*command, "--params", "1000", "--json")
    record = json.loads(out)
    assert code == 0
    best = record["rows"][0]
    assert best["params"] + best["params_slack"] == 1000
    everything = [28 * w + n * (w * w + w) for w in range(4, 65, 4) for n in (1, 2, 3)]
    assert best["params"] == max(amount for amount in everything if amount <= 1000)
    assert min(row["params"] for row in record["neighbours"]) == min(a for a in everything if a > 1000)
    assert "nearest beyond" in run(*command, "--params", "1000")[1]
    assert run(*command, "--params", "10")[0] == 1
    assert run("fit", "mine:net", "--params", "1000")[0] == 2
    assert run("fit", "mine:net", "--params", "1000", "--knob", "width")[0] == 2
    assert run("fit", "mine:nothing", "--params", "1000", "--knob", "w=1")[0] == 2
    both = run("fit", "mine:net", "--params", "1000", "--knob", "width=4:8", "--set", "width=4")
    assert (both[0], "width is set and turned" in both[2]) == (2, True)
    set_ = run("fit", "featherface_v2", "--params", "999999", "--set", "out_channels=48", "--json")
    assert {tuple(row["settings"]) for row in json.loads(set_[1])["rows"]} == {("bifpn_repeats",)}


def test_presets_are_fitted(run: Run) -> None:
    """Zoo models come with knobs; at V2's width the answer to 256,000 keeps its exact count."""
    code, out, _ = run("fit", "featherface_v2", "--params", "256000", "--knob", "bifpn_repeats=1:3", "--json")
    record = json.loads(out)
    assert code == 0
    assert [row["params"] for row in record["rows"]] == [254_370]
    assert [row["params"] for row in record["neighbours"]] == [256_812, 259_254]


def test_diff_is_markdown_for_a_pull_request(run: Run) -> None:
    """A heading, a table and a line that says at what input."""
    code, out, _ = run("diff", "featherface_v1", "featherface_v2", "--format", "markdown")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "## featherface_v1 -> featherface_v2")
    assert lines[-3].startswith("| total | 485,599 | 256,812 | 228,787 | 47.1 |")


def test_accuracy_is_held_to_the_budget(run: Run, tmp_path: Path) -> None:
    """Not worse 0, worse 1, undecided 3; the sentence is in JUnit and Markdown; no [accuracy] to hold to is exit 2."""
    budget = 'model = "mine:net"\ninput = [1, 3, 8, 8]\n[total]\nparams = { max = 1000 }\n'
    (tmp_path / "plain.toml").write_text(budget)
    limits = '[accuracy]\nmetric = "IoU"\nbaseline = "old.csv"\nmargin = 0.1\n'
    (tmp_path / "mine.toml").write_text(budget + limits)
    scores = {
        "old": [0.0, 1.0] * 20,
        "worse": [0.0, 0.5] * 20,
        "open": [0.0, 1.0] * 19 + [0.0, -3.0],
    }
    for name, values in scores.items():
        rows = "".join(f"{number},{value}\n" for number, value in enumerate(values))
        (tmp_path / f"{name}.csv").write_text(f"example,score\n{rows}")
    audit = ("audit", "mine:net", "--budget", str(tmp_path / "mine.toml"), "--accuracy")
    for name, code, outcome in (("old", 0, "not worse"), ("worse", 1, "worse"), ("open", 3, "undecided")):
        found, out, _ = run(*audit, str(tmp_path / f"{name}.csv"), "--format", "junit")
        assert found == code
        assert 'name="(accuracy)"' in out
        assert (f'<failure message="{outcome}">' in out) == (code != 0)
        assert f"accuracy: {outcome}:" in run(*audit, str(tmp_path / f"{name}.csv"), "--format", "markdown")[1]
    code, _, err = run("audit", "mine:net", "--budget", str(tmp_path / "plain.toml"), "--accuracy", "old.csv")
    assert (code, "--accuracy needs [accuracy] in" in err) == (2, True)
