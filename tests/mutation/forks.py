"""A mutant's trial: a fork of a process that has imported torch, in which its file is imported with the fault."""

import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from .contexts import QUIET, ROOT
from .mutants import Mutant, compile_mutant

UNNOTICED = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


class Chosen:
    """Runs chosen tests in their order, and writes down the one that fails."""

    def __init__(self, tests: Sequence[str], record: Path) -> None:
        self.order, self.record = {test: place for place, test in enumerate(tests)}, record

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen ones."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda each: self.order[each.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.outcome == "failed":
            with self.record.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")


class Importer:
    """Compiles each source once for all forks, and the file of a mutant with its fault."""

    def __init__(self) -> None:
        self.known: dict[str, CodeType] = {}
        self.mutated: dict[Path, CodeType] = {}
        self._read = SourceFileLoader.get_code
        importer = self

        def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
            return importer.code(loader, name)

        SourceFileLoader.get_code = get_code  # type: ignore[method-assign]

    def code(self, loader: SourceFileLoader, name: str) -> CodeType | None:
        """Return a module's code."""
        if not name.startswith("featherpress"):
            return self._read(loader, name)
        path = Path(loader.path).resolve()
        if path in self.mutated:
            return self.mutated[path]
        if name not in self.known:
            code = self._read(loader, name)
            assert code is not None
            self.known[name] = code
        return self.known[name]


def warm_up(tests: Sequence[str]) -> Importer:
    """Import what the tests import, and forget our own modules, so that a fork imports them with its fault."""
    importer = Importer()
    pytest.main([*QUIET, "--collect-only", "-qq", *tests])
    import torch._dynamo  # noqa: F401

    for name in list(sys.modules):
        if name.split(".")[0] in ("featherpress", "tests") and not name.startswith("tests.mutation"):
            del sys.modules[name]
    return importer


def attempt(importer: Importer, mutant: Mutant | None, tests: Sequence[str], folder: Path) -> None:
    """Run tests on a mutant, or on the code as it is; the exit code is pytest's."""
    os.setsid()
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), stream)
    if mutant is not None:
        warnings.simplefilter("ignore")
        importer.mutated[ROOT / mutant.file] = compile_mutant(ROOT / mutant.file, mutant.number)
        warnings.resetwarnings()
    files = [file for file in dict.fromkeys(test.split("::")[0] for test in tests) if (ROOT / file).exists()]
    if not files:
        os._exit(pytest.ExitCode.NO_TESTS_COLLECTED)
    stop = () if mutant is None else ("-x",)
    code = pytest.main(
        [*QUIET, *stop, f"--basetemp={folder / 'tmp'}", *files], plugins=[Chosen(tests, folder / "failed")]
    )
    sys.stdout.flush()
    os._exit(int(code))


@dataclass(slots=True)
class Try:
    """A fork at work on a mutant."""

    mutant: Mutant | None
    process: BaseProcess
    folder: tempfile.TemporaryDirectory[str]
    until: float

    def ended(self) -> dict[str, Any] | None:
        """Return how the fork ended, or None while it runs; one that takes too long is killed, and so is its mutant."""
        if self.process.exitcode is None and time.monotonic() < self.until:
            return None
        late = self.process.exitcode is None
        if late:
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        failed = Path(self.folder.name) / "failed"
        by = failed.read_text(encoding="utf-8").split("\n")[0] if failed.exists() else ""
        self.folder.cleanup()
        return {"killed": self.process.exitcode not in UNNOTICED, "by": "the time" if late else by or "the import"}


def start(importer: Importer, mutant: Mutant | None, tests: Sequence[str], seconds: float) -> Try:
    """Fork."""
    folder = tempfile.TemporaryDirectory(prefix="mutant-")
    process = get_context("fork").Process(target=attempt, args=(importer, mutant, tests, Path(folder.name)))
    process.start()
    return Try(mutant, process, folder, time.monotonic() + seconds)
