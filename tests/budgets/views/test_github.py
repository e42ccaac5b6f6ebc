"""In CI: pinned baselines, the job summary, and the commands of the action and the hook as they would be run."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
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
NET = "from torch import nn\n\n\ndef net(width=WIDTH):\n    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())\n"


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
    assert (result.exit_code, result.failures, result.notes) == (0, (), ("nothing grew since pin.json",))
    assert (result.verdict, result.baseline) == ("within", "pin.json")
    assert {row.verdict for row in (*result.components, result.total)} == {"within"}


def test_growth_fails_with_the_amount(pinned: Callable[[Audit], Audit]) -> None:
    """One channel more is 28 parameters, and the sentence says over what."""
    result = pinned(audited(5))
    assert (result.verdict, result.exit_code) == ("over", 1)
    assert [row.verdict for row in (*result.components, result.total)] == ["over", "over"]
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
    assert result.notes == ("MACs not compared: pin.json was pinned at another input", "nothing grew since pin.json")


def test_a_rename_is_no_growth(pinned: Callable[[Audit], Audit]) -> None:
    """A component under another name at the same cost is the one that went; one that costs nothing is none."""
    model = nn.Sequential()
    model.add_module("trunk", nn.Conv2d(3, 4, 3))
    model.add_module("act", nn.ReLU())
    result = pinned(audit(model, name="toy", example_inputs=torch.zeros(1, 3, 8, 8)))
    assert (result.exit_code, result.notes[0]) == (0, "trunk is stem in pin.json, at the same cost")
    model.add_module("more", nn.Conv2d(4, 4, 1, bias=False))
    grown = pinned(audit(model, name="toy", example_inputs=torch.zeros(1, 3, 8, 8)))
    assert grown.failures[0].startswith("more has 16 parameters")


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        partial(torch.compile, backend="eager"),
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
    ],
    ids=["data parallel", "compiled", "both"],
)
def test_a_wrapper_is_no_growth(wrap: Callable[[nn.Module], nn.Module], pinned: Callable[[Audit], Audit]) -> None:
    """What stands around a model for speed has no component of its own."""
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 4, 3))
    result = pinned(audit(wrap(model), name="toy", example_inputs=torch.zeros(1, 3, 8, 8)))
    assert (result.exit_code, result.notes) == (0, ("nothing grew since pin.json",))


def test_distributed_training_is_no_growth(pinned: Callable[[Audit], Audit], tmp_path: Path) -> None:
    """A model in DistributedDataParallel goes by its own names."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model = nn.Sequential()
        model.add_module("stem", nn.Conv2d(3, 4, 3))
        result = audit(nn.parallel.DistributedDataParallel(model), name="x", example_inputs=torch.zeros(1, 3, 8, 8))
        assert pinned(result).exit_code == 0
    finally:
        torch.distributed.destroy_process_group()


def test_a_file_held_to_a_pin(run_command: Callable[..., Any], tmp_path: Path) -> None:
    """Weights alone have no MACs to compare, whatever was pinned; a graph is fed what the pin says, and says so."""
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "l.pth")
    linear = ("torch.nn:Linear", "--set", "in_features=4", "--set", "out_features=2", "--input", "1x4")
    for target in (linear, ("l.pth",)):
        assert run_command("audit", *target, "--pin", "pin.json")[0] == 0
        notes = json.loads(run_command("audit", "l.pth", "--baseline", "pin.json", "--json")[1])["notes"]
        assert "MACs not compared: a file of weights does not say what runs" in notes
    notes = json.loads(run_command("audit", *linear, "--baseline", "pin.json", "--json")[1])["notes"]
    assert "MACs not compared: a file of weights does not say what runs" in notes
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    save(
        helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])),
        tmp_path / "g.onnx",
    )
    assert run_command("audit", "g.onnx", "--input", "5x4", "--pin", "g.json")[0] == 0
    assert "input: 5x4 (batch 5), from g.json" in run_command("audit", "g.onnx", "--baseline", "g.json")[1]


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


def steps_of(action: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in action["runs"]["steps"]}


@pytest.fixture
def ask(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a step of the action, its inputs in the environment that the step declares, as GitHub does."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    defaults = {name: str(options.get("default", "")) for name, options in action["inputs"].items()}

    def call(name: str, variables: dict[str, str], **inputs: str) -> subprocess.CompletedProcess[str]:
        step = steps_of(action)[name]
        chosen = defaults | {key.replace("_", "-"): value for key, value in inputs.items()}
        given = {variable: chosen[value.split("inputs.")[1].split()[0]] for variable, value in step["env"].items()}
        return run(step["run"], folder, **given, **variables)

    return call


def test_every_input_of_the_action_is_used() -> None:
    """Each input reaches a step, and each step of ours runs in bash."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    text = json.dumps(action["runs"])
    assert [name for name in action["inputs"] if f"inputs.{name}" not in text] == []
    ours = [step for step in action["runs"]["steps"] if "run" in step]
    assert ([step["name"] for step in ours], {step["shell"] for step in ours}) == (
        ["Install", "Audit", "Comment"],
        {"bash"},
    )
    assert action["runs"]["using"] == "composite"


def test_the_action_audits_several_models(ask: Callable[..., Any], folder: Path) -> None:
    """Within, over and wrong; several models with options of their own, the worst code last, a summary each time."""
    within = ask("Audit", {}, model="mine:net", budget="budget.toml")
    assert within.returncode == 0, within.stderr
    (folder / "mine.py").write_text(NET.replace("WIDTH", "5"))
    over = ask("Audit", {}, model="mine:net", budget="budget.toml")
    assert over.returncode == 1
    assert "total has 140 parameters, 28 above the limit of 112" in " ".join(over.stdout.split())
    wrong = ask("Audit", {}, model="mine:nett")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert (folder / "summary.md").read_text().count("## mine:net\n") == 2
    models = "mine:nett\n\nmine:net --budget budget.toml\n  torch.nn:ReLU\n"
    several = ask("Audit", {}, model=models, input="1x3x9x9")
    assert several.returncode == 2
    assert "140 parameters" in " ".join(several.stdout.split())
    assert (folder / "summary.md").read_text().count("1x3x9x9 (batch 1), as given") == 2


GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *--paginate*) cat "$COMMENTS" ;;
  *) [ -z "$DENIED" ] || exit 1
     for word in "$@"; do case "$word" in body=@*) cp "${word#body=@}" "$POSTED" ;; esac; done
     echo 7 > "$COMMENTS" ;;
esac
"""


def test_the_action_keeps_one_comment(ask: Callable[..., Any], folder: Path) -> None:
    """Posted first, replaced next, with the difference to the base; a token that may not is a warning."""
    for command in ("git init -qb main .", "git add -A", "git commit -qm base", "git clone -q --bare . ../base.git"):
        identity = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        assert run(command.replace("../base.git", "base.git"), folder, **identity).returncode == 0
    assert run("git remote add origin base.git", folder).returncode == 0
    (folder / "mine.py").write_text(NET.replace("WIDTH", "6"))
    assert run("git commit -qam wider", folder, **identity).returncode == 0
    (folder / "bin").mkdir()
    (folder / "bin" / "gh").write_text(GH)
    (folder / "bin" / "gh").chmod(0o755)
    (folder / "comments").touch()
    github = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_BASE_REF": "main",
        "GITHUB_REF": "refs/pull/12/merge",
        "GITHUB_REPOSITORY": "who/what",
        "RUNNER_TEMP": str(folder),
        "CALLS": str(folder / "calls"),
        "COMMENTS": str(folder / "comments"),
        "POSTED": str(folder / "posted.md"),
        "DENIED": "",
    }
    models = {"model": "mine:net --input 1x3x8x8 --budget budget.toml\nmine:gone <b>"}
    for each in ({"model": "mine:net", "input": "1x3x8x8"}, models):
        ended = ask("Comment", github, **each)
        assert ended.returncode == 0, ended.stderr
    first, second = [line for line in (folder / "calls").read_text().splitlines() if "--method" in line]
    assert "--method POST repos/who/what/issues/12/comments" in first
    assert "--method PATCH repos/who/what/issues/comments/7" in second
    posted = (folder / "posted.md").read_text()
    assert posted.startswith("<!-- featherpress audit -->\n## mine:net at ")
    assert "| total | 112 | 168 | -56 | -50.0 |" in posted
    assert "## mine:gone\n\nNot compared with main: " in posted
    assert run("featherpress audit mine:net --input 1x3x6x6 --pin pin.json", folder).returncode == 0
    models = "mine:net --budget budget.toml --set=width=5\nmine:net --baseline pin.json\nmine:net --input=9"
    assert ask("Comment", github, model=models).returncode == 0
    posted = (folder / "posted.md").read_text()
    assert [size for size in ("8x8", "6x6", "9x9") if f"core MACs at input 1x3x{size};" in posted] == [
        "8x8",
        "6x6",
        "9x9",
    ]
    assert "| total | 140 | 140 | 0 | 0.0 |" in posted
    unfetched = ask("Comment", github | {"GITHUB_BASE_REF": "gone"}, model="mine:net")
    assert (unfetched.returncode, "::warning::nothing to compare with: gone" in unfetched.stdout) == (0, True)
    denied = ask("Comment", github | {"DENIED": "1"}, model="featherface_v2")
    assert (denied.returncode, "::warning::the comment could not be posted" in denied.stdout) == (0, True)


def test_the_action_installs_what_it_is_told(ask: Callable[..., Any], folder: Path) -> None:
    """Wheels of torch from the place given, the action's own folder with its extras, and the models' packages."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text('#!/usr/bin/env bash\necho "$*" >> "$CALLS"\n')
    (folder / "bin" / "python").chmod(0o755)
    github = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "GITHUB_ACTION_PATH": "/the action",
    }
    assert ask("Install", github).returncode == 0
    assert ask("Install", github, torch_index="wheels", extras="export", install="-r needs.txt .").returncode == 0
    assert (folder / "calls").read_text().splitlines() == [
        "-m pip install --quiet /the action",
        "-m pip install --quiet torch torchvision --index-url wheels",
        "-m pip install --quiet /the action[export]",
        "-m pip install --quiet -r needs.txt .",
    ]


def test_the_hooks_run_their_command(folder: Path) -> None:
    """The entry with a user's args, as pre-commit calls it: it sees the user's packages, or says what it lacks."""
    hooks = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    hook = hooks["featherpress-audit"]
    assert (hook["pass_filenames"], hook["language"], "has your packages" in hook["description"]) == (
        False,
        "system",
        True,
    )
    isolated = hooks["featherpress-audit-isolated"]
    assert (isolated["language"], isolated["entry"]) == ("python", hook["entry"])
    assert "additional_dependencies" in isolated["description"]
    entry = shlex.split(hook["entry"])
    assert run([*entry, "mine:net", "--input", "8", "--pin", "pin.json"], folder).returncode == 0
    assert json.loads((folder / "pin.json").read_text())["total"]["params"] == 112
    (folder / "mine.py").write_text(NET.replace("WIDTH", "6"))
    held = run([*entry, "mine:net", "--input", "8", "--baseline", "pin.json"], folder)
    assert held.returncode == 1
    assert "56 more than the 112 pinned in pin.json" in " ".join(held.stdout.split())
    (folder / "mine.py").write_text("import no_such_package\n")
    lacking = run([*entry, "mine:net"], folder)
    assert (lacking.returncode, f"No module named 'no_such_package' (by {sys.executable})" in lacking.stderr) == (
        2,
        True,
    )
