"""A second opinion: our count beside other counters', and a sentence for every difference."""

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from featherpress.budgets.auditing.budget_file import Budget
from featherpress.budgets.auditing.components import split
from featherpress.budgets.counting.costs import ROOT, Cost, ModuleCost, total_of
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.formulas import Formula
from featherpress.budgets.counting.global_state import preserve_global_state
from featherpress.budgets.counting.tensors import list_tensors
from featherpress.budgets.counting.wrappers import unwrap
from featherpress.budgets.crosscheck.counters import COUNTERS, CounterResult, name_distribution, with_forward
from featherpress.budgets.crosscheck.explanations import (
    Component,
    CrossCheckRow,
    explain_fvcore,
    explain_thop,
    explain_torch,
)
from featherpress.records.record import Part, Record

EXPLAIN = {"fvcore": explain_fvcore, "thop": explain_thop, "torch": explain_torch}


class Disagreement(Part):
    """Why a tool's number differs, in one sentence; `explained` tells whether evidence accounts for all of it."""

    tool: str
    component: str
    sentence: str
    explained: bool


class CrossCheck(Record):
    """Our count and the others', component by component; the last row is the total. `tools` names what was found.

    `explained` tells whether another tool counted and no difference is left without a reason.
    """

    SCHEMA: ClassVar[str] = "featherpress.cross-check/1"

    tools: dict[str, str]
    explained: bool
    rows: tuple[CrossCheckRow, ...]
    disagreements: tuple[Disagreement, ...]


def cross_check(
    model: nn.Module,
    *example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    formulas: Mapping[str, Formula] | None = None,
    budget: Budget | None = None,
) -> CrossCheck:
    """Count with our counter and with fvcore, thop and FlopCounterMode, each on a deep copy of its own.

    fvcore and thop run their copy for real, on the CPU. A tool that fails is reported, not raised. `kwargs` and
    `formulas` are those of `count`; the others get no formulas.

    Errors: those of `count`, BudgetFileError if the budget's components do not fit the model.
    """
    model = unwrap(model)
    cost = count(model, *example_inputs, kwargs=kwargs, formulas=formulas)
    placed = _by_place(model, example_inputs, kwargs or {})
    peers: dict[str, CounterResult] = {}
    tools: dict[str, str] = {}
    found: list[Disagreement] = []
    for tool, ask in COUNTERS.items():
        try:
            with preserve_global_state():
                peers[tool] = ask(*placed)
            tools[tool] = name_distribution(tool)
        except Exception as error:
            tools[tool] = "failed"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            found.append(
                Disagreement(tool=tool, component="total", sentence=f"{tool} failed: {reason}", explained=True)
            )
    components = _components(model, cost, peers, budget)
    paths = {tool: [path for each in components for path in each.peer_paths[tool]] for tool in peers}
    rows = (*(component.row for component in components), _row("total", cost.modules, peers, paths))
    found += _disagreements(components, rows[-1], peers)
    explained = bool(peers) and all(each.explained for each in found)
    return CrossCheck(tools=tools, explained=explained, rows=rows, disagreements=tuple(found))


def _has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))


def _by_place(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
    """Return the model as one that takes tensors by place, as the other counters hand them over, and these."""
    if not kwargs:
        return model, args
    fixed = {name: value for name, value in kwargs.items() if not _has_tensors(value)}
    names = [name for name in kwargs if name not in fixed]

    def forward(run: Callable[..., Any], *values: Any) -> Any:
        return run(*values[: len(args)], **fixed, **dict(zip(names, values[len(args) :], strict=True)))

    return with_forward(copy.copy(model), forward), (*args, *(kwargs[name] for name in names))


def _components(
    model: nn.Module, cost: Cost, peers: Mapping[str, CounterResult], budget: Budget | None
) -> list[Component]:
    """Sort our rows and the tools' into components."""
    parts = split(cost, budget)
    modules = list(model.named_modules(remove_duplicate=False))
    tensors = list_tensors(modules)
    paths_of: defaultdict[int, tuple[str, ...]] = defaultdict(tuple)
    for path, module in modules:
        paths_of[id(module)] += (path,)
    aliases = {path: paths_of[id(module)] for path, module in modules if len(paths_of[id(module)]) > 1}
    macs = {row.path: row.macs for row in cost.modules if not row.owners}
    sizes = {names: tensors.by_id[key].numel() for key, names in tensors.names.items()}
    place = {"": ROOT} | {row.path: name for name, rows in parts.items() for row in rows if not row.owners}
    peer_paths: dict[str, defaultdict[str, list[str]]] = {name: defaultdict(list) for name in parts}
    for tool, peer in peers.items():
        for path, amount in peer.macs.items():
            name = _place(path, place)
            if amount or name in parts:
                peer_paths.setdefault(name, defaultdict(list))[tool].append(path)
    return [
        Component(
            row=_row(name, parts.get(name, []), peers, theirs),
            rows=tuple(parts.get(name, ())),
            cost=cost,
            sizes=sizes,
            peers=peers,
            peer_paths=theirs,
            paths=frozenset(row.path for row in parts.get(name, ()) if not row.owners),
            aliases=aliases,
            macs=macs,
        )
        for name, theirs in peer_paths.items()
    ]


def _place(path: str, place: Mapping[str, str]) -> str:
    """Find the component of a path, or of the nearest module above it that has one."""
    while path not in place:
        path = path.rpartition(".")[0]
    return place[path]


def _row(
    name: str, rows: Sequence[ModuleCost], peers: Mapping[str, CounterResult], paths: Mapping[str, Sequence[str]]
) -> CrossCheckRow:
    def theirs(quantity: str) -> dict[str, int | None]:
        held = {tool: getattr(peers.get(tool), quantity, None) for tool in COUNTERS}
        return {
            tool: None if amounts is None else sum(amounts[path] for path in paths.get(tool, ()))
            for tool, amounts in held.items()
        }

    ours = total_of(rows, path=name)
    return CrossCheckRow(
        name=name, params=ours.params, macs=ours.macs, peer_macs=theirs("macs"), peer_params=theirs("params")
    )


def _disagreements(
    components: list[Component], total: CrossCheckRow, peers: Mapping[str, CounterResult]
) -> list[Disagreement]:
    """Ask each tool's evidence about each component that differs."""
    found = []
    for tool in peers:
        for component in components:
            row = component.row
            if row.peer_macs[tool] == row.macs and row.peer_params[tool] in {row.params, None}:
                continue
            reason = EXPLAIN[tool](component)
            elsewhere = total.peer_macs[tool] == total.macs and row.peer_params[tool] in {row.params, None}
            if not reason and elsewhere:
                reason = "credits work to another component than the one that runs; its total agrees"
            sentence = f"{tool} {reason}" if reason else f"{tool} differs and no evidence says why: trust neither count"
            found.append(Disagreement(tool=tool, component=row.name, sentence=sentence, explained=bool(reason)))
    return found
