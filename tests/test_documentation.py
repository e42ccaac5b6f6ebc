"""The documents: their links lead somewhere, and the page of public names is what the docstrings say."""

import importlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from featherpress.cli import app

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file of the repository."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link, _ in _LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_commands_of_the_readme_parse() -> None:
    """Every command that the first page shows exists, and takes these arguments and options."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("featherpress ")]
    assert len(lines) > 20
    group = get_command(app)
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]


def test_a_model_of_ones_own_is_audited_as_shown(run_command: Callable[..., Any], tmp_path: Path) -> None:
    """The first page's `my_nets.py` and its commands on it, those aside that need more than is there."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    [module] = [block for block in blocks if "def encoder" in block]
    lines = [
        shlex.split(line, comments=True)[1:] for line in re.findall(r"^featherpress.* my_nets:encoder.*", readme, re.M)
    ]
    shown = [words for words in lines if words[0] in {"audit", "fit", "prune"} and "--cross-check" not in words]
    assert len(shown) == 9
    (tmp_path / "my_nets.py").write_text(module, encoding="utf-8")
    for words in shown:
        assert run_command(*words).code == 0, words


def test_a_tag_publishes_what_was_checked() -> None:
    """Without a tag of a version nothing is published; with one, after the wheel has run on all systems."""
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "wheel.yml").read_text(encoding="utf-8"))
    publish = workflow["jobs"]["publish"]
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert publish["needs"] == ["build", "run"]
    assert publish["permissions"] == {"id-token": "write"}


def test_links_of_the_published_readme_are_whole(tmp_path: Path) -> None:
    """Where the package is published the repository's files are not: its first page leads to them by address."""
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "wheel.yml").read_text(encoding="utf-8"))
    [step] = [each for each in workflow["jobs"]["build"]["steps"] if "README" in each.get("name", "")]
    before = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(before, encoding="utf-8")
    told = {**os.environ, "GITHUB_REPOSITORY": "someone/featherpress", "GITHUB_SHA": "1a2b3c"}
    subprocess.run(["/bin/bash", "-euc", step["run"]], check=True, cwd=tmp_path, env=told)
    after = (tmp_path / "README.md").read_text(encoding="utf-8")
    files = "https://github.com/someone/featherpress/"
    shown = re.findall(r'src="([^"]+)"', before)
    assert re.findall(r'src="([^"]+)"', after) == [f"{files}raw/1a2b3c/{each}" for each in shown] != []
    links = [link for link, _ in _LINK.findall(before)]
    assert [link for link, _ in _LINK.findall(after)] == [f"{files}blob/1a2b3c/{link}" for link in links]
    assert after.replace(f"{files}blob/1a2b3c/", "").replace(f"{files}raw/1a2b3c/", "") == before


def test_versions_are_said_as_they_are() -> None:
    """The versions on the first page are those of the lock file, and the oldest that are allowed."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    locked = dict(
        re.findall(r"^(torch|torchvision)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    )
    assert f"PyTorch {locked['torch']} with torchvision {locked['torchvision']}" in readme
    floor = re.findall(r'"(torch|torchvision)>=([\d.]+)"', (REPOSITORY / "pyproject.toml").read_text())
    assert (
        "FLOOR := " + " ".join(f"{name}=={least}.0" for name, least in floor) in (REPOSITORY / "Makefile").read_text()
    )
    assert f"{floor[0][1]}.0 with {floor[1][1]}.0 (`make test-floor`)" in readme


def test_public_names_are_in_a_table() -> None:
    """What a package exports, or what its page names, is there and stands in one of its page's tables."""
    named: dict[str, set[str]] = {}
    for page in sorted((REPOSITORY / "docs" / "api").glob("*.md")):
        for block in re.findall(r"currentmodule:: (\S+)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            named.setdefault(block[0], set()).update(re.findall(r"^   (\w+)$", block[1], re.MULTILINE))
    assert {f"featherpress.{name}" for name in ("models", "budgets", "compress", "verdicts", "reports")} <= set(named)
    for module, names in named.items():
        found = importlib.import_module(module)
        assert not {name for name in names if not hasattr(found, name)}, module
        assert not set(getattr(found, "__all__", ())) - names, module


def test_every_document_is_linked() -> None:
    """A reader who starts at the README reaches every page."""
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        links = [
            page.parent / link for link, _ in _LINK.findall(page.read_text(encoding="utf-8")) if link.endswith(".md")
        ]
        waiting += [link for link in links if link.exists()]
    assert not {page.resolve() for page in PAGES} - reached


def test_pages_on_pruning_are_what_the_rows_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number of the table, or of the summary, is typed by hand: `benchmarks/pruning.py --pages` writes the same."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    for page, text in importlib.import_module("pruning").make_pages().items():
        assert page.read_text(encoding="utf-8") == text
