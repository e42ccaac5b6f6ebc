"""Why another counter's number differs, read from what it did: which rules fired, what it could not see.

Each function returns the rest of a sentence that begins with the tool's name, or "" if its evidence does not account
for the difference.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featherpress.budgets.counting.costs import Cost, ModuleCost
from featherpress.budgets.counting.operators import FREE
from featherpress.budgets.crosscheck.counters import CounterResult
from featherpress.records.record import Part

#: Operators that only look at a weight from another side.
VIEWS = frozenset(
    {"t", "transpose", "permute", "view", "select", "slice", "split", "unsqueeze", "expand", "detach", "unbind"}
)
#: Operators, as a trace names them, that do core work.
_TRACED_CORE = frozenset(
    f"aten::{name}"
    for name in (
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
        *("bilinear", "_trilinear", "addbmm", "addr", "vdot", "tensordot", "chain_matmul", "linalg_multi_dot"),
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd", "mkldnn_rnn_layer"),
        *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math", "inner", "kron"),
    )
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

    `sizes` maps all names of a tensor to its size; `paths` are the modules in it, `aliases` those of modules that have
    several.
    """

    row: CrossCheckRow
    rows: tuple[ModuleCost, ...]
    cost: Cost
    sizes: Mapping[tuple[str, ...], int]
    peers: Mapping[str, CounterResult]
    peer_paths: Mapping[str, Sequence[str]]
    paths: frozenset[str]
    aliases: frozenset[str]


def explain_thop(component: Component) -> str:
    """Account for thop's difference by the modules it has a rule for and the work and weights outside them."""
    peer = component.peers["thop"]
    leaves = [path for path in component.peer_paths["thop"] if path in peer.covered]
    reasons = [*_rule_reasons(component, leaves), *_unseen_work(component, leaves), *_unseen_weights(component)]
    return "; ".join(reasons)


def _rule_reasons(component: Component, leaves: list[str]) -> list[str]:
    """State what thop's rules add to core work, and where they give another number for it."""
    kinds = {row.path: row.kind for row in component.cost.modules}
    added, given, ours = Counter[str](), Counter[str](), Counter[str]()
    for leaf in leaves:
        counted = sum(row.macs for row in component.rows if not row.owners and _is_in(row.path, [leaf]))
        amount, kind = component.peers["thop"].macs[leaf], kinds.get(leaf, leaf)
        if not counted:
            added[kind] += amount
        elif amount != counted:
            given[kind] += amount
            ours[kind] += counted
    reasons = []
    if added.total():
        names = ", ".join(kind for kind, amount in added.items() if amount)
        reasons.append(f"adds {added.total():,} MACs for {names}, which is not core work")
    reasons += [f"gives {amount:,} MACs for {kind}, not {ours[kind]:,}" for kind, amount in given.items()]
    return reasons


def _unseen_work(component: Component, leaves: list[str]) -> list[str]:
    """State which operators run outside the modules thop has a rule for."""
    unseen: Counter[str] = Counter()
    for (path, operator), amount in component.cost.work.items():
        if path in component.paths and not _is_in(path, leaves):
            unseen[operator] += amount
    return [f"does not see {amount:,} MACs of {_short(operator)}" for operator, amount in unseen.items() if amount]


def _unseen_weights(component: Component) -> list[str]:
    """State which weights no rule of thop's reports, and which it reports twice."""
    peer = component.peers["thop"]
    unseen: Counter[str] = Counter()
    tied = {row.owners for row in component.rows if row.owners}
    for names, size in component.sizes.items():
        owners = [name.rpartition(".")[0] for name in names]
        is_ours = names in tied if len(names) > 1 else owners[0] in component.paths
        if is_ours and not any(_is_in(owner, peer.covered) for owner in owners):
            unseen[_use(component.cost, names[0], owners[0])] += size
    reasons = [f"does not see {size:,} weights {how}" for how, size in unseen.items()]
    again = (component.row.peer_params["thop"] or 0) - (component.row.params - unseen.total())
    if again > 0:
        reasons.append(f"counts {again:,} shared weights again for each owner")
    elif again < 0:
        reasons.append(f"counts {-again:,} shared weights with their owners")
    return reasons


def _use(cost: Cost, name: str, owner: str) -> str:
    """State who holds a weight and which operators, views aside, work with it."""
    holder = next((row.kind for row in cost.modules if row.path == owner and not row.owners), owner)
    readers = cost.readers.get(name)
    if readers is None:
        return f"of {holder} that no operator reads"
    working = [_short(reader) for reader in readers if _short(reader) not in FREE | VIEWS]
    return f"of {holder} used through {', '.join(working)}" if working else f"of {holder}"


def explain_fvcore(component: Component) -> str:
    """Account for what fvcore misses by what it says it does not support, or never met in its trace."""
    peer = component.peers["fvcore"]
    calls: Counter[str] = Counter()
    tops = [path for path in component.paths if not path or path.rpartition(".")[0] not in component.paths]
    for path in tops:
        calls.update({name: n for name, n in peer.unsupported.get(path, {}).items() if name in _TRACED_CORE})
    dropped = sum(row.macs for row in component.rows if row.path in peer.uncalled and row.path not in component.aliases)
    lost = component.row.macs - (component.row.peer_macs["fvcore"] or 0) - dropped
    reasons = []
    if dropped:
        reasons.append(f"does not see {dropped:,} MACs whose result the output does not use")
    if calls and lost > 0:
        names = ", ".join(f"{name} (calls: {n})" for name, n in calls.items())
        reasons.append(f"has no handle for {names} and misses {lost:,} MACs")
    elif lost and component.paths & component.aliases:
        reasons.append("credits a module with several parents to the first of them")
    elif lost:
        return ""
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
    missing = {operator: amount for operator, amount in ours.items() if amount and not theirs[operator]}
    if any(ours[operator] != theirs[operator] for operator in ours | theirs if operator not in missing):
        return ""
    return "; ".join(f"has no formula for {operator} and misses {n:,} MACs" for operator, n in missing.items())


def _is_in(path: str, modules: Iterable[str]) -> bool:
    """Return whether a path is one of the modules or below one."""
    return any(module in {path, ""} or path.startswith(module + ".") for module in modules)


def _short(operator: str) -> str:
    return operator.partition("::")[2] or operator
