"""Why another counter's number differs, read from what it did: which rules fired, what it could not see.

Each function returns the rest of a sentence that begins with the tool's name, or "" if its evidence does not account
for the difference.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from torch.utils.flop_counter import flop_registry

from featherpress.budgets.counting.costs import Cost, ModuleCost, ancestors
from featherpress.budgets.counting.operators import FREE
from featherpress.budgets.crosscheck.counters import CounterResult, is_core
from featherpress.records.record import Part

#: Operators that only look at a weight from another side.
VIEWS = frozenset(
    {"t", "transpose", "permute", "view", "select", "slice", "split", "unsqueeze", "expand", "detach", "unbind"}
)


class CrossCheckRow(Part):
    """One component by each counter; None where a tool failed, or does not count parameters."""

    name: str
    params: int
    macs: int
    peer_macs: dict[str, int | None]
    peer_params: dict[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component as we counted it and as the tools did.

    `sizes` maps all names of a tensor to its size; `paths` are the modules in it, `aliases` all paths of a module by
    each of them, where it has several; `macs` are ours of every module without its children.
    """

    row: CrossCheckRow
    rows: tuple[ModuleCost, ...]
    cost: Cost
    sizes: Mapping[tuple[str, ...], int]
    peers: Mapping[str, CounterResult]
    peer_paths: Mapping[str, Sequence[str]]
    paths: frozenset[str]
    aliases: Mapping[str, tuple[str, ...]]
    macs: Mapping[str, int]

    def macs_at(self, path: str, tool: str = "") -> int:
        """MACs by us, or by another tool, of what thop counts in one: a leaf's children are in it."""
        macs = self.macs if not tool else self.peers[tool].macs if tool in self.peers else {}
        if path not in self.peers["thop"].leaves:
            return macs.get(path, 0)
        return sum(amount for each, amount in macs.items() if _is_in(each, {path}))

    def unused(self, path: str) -> int:
        """MACs of a module whose results no output is made of, as FlopCounterMode saw it."""
        return self.peers["torch"].unused.get(path, 0) if "torch" in self.peers else 0


def explain_thop(component: Component) -> str:
    """Account for thop's difference by what it reports for each module; what the others count there decides."""
    work, weights = _reported_work(component), _reported_weights(component)
    if work is None or weights is None:
        return ""
    unseen = _unseen_work(component.cost, component.peers["thop"])
    total = sum(unseen.values())
    placeless = total and component.peers["thop"].macs.get("", 0) == total
    here = Counter[str]()
    for (path, operator), amount in unseen.items():
        here[operator] += amount if path in component.paths else 0
    if placeless:
        work += [f"counts {n:,} MACs of {_short(name)} at no module" for name, n in here.items() if n]
        work += [f"counts {total - component.macs.get('', 0):,} MACs of others' here"] if "" in component.paths else []
    else:
        work += [f"does not see {n:,} MACs of {_short(name)}" for name, n in here.items() if n]
    return "; ".join([*work, *weights])


def _reported_work(component: Component) -> list[str] | None:
    """State what thop adds, and where it gives another number; None where no other tool counts as we do."""
    kinds = {row.path: row.kind for row in component.cost.modules}
    added, again, given, ours = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    peer = component.peers["thop"]
    for path in component.peer_paths["thop"]:
        amount, kind, counted = peer.macs[path], kinds.get(path, path), component.macs_at(path)
        if amount in {0, counted} or (not path and path not in peer.leaves):
            continue  # what it counts for the root is counted outside of all modules
        if not counted and not any(component.macs_at(path, tool) for tool in ("fvcore", "torch")):
            added[kind] += amount
        elif amount == sum(component.macs_at(alias) for alias in component.aliases.get(path, ())):
            again[kind] += amount - counted
        elif any(component.macs_at(path, tool) == counted for tool in ("fvcore", "torch")):
            given[kind] += amount
            ours[kind] += counted
        else:
            return None
    reasons = []
    if added.total() < 0:
        reasons.append(f"counts {-added.total():,} MACs of modules with several places once less")
    elif added:
        reasons.append(f"adds {added.total():,} MACs for {', '.join(added)}, which is not core work")
    reasons += [f"counts all calls of {kind} at each of its places, {extra:+,} MACs" for kind, extra in again.items()]
    return reasons + [f"gives {amount:,} MACs for {kind}, not {ours[kind]:,}" for kind, amount in given.items()]


def _unseen_work(cost: Cost, peer: CounterResult) -> dict[tuple[str, str], int]:
    """Return our MACs by module and operator wherever a tool counts nothing; the root is not a place for it."""
    seen = {path for path, amount in peer.macs.items() if amount and (path or path in peer.leaves)}
    leaves = seen & peer.leaves
    return {
        (path, operator): amount
        for (path, operator), amount in cost.work.items()
        if amount and path not in seen and not _is_in(path, leaves)
    }


def _reported_weights(component: Component) -> list[str] | None:
    """State which weights thop reports nowhere, and which more than once; None where its numbers say neither."""
    reported = component.peers["thop"].params or {}
    above = {names: {path for name in names for path in ancestors(name)} & reported.keys() for names in component.sizes}
    inclusive = Counter[str]()
    for names, size in component.sizes.items():
        inclusive.update(dict.fromkeys(above[names], size))
    own = Counter(inclusive)
    for path in filter(None, reported):
        own[path.rpartition(".")[0]] -= inclusive[path]
    seen = {path for path, amount in reported.items() if amount and amount == own[path]}
    here = seen & set(component.peer_paths["thop"])
    tied = {row.owners for row in component.rows if row.owners}
    unseen, moved, again = Counter[str](), 0, 0
    for names, size in component.sizes.items():
        owner = names[0].rpartition(".")[0]
        ours = names in tied if len(names) > 1 else owner in component.paths
        times = sum((path in here) - (bool(path) and path.rpartition(".")[0] in here) for path in above[names])
        if ours and not times and above[names] & seen and len(names) > 1:
            moved += size
        elif ours and not times:
            unseen[_use(component.cost, names[0], owner)] += size
        else:
            again += (times - ours) * size
    if component.row.params - unseen.total() - moved + again != component.row.peer_params["thop"]:
        return None
    reasons = [f"does not see {size:,} weights {how}" for how, size in unseen.items()]
    reasons += [f"counts {again:,} shared weights again for each owner"] if again else []
    return reasons + ([f"counts {moved:,} shared weights with their owners"] if moved else [])


def _use(cost: Cost, name: str, owner: str) -> str:
    """State who holds a weight and which operators, views aside, work with it."""
    holder = next((row.kind for row in cost.modules if row.path == owner and not row.owners), owner)
    readers = cost.readers.get(name)
    if readers is None:
        return f"of {holder} that no operator reads"
    working = [_short(reader) for reader in readers if _short(reader) not in FREE | VIEWS]
    return f"of {holder} used through {', '.join(working)}" if working else f"of {holder}"


def explain_fvcore(component: Component) -> str:
    """Account for what fvcore misses, module by module: what no output is made of, or what it says it does not support.

    A module of several paths is one here, by the path that fvcore gives it.
    """
    peer, unused, moved = component.peers["fvcore"], 0, False
    calls, lost = Counter[str](), 0
    for path in component.paths | set(component.peer_paths["fvcore"]):
        places = component.aliases.get(path, (path,))
        rest = sum(component.macs.get(place, 0) - peer.macs.get(place, 0) for place in places)
        dropped = sum(component.unused(place) for place in places)
        moved = moved or (len(places) > 1 and rest in {0, dropped})
        if rest in {0, dropped}:
            unused += rest if component.macs.get(path, 0) - peer.macs.get(path, 0) == rest else 0
            continue
        missing = {name: n for name, n in peer.unsupported.get(path, {}).items() if n > 0 and is_core(name)}
        if not missing or len(places) > 1 or rest < dropped:
            return ""
        unused, lost = unused + dropped, lost + rest - dropped
        calls.update(missing)
    reasons = []
    if unused:
        reasons.append(f"does not see {unused:,} MACs whose result the output does not use")
    if lost:
        names = ", ".join(f"{name} (calls: {n})" for name, n in calls.items())
        reasons.append(f"has no handle for {names} and misses {lost:,} MACs")
    if moved and not reasons:
        reasons.append("credits a module with several parents to one of them")
    return "; ".join(reasons)


def explain_torch(component: Component) -> str:
    """Account for what FlopCounterMode misses by the operators it has no formula for."""
    ours, theirs = Counter[str](), Counter[str]()
    for (path, operator), amount in component.cost.work.items():
        if path in component.paths:
            ours[operator] += amount
    for (path, operator), amount in component.peers["torch"].work.items():
        if path in component.peer_paths["torch"]:
            theirs[operator] += amount
    missing = {name: amount for name, amount in ours.items() if amount and not theirs[name] and not _has_formula(name)}
    if any(ours[operator] != theirs[operator] for operator in ours | theirs if operator not in missing):
        return ""
    return "; ".join(f"has no formula for {operator} and misses {n:,} MACs" for operator, n in missing.items())


def _has_formula(operator: str) -> bool:
    return operator in {str(packet).replace(".", "::") for packet in flop_registry}


def _is_in(path: str, modules: AbstractSet[str]) -> bool:
    """Return whether a path is one of the modules or below one."""
    return path in modules or not modules.isdisjoint(ancestors(path))


def _short(operator: str) -> str:
    return operator.partition("::")[2] or operator
