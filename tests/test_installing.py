"""What is built is whole, and runs where the repository is not; every system has what the package needs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "budgets", "compress", "reports")


def run(*command: str | Path, where: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program outside the repository, as if nothing here were on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more
    return subprocess.run(
        list(map(str, command)), check=False, cwd=where, capture_output=True, text=True, env=environment
    )


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a wheel or an sdist with the setuptools that is there."""
    call = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    ended = run(sys.executable, "-c", call, out, where=source)
    assert ended.returncode == 0, ended.stderr
    return next(out.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


def copy_sources(to: Path) -> Path:
    """Copy what is built, links as links."""
    to.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "cli.py"):
        shutil.copy(ROOT / name, to / name)
    for name in (*FOLDERS, "featherpress"):
        shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return to


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist that is built from the sources."""
    work = tmp_path_factory.mktemp("build")
    (work / "out").mkdir()
    sdist = build("sdist", copy_sources(work / "source"), work / "out")
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    return build("wheel", work / sdist.name.removesuffix(".tar.gz"), work / "out")


def test_every_file_is_in_the_wheel(wheel: Path) -> None:
    """Code, budgets, recipes, weights and the page's style and script: all that lies in the folders."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "featherpress"
    files = [path for path in package.rglob("*") if path.is_file()]
    files += [package / path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    wanted = {
        path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    assert names == {name for name in wanted if (ROOT / name).is_file()}


INSTALLED = """
import sys
from pathlib import Path
import featherpress
from featherpress.cli import main
from featherpress.models import create_model

assert Path(featherpress.__file__).is_relative_to(sys.prefix), featherpress.__file__
create_model("featherface_v2", pretrained=True)
for words in (["audit", "featherface_v2"], ["audit", "featherface_v2", "--json"], ["detect", "grey.png"],
              ["report", "v2.json", "--out", "report", "--html"]):
    sys.argv = ["featherpress", *words]
    try:
        with open("v2.json" if "--json" in words else "out.txt", "w") as sys.stdout:
            main()
    except SystemExit as ending:
        if ending.code:
            sys.exit(f"{words} ended with {ending.code}")
"""


def test_the_wheel_runs_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Installed into an environment of its own, beside the torch of this one, it audits, detects and reports."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    # Packages of this environment, less what its .pth files add: an editable featherpress among them.
    (site / "reused.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    ended = run(sys.executable, *install, "--disable-pip-version-check", wheel, where=tmp_path)
    assert ended.returncode == 0, ended.stderr
    Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    assert run(python.with_name("featherpress"), "--version", where=tmp_path).stdout.startswith("featherpress ")
    ended = run(python, "-c", INSTALLED, where=tmp_path, OMP_NUM_THREADS="1")
    assert ended.returncode == 0, ended.stderr
    assert "<style>" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_copy_without_links_is_refused(tmp_path: Path) -> None:
    """Where links became text files, as in some zips and on some systems, the build says so in one sentence."""
    source = copy_sources(tmp_path / "source")
    for name in (*FOLDERS, "cli.py"):
        link = source / "featherpress" / name
        link.unlink()
        link.write_text(f"../{name}")
    call = "from setuptools import build_meta; build_meta.build_wheel('.')"
    ended = run(sys.executable, "-c", call, where=source)
    assert ended.returncode != 0
    assert ended.stderr.startswith("featherpress: this copy has no symbolic links")
    assert ended.stderr.count("\n") == 1


ELSEWHERE = """
import os, signal, sys
from pathlib import Path
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("posix_fallocate", "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid"):
    vars(os).pop(name, None)
import numpy as np
from featherpress.cli import main
from featherpress.compress.experiments import teacher_outputs
from featherpress.compress.runtime.run_folder import open_run
from featherpress.errors import UsageError

for words in (["--help"], ["models"]):
    sys.argv = ["featherpress", *words]
    try:
        main()
    except SystemExit as ending:
        assert not ending.code
with open_run(Path("run")):
    try:
        with open_run(Path("run")):
            sys.exit("two at once")
    except UsageError as error:
        assert "another process" in str(error)
with open_run(Path("run")):
    pass
kept = teacher_outputs._map(Path("outputs.cache"), np.float32, (600, 1000))
assert kept.shape == (600, 1000) and not kept.any()
assert os.stat("outputs.cache").st_size == 2_400_000
"""


def test_nothing_of_one_system_is_needed(tmp_path: Path) -> None:
    """Without what Windows and macOS lack, the command line answers, a run locks its folder, and the cache works."""
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = run(sys.executable, "-W", "ignore", "-c", ELSEWHERE, where=tmp_path, **more)
    assert ended.returncode == 0, ended.stderr
