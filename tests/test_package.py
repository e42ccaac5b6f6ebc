"""What is installed, what imports what, and what is imported when."""

import ast
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "models": {"models"},
    "budgets": {"budgets"},
    "compress": {"compress", "models"},
    "reports": {"reports"},
    "cli.py": {"compress", "commands"},
    "featherpress/options.py": set(),
    "featherpress/commands": {"models", "budgets", "compress", "reports", "commands", "options"},
}
EVERYONE_MAY = {"errors"}


def sources(name: str) -> list[Path]:
    return [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return which parts of featherpress a file imports, wherever in the file."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("featherpress.") and name.count(".")}
    return parts - {"__version__"}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_one_way(name: str) -> None:
    """models <- compress <- cli, budgets <- cli, reports <- cli, and nothing else."""
    assert sources(name)
    for path in sources(name):
        assert imported(path) <= MAY_IMPORT[name] | EVERYONE_MAY, path


def test_the_import_check_can_fail(tmp_path: Path) -> None:
    """The check above sees imports inside functions and of names."""
    (tmp_path / "bad.py").write_text("def f():\n    from featherpress import models\n    import featherpress.cli\n")
    assert imported(tmp_path / "bad.py") == {"models", "cli"}


def test_only_featherpress_is_installed() -> None:
    """The distribution puts nothing but `featherpress` and its own metadata into site-packages."""
    site = sysconfig.get_path("purelib")  # the working folder may be on the path too, with what setuptools left in it
    installed = [path for each in distributions(name="featherpress", path=[site]) for path in each.files or ()]
    assert installed
    tops = {path.parts[0] for path in installed if path.parts[0] not in ("..", "__pycache__")}
    assert {top for top in tops if not top.startswith(("featherpress", "__editable__"))} == set()


def test_links_stand_for_the_folders() -> None:
    """The namespace's links are relative, and point at the folders beside it."""
    for name in ("models", "budgets", "compress", "reports", "cli.py"):
        link = ROOT / "featherpress" / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{name}"


def test_data_files_are_packaged() -> None:
    """Every TOML file of the package is named in the package data, so that a wheel has it too."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for folder in (ROOT / "budgets", ROOT / "compress"):
        for path in folder.rglob("*.toml"):
            package = "featherpress." + path.relative_to(ROOT).parts[0]
            inner = str(Path(*path.relative_to(ROOT).parts[1:]))
            assert any(Path(inner).match(pattern) for pattern in declared.get(package, ())), path


@pytest.mark.parametrize(
    "code", ["import featherpress.cli", "import featherpress.reports", "import featherpress.errors"]
)
def test_light_imports_stay_light(code: str) -> None:
    """Neither the command line nor the reports import torch before a command needs it."""
    check = f"{code}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, cwd=ROOT.parent).returncode == 0
