"""What a run of the copy found, put together with what the model holds."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from featherpress.budgets.counting.costs import SUMMED, Cost, ModuleCost, format_shapes, require_sums, sum_by_path
from featherpress.budgets.counting.dispatch import CountingMode
from featherpress.budgets.counting.formulas import FORMULAS
from featherpress.budgets.counting.forward import Subject
from featherpress.budgets.counting.inputs import Inputs, describe_inputs
from featherpress.budgets.counting.memory import Footprint
from featherpress.budgets.counting.storage_notes import note_storage
from featherpress.budgets.counting.tensors import TensorRows, Tree

_shapes = lru_cache(maxsize=4096)(format_shapes)


def summarise(subject: Subject, rows: TensorRows, mode: CountingMode) -> Cost:
    """Put tensors and work together, and check that the rows sum to the totals."""
    tree = subject.tree
    unused = set(rows.by_id) - mode.readers.keys()
    total, peak = mode.lifetimes.total(), mode.lifetimes.peak()
    params = sum(rows.elements.values())
    trainable = sum(rows.elements[key] for key, tensor in rows.by_id.items() if tensor.requires_grad)
    first_name = {key: names[0] for key, names in rows.names.items()}
    active, measure = _count_active(rows, mode), rows.measure()
    cost = Cost(
        model=type(tree[0][1]).__name__,
        inputs=subject.shapes,
        signature=describe_inputs(Inputs(*subject.inputs)),
        method=mode.method,
        params=params,
        trainable=trainable,
        frozen=params - trainable,
        unused=sum(rows.elements[key] for key in unused),
        bytes=measure(0),
        macs=sum(mode.macs.values()),
        elementwise=sum(mode.elementwise.values()),
        activations=total(0),
        peak=peak(0),
        weight_footprint=Footprint.of(measure),
        activation_footprint=Footprint.of(total),
        peak_footprint=Footprint.of(peak),
        modules=_modules(tree, rows.rows(unused), mode),
        work=dict(mode.macs),
        elementwise_work=dict(mode.elementwise),
        operator_calls=dict(mode.calls),
        readers={first_name[key]: tuple(sorted(names)) for key, names in mode.readers.items()},
        shapes={
            path: (_shapes(taken), _shapes(given))
            for path in mode.stack.calls
            for taken, given in [mode.stack.shapes.get(path, ((), ()))]
        },
        unused_names=tuple(first_name[key] for key in rows.by_id if key in unused),
        active=active,
        notes=(*_notes(mode), *_note_active(rows, mode, active), *note_storage(tree, rows)),
    )
    require_sums(cost.modules, cost, SUMMED, what=f"the rows of {cost.model}")
    return cost


def _count_active(rows: TensorRows, mode: CountingMode) -> int:
    """Take from each expert's parameters the share that is not chosen."""
    routed: Counter[tuple[int, int]] = Counter()
    for key in mode.routed & rows.by_id.keys():
        tensor = rows.by_id[key]
        fitting = [each for each in mode.choices if tensor.dim() == 3 and each[1] == len(tensor)] or mode.choices
        chosen, among = fitting[-1] if fitting else (1, 1)
        routed[chosen, among] += tensor.numel()
    idle = sum(held - held * chosen // among for (chosen, among), held in routed.items())
    return sum(rows.elements.values()) - idle


def _note_active(rows: TensorRows, mode: CountingMode, active: int) -> Iterator[str]:
    total = sum(rows.elements.values())
    if mode.routed & rows.by_id.keys() and not mode.choices:
        yield "how many experts a token goes to is not known: all count as active"
    if active != total:
        yield f"of {total:,} parameters {active:,} are active for one token: the experts that it goes to, and the rest"


def _notes(mode: CountingMode) -> Iterator[str]:
    """State what a reader of the numbers has to know."""
    for name, place in mode.value_dependent.items():
        yield f"{name} in {place} gives a result whose shape depends on values: {mode.dependence}"
    yield from mode.notes
    yield from mode.value_escapes.values()
    idle = [name for name, own in mode.table.items() if FORMULAS.get(name) is not own and name not in mode.calls]
    if idle:
        yield f"no operator runs that a formula is given for: {', '.join(idle)}"
    if mode.foreign_params:
        yield (
            f"{sum(mode.foreign_params.values()):,} parameters that the forward reads are not the model's and not "
            "counted: they are made there, or kept in a plain list or dictionary, where optimizers and weights files "
            "miss them"
        )


def _modules(tree: Tree, held: Mapping[str, dict[str, Any]], mode: CountingMode) -> tuple[ModuleCost, ...]:
    """Make a row for each module, for each tensor of several owners, and for work outside all modules."""
    macs, elementwise = sum_by_path(mode.macs), sum_by_path(mode.elementwise)
    written, calls = mode.lifetimes.written(), mode.stack.calls
    left = dict(held)
    kinds = {path: type(module).__name__ for path, module in tree} | mode.stack.kinds
    # A module with several paths has its row at the first; at another only if work was done there.
    first = {id(module): path for path, module in reversed(tree)}
    order = dict.fromkeys(first[id(module)] for _, module in tree)
    order |= dict.fromkeys([*calls, *macs, *elementwise, *written])
    rows = [
        ModuleCost(
            path=path,
            kind=kinds.get(path, ""),
            macs=macs.get(path, 0),
            elementwise=elementwise.get(path, 0),
            activations=written.get(path, 0),
            calls=calls.get(path, 0),
            **left.pop(path, {}),
        )
        for path in order
    ]
    return (*rows, *(ModuleCost(path=path, **own) for path, own in left.items()))
