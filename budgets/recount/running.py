"""Counting all rows of a table: in several processes, and on from where it was stopped."""

import inspect
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from featherpress.budgets.recount.claims import ClaimRow
from featherpress.budgets.recount.judging import Recount, find_units, judge, judge_row
from featherpress.budgets.recount.measuring import Measured, measure
from featherpress.errors import UsageError
from featherpress.models.factories import import_factory
from featherpress.records.record import Part

#: After so many models for each, processes are replaced, so that what models leave behind does not add up.
_TASKS = 100


class _Plan(Part):
    """What is done for a row; a result is kept with it, and holds for nothing else."""

    name: str
    factory: str
    settings: dict[str, Any]
    input: str
    torch: str = str(torch.__version__)


class _Kept(Part):
    """A line of the file in which results are kept."""

    plan: _Plan
    found: Measured


def recount(
    rows: Sequence[ClaimRow],
    *,
    table: str,
    factory: str,
    settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
    ask_fvcore: bool = True,
    kept: Path | None = None,
    advance: Callable[[int], None] = lambda total: None,
) -> Recount:
    """Count every row's model, ask fvcore about those that stay open, and say what became of each figure.

    `factory` takes the name as its first argument, or has it in braces, as `torchvision.models:{name}`; arguments that
    rows say are added to `settings`. Results are added to the file `kept` as they come, and read from it the next time.
    `advance` is told after each how many there are to do.
    """
    argument = "" if "{name}" in factory else _first_argument(factory)
    plans = {row.line: _plan(row, factory, settings or {}, argument) for row in rows}
    known = {} if kept is None else _read(kept)
    found = {line: known[key] for line, plan in plans.items() if (key := plan.model_dump_json()) in known}

    def run(lines: Sequence[int], *, ask: bool) -> None:
        for line, result in _measure_all({line: plans[line] for line in lines}, jobs=jobs, ask=ask):
            found[line] = result
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(_Kept(plan=plans[line], found=result).model_dump_json() + "\n")
            advance(len(lines))

    run([line for line in plans if line not in found], ask=False)
    if ask_fvcore:
        units, others = find_units(rows, found), (rows, found)
        still = [row for row in rows if judge_row(row, found[row.line], units, others=others).verdict == "open"]
        run([row.line for row in still if not found[row.line].asked], ask=True)
    return judge(table, factory, rows, found)


def _first_argument(factory: str) -> str:
    """Return the name of the argument that takes a model's name.

    Errors: `UsageError` for a factory that takes none.
    """
    takes = list(inspect.signature(import_factory(factory)).parameters)
    if not takes:
        raise UsageError(f"{factory} takes no model's name; write {{name}} where it stands in the factory")
    return takes[0]


def _plan(row: ClaimRow, factory: str, settings: Mapping[str, Any], argument: str) -> _Plan:
    given = {**settings, **row.settings, **({argument: row.name} if argument else {})}
    return _Plan(name=row.name, factory=factory.replace("{name}", row.name), settings=given, input=row.input)


def _read(kept: Path) -> dict[str, Measured]:
    """Read what is kept by its plan; what failed or was cut off is passed over, and counted again."""
    found = {}
    text = kept.read_text(encoding="utf-8") if kept.exists() else ""
    if text and not text.endswith("\n"):
        with kept.open("a", encoding="utf-8") as file:
            file.write("\n")
    for line in text.splitlines():
        try:
            one = _Kept.model_validate_json(line)
        except ValidationError:
            continue
        if not one.found.error:
            found[one.plan.model_dump_json()] = one.found
    return found


def _measure_all(plans: Mapping[int, _Plan], *, jobs: int, ask: bool) -> Iterator[tuple[int, Measured]]:
    """Yield lines and results as they come; a process that dies costs the row that killed it, and no other."""
    todo = dict(plans)
    while todo:
        with _pool(jobs) as pool:
            some = islice(todo.items(), _TASKS * jobs)
            futures = {pool.submit(_measure, plan, ask): line for line, plan in some}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
                    del todo[futures[future]]
                continue
            except BrokenProcessPool:
                pass
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for line in list(todo)[: 2 * jobs]:  # one of the first that are left
            with _pool(1) as alone:
                try:
                    yield line, alone.submit(_measure, todo[line], ask).result()
                except BrokenProcessPool:
                    died = Measured(name=todo[line].name, error="the process that counted it was killed", asked=ask)
                    yield line, died
                del todo[line]


def _pool(jobs: int) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, spawn, _start_worker, (list(sys.path),))


def _start_worker(path: list[str]) -> None:
    sys.path[:] = path
    torch.set_num_threads(1)


def _measure(plan: _Plan, ask: bool) -> Measured:
    return measure(plan.name, plan.factory, plan.settings, plan.input, ask_fvcore=ask)
