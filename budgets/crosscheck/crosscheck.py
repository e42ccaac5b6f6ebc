"""A second opinion: our count beside other counters', and a sentence for every difference."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from featherpress.budgets.auditing.budget_file import Budget
from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import ROOT, Cost
from featherpress.budgets.counting.count import count, preserve_global_state
from featherpress.budgets.counting.tensors import list_tensors
from featherpress.budgets.crosscheck.counters import COUNTERS, CounterResult
from featherpress.budgets.crosscheck.explanations import Component, explain_fvcore, explain_thop, explain_torch
from featherpress.records.record import Part, Record

EXPLAIN = {"fvcore": explain_fvcore, "thop": explain_thop, "torch": explain_torch}


class CrossCheckRow(Part):
    """One component by each counter; None where a tool failed, or does not count parameters."""

    name: str
    params: int
    macs: int
    peer_macs: dict[str, int | None]
    peer_params: dict[str, int | None]


class Disagreement(Part):
    """Why a tool's number differs, in one sentence; `explained` tells whether evidence accounts for all of it."""

    tool: str
    component: str
    sentence: str
    explained: bool


class CrossCheck(Record):
    """Our count and the others', component by component; the last row is the total. `tools` names what was found.

    `explained` tells whether no difference is left without a reason.
    """

    SCHEMA: ClassVar[str] = "featherpress.cross-check/1"

    tools: dict[str, str]
    explained: bool
    rows: tuple[CrossCheckRow, ...]
    disagreements: tuple[Disagreement, ...]


def cross_check(model: nn.Module, *example_inputs: Any, budget: Budget | None = None) -> CrossCheck:
    """Count with our counter and with fvcore, thop and FlopCounterMode, each on a deep copy of its own.

    fvcore and thop run their copy for real, on the CPU. A tool that fails is reported, not raised.

    Errors: those of `count`, BudgetFileError if the budget's components do not fit the model.
    """
    cost = count(model, *example_inputs)
    peers: dict[str, CounterResult] = {}
    tools: dict[str, str] = {}
    found: list[Disagreement] = []
    for tool, ask in COUNTERS.items():
        try:
            with preserve_global_state():
                peers[tool] = ask(model, example_inputs)
            tools[tool] = peers[tool].distribution
        except Exception as error:
            tools[tool] = "failed"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            found.append(
                Disagreement(tool=tool, component="total", sentence=f"{tool} failed: {reason}", explained=True)
            )
    components = _components(model, cost, peers, budget)
    rows = [_row(component) for component in components]
    rows.append(_total(rows, cost, peers))
    found += _disagreements(components, rows, peers)
    explained = all(each.explained for each in found)
    return CrossCheck(tools=tools, explained=explained, rows=tuple(rows), disagreements=tuple(found))


def _components(
    model: nn.Module, cost: Cost, peers: Mapping[str, CounterResult], budget: Budget | None
) -> list[Component]:
    """Sort our rows and the tools' into components."""
    parts = split(cost, budget)
    tensors = list_tensors(model)
    sizes = {names: tensors.by_id[key].numel() for key, names in tensors.names.items()}
    aliases: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        aliases.setdefault(id(module), []).append(path)
    place = {row.path: name for name, rows in parts.items() for row in rows if not row.owners}
    place.setdefault("", ROOT)
    peer_paths: dict[str, dict[str, list[str]]] = {name: {} for name in parts}
    for tool, peer in peers.items():
        for path, amount in peer.macs.items():
            if not amount and _place(path, place) not in parts:
                continue
            peer_paths.setdefault(_place(path, place), {}).setdefault(tool, []).append(path)
    return [
        Component(
            name=name,
            rows=tuple(parts.get(name, ())),
            cost=cost,
            sizes=sizes,
            peers=peers,
            peer_paths=peer_paths[name],
            aliases=frozenset(path for paths in aliases.values() if len(paths) > 1 for path in paths),
        )
        for name in peer_paths
    ]


def _place(path: str, place: Mapping[str, str]) -> str:
    """Find the component of a path, or of the nearest module above it that has one."""
    while path and path not in place:
        path = path.rpartition(".")[0]
    return place[path]


def _row(component: Component) -> CrossCheckRow:
    tools = component.peers
    return CrossCheckRow(
        name=component.name,
        params=component.params,
        macs=component.macs,
        peer_macs={tool: component.peer_macs(tool) if tool in tools else None for tool in COUNTERS},
        peer_params={tool: component.peer_params(tool) if tool in tools else None for tool in COUNTERS},
    )


def _total(rows: list[CrossCheckRow], cost: Cost, peers: Mapping[str, CounterResult]) -> CrossCheckRow:
    def total(part: str, tool: str) -> int | None:
        amounts = [getattr(row, part)[tool] for row in rows]
        return None if None in amounts else sum(amounts)

    return CrossCheckRow(
        name="total",
        params=cost.params,
        macs=cost.macs,
        peer_macs={tool: total("peer_macs", tool) for tool in COUNTERS},
        peer_params={tool: total("peer_params", tool) for tool in COUNTERS},
    )


def _disagreements(
    components: list[Component], rows: list[CrossCheckRow], peers: Mapping[str, CounterResult]
) -> list[Disagreement]:
    """Ask each tool's evidence about each component that differs."""
    found = []
    total = rows[-1]
    for tool in peers:
        for component, row in zip(components, rows, strict=False):
            if row.peer_macs[tool] == row.macs and row.peer_params[tool] in {row.params, None}:
                continue
            reason = EXPLAIN[tool](component)
            if not reason and total.peer_macs[tool] == total.macs:
                reason = "credits work to another component than the one that runs; its total agrees"
            sentence = (
                f"{tool} {reason}" if reason else f"{tool} differs and no evidence says why: do not trust this count"
            )
            found.append(Disagreement(tool=tool, component=component.name, sentence=sentence, explained=bool(reason)))
    return found
