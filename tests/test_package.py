"""What is installed, what imports what, and what is imported when."""

import ast
import graphlib
import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

EVERYONE_MAY = {"amounts", "errors", "escaping", "extras", "files", "lazy", "records", "stopping", "validation"}

MAY_IMPORT = {
    "models": {"models"},
    "budgets": {"budgets.*"},
    "budgets/counting": set(),
    "budgets/auditing": {"verdicts", "budgets.counting"},
    "budgets/files": {"budgets.counting"},
    "budgets/crosscheck": {"budgets.counting", "budgets.auditing"},
    "budgets/views": {"verdicts", "budgets.counting", "budgets.auditing", "budgets.crosscheck"},
    "budgets/fitting": {"budgets.counting", "budgets.views"},
    "budgets/recount": {"models", "budgets.counting", "budgets.crosscheck", "budgets.views"},
    "compress/runtime": set(),
    "compress/recipes": {"models", "compress.distillation"},
    "compress/data": {"compress.recipes", "compress.runtime"},
    "compress/distillation": {"compress.runtime"},
    "compress/evaluation": {"models", "records", "verdicts", "compress.data", "compress.recipes", "compress.runtime"},
    "compress/pruning": {"models", "budgets.counting", "budgets.auditing"},
    "compress/tasks": {
        "models", "verdicts", "compress.data", "compress.distillation", "compress.evaluation", "compress.recipes",
        "compress.runtime",
    },
    "compress/training": {
        "models", "compress.data", "compress.distillation", "compress.recipes", "compress.runtime", "compress.tasks",
    },
    "compress/experiments": {
        "models", "records", "verdicts", "compress.data", "compress.distillation", "compress.evaluation",
        "compress.pruning", "compress.recipes", "compress.runtime", "compress.tasks", "compress.training",
    },
    "compress/deployment": {"models", "verdicts", "compress.data", "compress.evaluation", "compress.runtime"},
    "reports": {"reports", "verdicts"},
    "cli.py": {"compress.*", "commands"},
    "featherpress/files.py": set(),
    "featherpress/records": set(),
    "featherpress/options.py": set(),
    "featherpress/verdicts": {"verdicts"},
    "featherpress/commands": {"models", "budgets.*", "compress.*", "reports", "commands", "options", "verdicts"},
}  # fmt: skip
"""Which rooms each room may import from; its own is free. `x.*` is any room of x."""


def sources(name: str) -> list[Path]:
    """List the files of a room; of a folder with rooms of its own, those beside them."""
    if name.endswith(".py"):
        return [ROOT / name]
    files = sorted((ROOT / name).rglob("*.py"))
    rooms = [other for other in MAY_IMPORT if other.startswith(f"{name}/")]
    return [path for path in files if not any(path.is_relative_to(ROOT / room) for room in rooms)]


def imported(path: Path) -> set[str]:
    """Return which rooms of featherpress a file imports from, wherever in the file."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {room_of(name) for name in names if name.startswith("featherpress.") and name.count(".")}
    return rooms - {"__version__"}


def room_of(name: str) -> str:
    """Return the room of a dotted name below featherpress: a folder, or a folder in one that has rooms."""
    top, *rest = name.split(".")[1:]
    return f"{top}.{rest[0]}" if rest and (ROOT / top / rest[0]).is_dir() and f"{top}/{rest[0]}" in MAY_IMPORT else top


def allowed(room: str, names: set[str]) -> bool:
    """Tell whether a room is among some names, `x.*` standing for x and all rooms of it."""
    return room in names or any(name.endswith(".*") and room.split(".", maxsplit=1)[0] == name[:-2] for name in names)


def strangers(name: str) -> dict[str, set[str]]:
    """Return what the files of a room import that it may not, by file."""
    may = MAY_IMPORT[name] | EVERYONE_MAY | {name.replace("/", ".")}
    found = {str(path.relative_to(ROOT)): imported(path) for path in sources(name)}
    bad = {file: {room for room in rooms if not allowed(room, may)} for file, rooms in found.items()}
    return {file: rooms for file, rooms in bad.items() if rooms}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_one_way(name: str) -> None:
    """Each room imports from the rooms that the table lists, and from no other."""
    assert sources(name)
    assert not strangers(name)


def test_every_folder_is_a_room() -> None:
    """No folder of `compress` or `budgets` with code in it is left out of the table."""
    folders = {path.parent for top in ("compress", "budgets") for path in (ROOT / top).glob("*/__init__.py")}
    assert {str(path.relative_to(ROOT)) for path in folders} <= set(MAY_IMPORT)


def test_the_table_has_no_circle() -> None:
    """Rooms can be put in an order in which each imports from earlier ones alone."""
    rooms = {
        name.replace("/", "."): may for name, may in MAY_IMPORT.items() if "/" in name and "featherpress" not in name
    }
    order = graphlib.TopologicalSorter(
        {room: {other for other in may if other in rooms} for room, may in rooms.items()}
    )
    assert list(order.static_order())


def test_the_import_check_can_fail(tmp_path: Path) -> None:
    """The check above sees imports inside functions, of names, and of rooms."""
    (tmp_path / "bad.py").write_text(
        "def f():\n    from featherpress import models\n    import featherpress.cli\n"
        "    from featherpress.compress.training.trainer import Trainer\n"
    )
    assert imported(tmp_path / "bad.py") == {"models", "cli", "compress.training"}
    assert not allowed("compress.training", MAY_IMPORT["compress/tasks"])
    assert allowed("compress.training", {"compress.*"})


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


def run_alone(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own with this command line, the repository first on its path."""
    command = [sys.executable, "-c", code, *words]
    where = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=False, cwd=ROOT.parent, capture_output=True, text=True, env=os.environ | where)


COMMAND = """
import sys
from featherpress.cli import main
try:
    main()
except SystemExit as ending:
    print("code", ending.code)
print("imported", sorted({name for name in sys.modules if "." not in name or name == "torch._dynamo"}))
"""
OWN = "torch.nn:Conv2d --set in_channels=3 --set out_channels=8 --set kernel_size=3 --input 1x3x32x32"
UNUSED = {"torchvision", "accelerate", "pandas", "matplotlib", "scipy", "tensorboard", "onnx", "fvcore", "thop"}


@pytest.mark.parametrize(
    "code",
    [f"import featherpress.{name}" for name in ("cli", "reports", "errors", "records", "verdicts")],
)
def test_light_imports_stay_light(code: str) -> None:
    """Neither the command line nor the reports import torch before a command needs it."""
    assert run_alone(f"{code}; import sys; sys.exit('torch' in sys.modules)").returncode == 0


def test_distilling_loads_torch_alone() -> None:
    """A loop of one's own pays for torch, and for no recipe, image library or statistics before they are asked for."""
    code = """
import sys, torch
before = set(sys.modules)
from featherpress.compress import Distiller, Features, Logits, compare_arms, register_loss
added = set(sys.modules) - before
light = {"featherpress", "annotated_types", "numpy", "tqdm"}
print({name.partition(".")[0] for name in added} - sys.stdlib_module_names - light)
print([name for name in added if "recipes" in name])
"""
    assert run_alone(code).stdout.split("\n")[:2] == ["set()", "[]"]


def test_finding_faces_loads_no_losses() -> None:
    """Losses may be other packages' code, which only recipes and distillation need."""
    code = "import sys, featherpress.compress.data, featherpress.compress.evaluation.detector.inference"
    assert run_alone(f"{code}; sys.exit(any('losses.registry' in name for name in sys.modules))").returncode == 0


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (("--help",), {"torch", "numpy", "pydantic"}),
        (("models",), {"torch", "numpy"}),
        (("models", "--json"), {"torch", "numpy"}),
        (("audit", "featherface_v2"), {"torch._dynamo", *UNUSED}),
        (("audit", *OWN.split()), {"torch._dynamo", "sympy", *UNUSED}),
    ],
)
def test_commands_import_what_they_need(words: tuple[str, ...], without: set[str]) -> None:
    """The zoo is listed without torch, and a model without deformable convolutions is counted without torchvision."""
    ended = run_alone(COMMAND, *words)
    assert "code 0" in ended.stdout, ended.stderr
    imported = ast.literal_eval(ended.stdout.splitlines()[-1].removeprefix("imported "))
    assert not without & set(imported)
