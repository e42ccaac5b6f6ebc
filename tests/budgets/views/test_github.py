"""In CI: pinned baselines, the job summary, and the commands of the action and the hook as they would be run."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from featherpress.budgets import Audit, audit
from featherpress.budgets.auditing.baseline import dump_baseline, load_baseline, ratchet
from featherpress.commands.printing import append_step_summary
from featherpress.errors import BudgetFileError, FileError

ROOT = Path(__file__).parents[3]
NET = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.ReLU())\n"


def audited(width: int = 4, side: int = 8, **more: nn.Module) -> Audit:
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, width, 3))
    for name, module in more.items():
        model.add_module(name, module)
    return audit(model, name="toy", example_inputs=torch.zeros(1, 3, side, side))


@pytest.fixture
def pinned(tmp_path: Path) -> Callable[[Audit], Audit]:
    """Pin a small model, and hold others to it."""
    path = tmp_path / "pin.json"
    path.write_text(dump_baseline(audited()))
    return lambda result: ratchet(result, load_baseline(path), file="pin.json")


def test_what_did_not_change_passes(pinned: Callable[[Audit], Audit]) -> None:
    """A model held to its own pin neither fails nor has anything to say."""
    result = pinned(audited())
    assert (result.exit_code, result.failures, result.notes) == (0, (), ())


def test_growth_fails_with_the_amount(pinned: Callable[[Audit], Audit]) -> None:
    """One channel more is 28 parameters, and the sentence says over what."""
    result = pinned(audited(5))
    assert (result.verdict, result.exit_code) == ("over", 1)
    assert (
        "stem has 140 parameters, 28 more than the 112 pinned in pin.json; pin again if this is intended"
        in result.failures
    )


def test_savings_are_noted(pinned: Callable[[Audit], Audit]) -> None:
    """One channel less passes, and asks for a new pin."""
    result = pinned(audited(3))
    assert result.exit_code == 0
    assert "stem has shrunk by 28 parameters, 972 MACs, 112 bytes since pin.json" in result.notes[0]


def test_added_and_removed_components_are_named(pinned: Callable[[Audit], Audit], tmp_path: Path) -> None:
    """A new component fails; one that went is said."""
    added = pinned(audited(3, extra=nn.PReLU()))
    assert added.failures == (
        "extra has 1 parameters, 0 MACs, 4 bytes, and was added since pin.json; pin again if this is intended",
    )
    (tmp_path / "two.json").write_text(dump_baseline(audited(4, extra=nn.PReLU())))
    removed = ratchet(audited(), load_baseline(tmp_path / "two.json"), file="two.json")
    assert removed.exit_code == 0
    assert "extra was removed since two.json" in removed.notes


def test_another_input_leaves_macs_alone(pinned: Callable[[Audit], Audit]) -> None:
    """More pixels are more MACs, which is no growth of the model."""
    result = pinned(audited(side=16))
    assert result.exit_code == 0
    assert result.notes == ("MACs not compared: pin.json was pinned at another input shape",)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": "featherpress.pin/2"}', "\x00", '{"schema": 3}'])
def test_a_broken_pin_is_one_sentence(text: str, tmp_path: Path) -> None:
    """Whatever stands in the file, the error names it and says what to do."""
    path = tmp_path / "pin.json"
    path.write_text(text)
    with pytest.raises(BudgetFileError, match=r"pin\.json is not a baseline that --pin wrote: .*pin the model again"):
        load_baseline(path)
    with pytest.raises(BudgetFileError, match=r"no baseline .*write one with"):
        load_baseline(tmp_path / "gone.json")


def test_the_job_summary_is_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two audits of one job stand one after the other; without a job nothing is written."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    append_step_summary("nowhere")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    append_step_summary("## one")
    append_step_summary("## two")
    assert (tmp_path / "summary.md").read_text() == "## one\n## two\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary.md"))
    with pytest.raises(FileError, match="cannot write the job summary"):
        append_step_summary("lost")


def run(command: str | list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment's programs on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = ["bash", "-e", "-o", "pipefail", "-c", command] if isinstance(command, str) else command
    environment = os.environ | {"PATH": path, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")} | variables
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of 112 parameters with a budget of 112."""
    (tmp_path / "mine.py").write_text(NET.replace("WIDTH", "4"))
    (tmp_path / "budget.toml").write_text(
        'model = "mine"\ninput = [1, 3, 8, 8]\n[total]\nparams = { max = 112 }\n[[claims]]\ncomponent = "total"\n'
        'params = 100\nsource = "a paper"\n'
    )
    return tmp_path


def test_the_action_runs_its_command(folder: Path) -> None:
    """The step's own script, with its inputs in the environment: within, over and wrong, and a summary each time."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    step = action["runs"]["steps"][-1]
    assert (action["runs"]["using"], step["shell"]) == ("composite", "bash")
    names = {variable: value.split("inputs.")[1].split()[0] for variable, value in step["env"].items()}
    assert set(names.values()) == set(action["inputs"])
    given = {name: str(options.get("default", "")) for name, options in action["inputs"].items()}

    def ask(**inputs: str) -> subprocess.CompletedProcess[str]:
        chosen = given | inputs
        return run(step["run"], folder, **{variable: chosen[name] for variable, name in names.items()})

    within = ask(model="mine:net", budget="budget.toml")
    assert within.returncode == 0, within.stderr
    (folder / "mine.py").write_text(NET.replace("WIDTH", "5"))
    over = ask(model="mine:net", budget="budget.toml")
    assert over.returncode == 1
    assert "total has 140 parameters, 28 above the limit of 112" in " ".join(over.stdout.split())
    wrong = ask(model="mine:nett")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert (folder / "summary.md").read_text().count("## mine:net\n") == 2


def test_the_hook_runs_its_command(folder: Path) -> None:
    """The hook's entry with a user's args, as pre-commit calls it: pinned first, then held to the pin."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["pass_filenames"], hook["language"]) == (False, "python")
    entry = shlex.split(hook["entry"])
    assert run([*entry, "mine:net", "--input", "8", "--pin", "pin.json"], folder).returncode == 0
    assert json.loads((folder / "pin.json").read_text())["total"]["params"] == 112
    (folder / "mine.py").write_text(NET.replace("WIDTH", "6"))
    held = run([*entry, "mine:net", "--input", "8", "--baseline", "pin.json"], folder)
    assert held.returncode == 1
    assert "56 more than the 112 pinned in pin.json" in " ".join(held.stdout.split())
