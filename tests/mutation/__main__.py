"""Put faults into the code, one at a time, and see whether the tests that run them notice: `make mutants`.

    python -m tests.mutation                                   # which tests run which lines, then 200 mutants
    python -m tests.mutation --collect [--tests FILE ...]      # only the first, anew, for all tests or for some
    python -m tests.mutation --folders compress/distillation --count 100 --seed 1 --jobs 2

Everything is kept in `build/mutants/`: an interrupted run goes on, and a mutant is tried again once its file or a test
that runs it has changed. Each is tried in a fork of a process that has imported torch, by the tests that run its
lines, quickest first, until one fails. What a test starts as another process runs without the fault.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from .contexts import CONTEXTS, ROOT, WORK, Contexts, collect
from .forks import Importer, Try, start, warm_up
from .mutants import Mutant, draw, list_mutants, show

FOLDERS = ("compress/training", "compress/experiments", "compress/evaluation", "budgets/counting")
TESTS = (
    "tests/budgets/counting",
    *(f"tests/compress/{room}" for room in ("distillation", "evaluation", "experiments", "tasks", "training")),
)


def run(
    mutants: Iterable[Mutant], importer: Importer, contexts: Contexts, options: argparse.Namespace
) -> Iterator[tuple[Mutant, dict[str, Any]]]:
    """Try mutants, some at a time, and yield each with what became of it."""
    waiting, running = list(mutants)[::-1], list[Try]()
    while waiting or running:
        while waiting and len(running) < options.jobs:
            mutant = waiting.pop()
            tests = contexts.covering(mutant, options.budget)
            if not tests:
                yield mutant, {"killed": False, "by": "", "tests": 0}
                continue
            seconds = 60 + 10 * sum(contexts.seconds[test] for test in tests)
            running.append(start(importer, mutant, tests, seconds))
        wait([each.process.sentinel for each in running], timeout=1)
        for each in list(running):
            result = each.ended()
            if result is not None:
                running.remove(each)
                assert each.mutant is not None
                yield each.mutant, result | {"tests": len(contexts.covering(each.mutant, options.budget))}


def confirm(results: dict[str, dict[str, Any]], importer: Importer, contexts: Contexts) -> set[str]:
    """Return which of the tests that killed a mutant fail without one too."""
    tests = sorted({result["by"] for result in results.values() if "::" in result["by"]})
    if not tests:
        return set()
    alone = start(importer, None, tests, 600 + 10 * sum(contexts.seconds.get(test, 0) for test in tests))
    alone.process.join()
    failed = Path(alone.folder.name) / "failed"
    return set(failed.read_text(encoding="utf-8").split("\n")) - {""} if failed.exists() else set()


def stamp(mutant: Mutant, contexts: Contexts, options: argparse.Namespace) -> str:
    """Hash what a result depends on: the mutated file and the files of the tests that run it."""
    files = {mutant.file, *(test.split("::")[0] for test in contexts.covering(mutant, options.budget))}
    texts = "".join((ROOT / file).read_text(encoding="utf-8") for file in sorted(files) if (ROOT / file).exists())
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def report(drawn: Sequence[Mutant], results: dict[str, dict[str, Any]], total: int, seed: int) -> str:
    """Say what share was killed, with its interval, and list every survivor with its change."""
    done = [mutant for mutant in drawn if mutant.name in results]
    survivors = [mutant for mutant in done if not results[mutant.name]["killed"]]
    killed = len(done) - len(survivors)
    interval = binomtest(killed, len(done)).proportion_ci(method="wilson")
    lines = [
        f"{killed} of {len(done)} mutants killed, {killed / len(done):.1%} (95% Wilson interval {interval.low:.1%} to "
        f"{interval.high:.1%}); drawn from {total} with seed {seed}",
    ]
    for mutant in sorted(survivors, key=lambda each: (each.file, each.lines.start)):
        tests = results[mutant.name]["tests"]
        lines.append(f"\n{mutant.file}:{mutant.lines.start} {mutant.function} ({mutant.kind}, {tests} tests)")
        for mark, text in zip("-+", show(ROOT, mutant), strict=True):
            lines += [f"  {mark} {line}" for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folders", nargs="+", default=FOLDERS, help="where faults are put in")
    parser.add_argument("--count", type=int, default=200, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn with")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many are tried at once")
    parser.add_argument("--budget", type=float, default=120, help="seconds of tests a mutant has to survive")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="what is run, as pytest takes it")
    parser.add_argument("--collect", action="store_true", help="find out anew which tests run which lines, and end")
    options = parser.parse_args()
    os.chdir(ROOT)
    if options.collect or not CONTEXTS.exists():
        collect(options.tests)
        if options.collect:
            return
    contexts = Contexts.read()
    files = sorted(str(path.relative_to(ROOT)) for top in options.folders for path in (ROOT / top).rglob("*.py"))
    mutants = [mutant for file in files for mutant in list_mutants(ROOT, file)]
    drawn = draw(mutants, options.count, options.seed)
    kept = WORK / "results.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    stamps = {mutant.name: stamp(mutant, contexts, options) for mutant in drawn}
    todo = [mutant for mutant in drawn if results.get(mutant.name, {}).get("stamp") != stamps[mutant.name]]
    importer = warm_up(options.tests)
    for number, (mutant, result) in enumerate(run(todo, importer, contexts, options), start=1):
        results[mutant.name] = result | {"stamp": stamps[mutant.name]}
        kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
        ending = f"killed by {result['by']}" if result["killed"] else "SURVIVED"
        print(f"{number}/{len(todo)} {mutant.name}: {ending}", flush=True)
    chosen = {mutant.name: results[mutant.name] for mutant in drawn}
    for test in sorted(confirm(chosen, importer, contexts)):
        print(f"fails without a mutant, too, so that what it killed is not killed: {test}")
        for name, result in chosen.items():
            if result["by"] == test:
                chosen[name] = results[name] = result | {"killed": False}
    kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = report(drawn, chosen, len(mutants), options.seed)
    (WORK / f"report-{options.seed}.txt").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
