"""What to do where a second trace finds a fault: another attribute, another tie, another choice, or a lock."""

from collections.abc import Iterator, Sequence
from math import isclose
from typing import Any

from torch import nn

from featherpress.budgets.counting.costs import ancestors
from featherpress.compress.pruning.causes import lock_causes
from featherpress.compress.pruning.followed import Followed
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.proof import compare
from featherpress.compress.pruning.surgery import Cut
from featherpress.compress.pruning.trace import VIEWING, Decisions, Key, Record, Trace

#: How many parts there are does not follow a width; in PyTorch's own layers, what surgery sets is not to be guessed.
_PARTS = frozenset({"groups", "num_heads", "num_groups"})
_KNOWN = frozenset(
    {"in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels"}
    | {"embed_dim", "kdim", "vdim", "embedding_dim", "num_embeddings"}
    | _PARTS
)

#: After so many ways to mend a module that fails nothing of the model is cut.
_PATIENCE = 3
#: Within so many operators after the last one that ran is that which failed: a reshape may copy first.
_NEAR = 3
#: In which powers of a width numbers come.
_POWERS = (1, -1, 0.5, -0.5, 0.25, -0.25)


def mend(followed: Followed, second: Trace, kept: Sequence[Ids]) -> None:
    """Try the next way at each operator with a fault; `kept` are the units of each family that the cut left."""
    first, decisions = followed.trace, followed.decisions
    if second.failure is not None:
        key, fault = second.failure
        after = _next_view(first, key)
        if after is None or decisions.tried.get(after, 0) > _PATIENCE:
            _mend_module(decisions, first, key, fault)
            return
        second.faults = {after: [fault]}
    for key, faults in second.faults.items():
        begins = key not in decisions.tried
        mended = _mend_operator(followed, second, kept, key, faults[0])
        for other in _siblings(first, key, followed.subject.model) if begins and mended else ():
            if other not in decisions.tried and other not in second.faults:
                _mend_operator(followed, second, kept, other, faults[0])


def _next_view(first: Trace, key: Key) -> Key | None:
    """Return the view that comes next in the code of a module: one that fails may never be seen."""
    keys = list(first.records)
    start = keys.index(key) + 1 if key in first.records else len(keys)
    after = [each for each in keys[start : start + _NEAR] if each[0] == key[0] and each[2] in VIEWING]
    return after[0] if after else None


def _siblings(first: Trace, key: Key, model: nn.Module) -> list[Key]:
    """List the same operator in other modules of the class, whose code is the same."""
    kinds = {path: type(module) for path, module in model.named_modules()}
    kind = kinds.get(key[0])
    return [each for each in first.records if each[1:] == key[1:] and kinds.get(each[0]) is kind and each != key]


def _mend_operator(followed: Followed, second: Trace, kept: Sequence[Ids], key: Key, fault: str) -> bool:
    """Take the next step of: a number the module keeps, a width that is computed, both, another axis, a lock.

    Return whether it is one of the first three.
    """
    first, decisions = followed.trace, followed.decisions
    widths = list(_find_widths(first, second, key))
    if widths:
        decisions.still.update(
            dict.fromkeys(widths, f"the code of {key[0] or 'the model'} computes a number from its width")
        )
        return False
    step = decisions.tried.get(key, 0)
    decisions.tried[key] = step + 1
    record = first.records.get(key)
    _drop_claims(decisions, key)
    found = dict(_find_attributes(key, record, followed.subject.model)) if record else {}
    ways = [{"number"}] if found else []
    if key[2] in VIEWING:
        ways += [{"width"}, *([{"number", "width"}] if found else [])]
    decisions.widths.discard(key)
    if step < len(ways):
        if "number" in ways[step]:
            for place, claim in found.items():
                decisions.attributes.setdefault(place, set()).add(claim)
        if "width" in ways[step]:
            decisions.widths.add(key)
        return True
    chosen = {option for (where, _), option in decisions.chosen.items() if where == key} - {None}
    if chosen:
        decisions.refused.setdefault(key, set()).update(chosen)
        decisions.tried[key] = 0
    else:
        _lock_around(followed, kept, key, fault)
    return False


def _drop_claims(decisions: Decisions, key: Key) -> None:
    """Take back that numbers of modules are the width of what an operator handles."""
    for place, claims in list(decisions.attributes.items()):
        left = {claim for claim in claims if claim[0] != key}
        if left:
            decisions.attributes[place] = left
        else:
            del decisions.attributes[place]


def _lock_around(followed: Followed, kept: Sequence[Ids], key: Key, fault: str) -> None:
    """Lock an operator; where it is at fault still, a width from elsewhere is the cause: lock that one."""

    def is_sound(cut: Cut) -> bool:
        second = compare(followed, cut)
        return second.failure is None and key not in second.faults

    if key in followed.decisions.locked:
        lock_causes(followed, kept, is_sound, _reason(key, fault))
    _lock(followed.decisions, key, fault)


def _find_widths(first: Trace, second: Trace, key: Key) -> Iterator[tuple[int, int]]:
    """Find the axes whose lengths explain how a number has changed: by their ratio, its inverse, or roots of these."""
    for before, after in second.numbers.get(key, ()):
        if before <= 0 or after <= 0:
            continue
        for tensor, axes in first.params.items():
            for axis, ids in enumerate(axes):
                left = second.params[tensor][axis]
                if ids is None or left is None or len(left) == len(ids):
                    continue
                ratio = len(left) / len(ids)
                if any(isclose(after / before, ratio**power, rel_tol=1e-9) for power in _POWERS):
                    yield tensor, axis


def _lock(decisions: Decisions, key: Key, fault: str) -> None:
    decisions.locked.setdefault(key, _reason(key, fault))


def _reason(key: Key, fault: str) -> str:
    where = f"in {key[0]}" if key[0] else "in the model"
    return f"once narrower, {key[2].partition('::')[2]} {where} does something else: {fault}"


def _mend_module(decisions: Decisions, first: Trace, key: Key, fault: str) -> None:
    """Mend a module whose own code fails: its views follow a width, else all that it handles stays."""
    inside = [each for each in first.records if each[0] == key[0]]
    views = {each for each in inside if each[2] in VIEWING}
    step = decisions.tried.get(key, 0)
    decisions.tried[key] = step + 1
    if step == 0 and views:
        decisions.widths |= views
    else:
        for each in inside if step < _PATIENCE else first.records:
            _lock(decisions, each, fault)


def _find_attributes(key: Key, record: Record, model: nn.Module) -> Iterator[tuple[tuple[str, str], Any]]:
    """Name the numbers that the running module, or the nearest around it, keeps and that are as large as an axis."""
    axes: dict[int, tuple[Key, bool, int, int]] = {}
    for given, tensors in ((False, record.taken), (True, record.given)):
        for place, labels in enumerate(tensors):
            for axis, ids in enumerate(labels):
                if ids is not None:
                    axes[len(ids)] = (key, given, place, axis)
    for path in [key[0], *reversed(ancestors(key[0]))]:
        try:
            module = model.get_submodule(path)
        except AttributeError:
            return
        known = _KNOWN if type(module).__module__.startswith("torch.") else _PARTS
        numbers = {name: value for name, value in vars(module).items() if type(value) is int and name not in known}
        found = {(path, name): axes[value] for name, value in numbers.items() if value in axes}
        if found:
            yield from found.items()
            return
