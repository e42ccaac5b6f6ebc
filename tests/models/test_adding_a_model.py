"""The document on adding a model, run as it is written."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featherpress import cli
from featherpress.models import find_model, list_models
from featherpress.models import registry as registry_module

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "adding_a_model.md"

# What makes a training a matter of seconds; everything else of the document is run to the letter.
SHORT = (
    "data.size=64",
    "data.image_size=64",
    "data.train_images=4",
    "data.validation_images=2",
    "schedule.epochs=1",
    "schedule.batch_size=2",
)
SHORT_TEACHER = ("teacher.schedule.epochs=1", "teacher.schedule.batch_size=2")


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to install into, and a register of its own while the test lasts."""
    folder = tmp_path / "site"
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry_module, "_REGISTER", dict(registry_module._REGISTER))
    registry_module._import_entry_points.cache_clear()
    yield folder
    registry_module._import_entry_points.cache_clear()
    sys.modules.pop("tiny_face", None)


def run(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    short = {"train": SHORT, "distill": SHORT + SHORT_TEACHER}.get(arguments[0], ())
    monkeypatch.setattr("sys.argv", ["featherpress", *arguments, *(part for pair in short for part in ("--set", pair))])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert not ending.value.code, f"{arguments} ended with {ending.value.code}"


def install(site: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "install", ".", *options, "--target", str(site)]
    subprocess.run(command, check=True, capture_output=True)
    importlib.invalidate_caches()
    registry_module._import_entry_points.cache_clear()


def test_the_document_works_as_written(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are written, commands run and code executed in the document's order; the model takes part in all of it."""
    monkeypatch.setattr("featherpress.compress.tasks.detection.task.DetectionTask.min_teacher_score", 0.0)
    ran = []
    for language, text in blocks():
        name = re.match(r"# (\S+\.\w+)\n", text)
        if name:
            Path(name[1]).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, str(DOCUMENT), "exec"), {})  # noqa: S102  (our own document)
        else:
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                ran.append(arguments[0])
                assert program in ("pip", "featherpress")
                install(site) if program == "pip" else run(monkeypatch, arguments)
    assert ran == ["install", "models", "models", "audit", "audit", "audit", "train", "distill", "report"]
    assert capsys.readouterr().out.count("226,368") >= 3
    assert "tiny_face" in Path("runs/tiny/report/report.md").read_text(encoding="utf-8")


@pytest.fixture
def distribution(site: Path) -> Callable[[str], None]:
    """Install a package of one module, as pip would leave it."""

    def make(source: str) -> None:
        information = site / "broken-1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
        (information / "entry_points.txt").write_text("[featherpress.models]\nbroken = broken_models_for_test\n")
        (site / "broken_models_for_test.py").write_text(source)
        importlib.invalidate_caches()

    return make


def test_a_broken_package_leaves_the_rest_usable(
    distribution: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A package that cannot be imported is left out with a warning that names it."""
    distribution("raise RuntimeError('half installed')\n")
    names = list_models()
    assert "featherface_v2" in names
    assert find_model("featherface_v2").params == 256_812
    assert "broken_models_for_test" in caplog.text
    assert "half installed" in caplog.text
