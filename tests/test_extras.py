"""Without an extra, what needs it is one sentence with the command to install it; all else works."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from featherpress.extras import PACKAGES

ROOT = Path(__file__).resolve().parent.parent

Run = Callable[..., tuple[int, str, str]]


def test_extras_are_declared() -> None:
    """Every module that an extra is said to bring is in it, none is in the base, and `all` has all of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        found = (re.split(r"[><=\[]", each)[0].replace("-", "_") for each in requirements)
        return {"yaml" if name == "pyyaml" else name for name in found}  # as it is imported

    extras = project["optional-dependencies"]
    for extra, modules in PACKAGES.items():
        assert set(modules) <= names(extras[extra])
        assert not set(modules) & names(project["dependencies"])
    assert extras["all"] == [f"featherpress[{','.join(PACKAGES)}]"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("train", ["train", "demo"]),
        ("train", ["distill", "demo"]),
        ("train", ["preflight", "demo"]),
        ("train", ["demo"]),
        ("train", ["evaluate", "--data", "."]),
        ("report", ["report", "v1.json"]),
        ("report", ["demo"]),
        ("report", ["evaluate", "--data", ".", "--out", "new"]),
        ("crosscheck", ["audit", "featherface_v2", "--cross-check"]),
        ("export", ["export", "featherface_v2"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_missing_extra_is_one_sentence(
    extra: str, words: list[str], run_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names what is missing and how to install it, before any work."""
    for name in PACKAGES[extra]:
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = run_command(*words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.endswith(f"install with: pip install 'featherpress[{extra}]'\n")


BASE = """
import sys
from featherpress.extras import PACKAGES
for name in (name for names in PACKAGES.values() for name in names):
    sys.modules[name] = None
from featherpress.cli import main
for words in (["audit", "featherface_v1"], ["diff", "featherface_v2", "retinaface_mnet025"], ["detect", "grey.png"],
              ["evaluate", "--data", "wider", "--no-coco", "--json"], ["models", "show", "featherface_v2"],
              ["gate", "a.csv", "--baseline", "a.csv", "--margin", "0.5"]):
    sys.argv = ["featherpress", *words]
    try:
        main()
    except SystemExit as ending:
        if ending.code:
            sys.exit(f"{words} ended with {ending.code}")
"""


def test_the_base_counts_checks_and_detects(tmp_path: Path, wider: Path) -> None:
    """With no extra at all, models are listed, counted, fitted, judged, scored and used."""
    assert wider.parent == tmp_path
    Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    (tmp_path / "a.csv").write_text("example,score\n" + "".join(f"{row},{row % 2}\n" for row in range(40)))
    ended = subprocess.run([sys.executable, "-c", BASE], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
