"""Which tests run which lines, and how long they take."""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import coverage
import pytest

from .mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
CONTEXTS = WORK / "contexts.json"
IMPORT = ""  # the test that stands for what runs before any
QUIET = ("-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov")


@dataclass(frozen=True, slots=True)
class Contexts:
    """Which tests run which lines."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "Contexts":
        """Read what was collected, nothing where nothing was; lines that have moved since are followed."""
        if not CONTEXTS.exists():
            return cls()
        content = json.loads(CONTEXTS.read_text(encoding="utf-8"))
        moved = {file: follow(text, _source(file)) for file, text in content["sources"].items()}
        lines = {
            test: {file: [moved[file][line] for line in ran if line in moved[file]] for file, ran in files.items()}
            for test, files in content["lines"].items()
        }
        return cls(content["seconds"], lines)

    def write(self) -> None:
        """Keep what was collected, with the sources that it speaks of."""
        WORK.mkdir(parents=True, exist_ok=True)
        sources = {file: _source(file) for files in self.lines.values() for file in files}
        CONTEXTS.write_text(json.dumps(asdict(self) | {"sources": sources}), encoding="utf-8")

    def covering(self, mutant: Mutant, budget: float) -> list[str]:
        """List the tests that run a mutant, quickest first, as many as the budget of seconds allows."""
        own = set(mutant.lines)
        ran = {test: files[mutant.file] for test, files in self.lines.items() if mutant.file in files}
        at_import = own.intersection(ran.pop(IMPORT, ())) or mutant.at_import
        hit = [] if mutant.at_import else [test for test, lines in ran.items() if own.intersection(lines)]
        hit = hit or (list(ran) if at_import else [])
        chosen, spent = [], 0.0
        for test in sorted(hit, key=lambda test: self.seconds[test]):
            spent += self.seconds[test]
            if chosen and spent > budget:
                break
            chosen.append(test)
        return chosen


def follow(before: str, after: str) -> dict[int, int]:
    """Return where each line of a text went; where as many lines stand in place of others, they are taken for these."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    kept = [
        block for tag, *block in matcher.get_opcodes() if tag == "equal" or block[1] - block[0] == block[3] - block[2]
    ]
    return {old + 1: old + 1 + to - start for start, end, to, _ in kept for old in range(start, end)}


def _source(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).exists() else ""


class Recorder:
    """Notes which lines each test runs, and how long it takes."""

    def __init__(self) -> None:
        self.coverage = coverage.Coverage(data_file=None, source=[str(ROOT / top) for top in ("budgets", "compress")])
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Give a test a context of its own."""
        self.coverage.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up what set-up, call and tear-down took."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def lines(self) -> dict[str, dict[str, list[int]]]:
        """Return the lines that each test ran, by test, then by file."""
        data = self.coverage.get_data()
        found: dict[str, dict[str, list[int]]] = {test: {} for test in self.seconds if test not in self.failed}
        found[IMPORT] = {}
        for file in data.measured_files():
            for line, tests in data.contexts_by_lineno(file).items():
                for test in found.keys() & set(tests):
                    found[test].setdefault(str(Path(file).relative_to(ROOT)), []).append(line)
        return found


def collect(tests: Sequence[str]) -> None:
    """Run tests once and keep which lines each runs, beside what is known of others; those that fail kill nothing."""
    recorder = Recorder()
    recorder.coverage.start()
    pytest.main([*QUIET, *tests], plugins=[recorder])
    recorder.coverage.stop()
    known, lines = Contexts.read(), recorder.lines()
    lines[IMPORT] = known.lines.get(IMPORT, {}) | lines[IMPORT]
    Contexts(known.seconds | recorder.seconds, known.lines | lines).write()
