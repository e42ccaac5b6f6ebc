"""A student within an absolute budget, out of any model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor, nn

from featherpress.budgets.counting.costs import Cost
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.inputs import Inputs
from featherpress.budgets.counting.wrappers import unwrap
from featherpress.compress.pruning.choice import Chooser, Importance, gather_gradients, weigh_units
from featherpress.compress.pruning.followed import Followed, locked_axes
from featherpress.compress.pruning.following import follow
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.limits import make_limits, measured
from featherpress.compress.pruning.mending import mend
from featherpress.compress.pruning.oracle import TOLERANCE, measure_error
from featherpress.compress.pruning.proof import compare
from featherpress.compress.pruning.result import Pruned
from featherpress.compress.pruning.running import guarded
from featherpress.compress.pruning.trace import Decisions, Subject
from featherpress.compress.pruning.units import Limit
from featherpress.errors import PruneError, UsageError
from featherpress.models.pruned import remember_plan
from featherpress.records.pruning import PrunedUnit

if TYPE_CHECKING:
    from featherpress.budgets.auditing.budget_file import Budget

#: How many axes that stay are named where a limit cannot be reached.
_NAMED = 3
#: How often a cut may turn out to do something else than the trial cuts.
_ROUNDS = 5


def prune(
    model: nn.Module,
    example: Tensor | Inputs | Sequence[Any],
    *,
    params: int | None = None,
    macs: int | None = None,
    keep: Sequence[str] = (),
    multiple_of: int = 1,
    budget: "Budget | str | Path | None" = None,
    importance: Importance = "l2",
    floor: float = 0.1,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Pruned:
    """Cut whole channels until a model is within every limit, and no further.

    `example` is what its forward takes: a tensor, a sequence of arguments, or `Inputs`. `params` and `macs` are upper
    limits, as are those of a `budget` file, of its components too. Modules or tensors that a pattern of `keep` matches
    stay as they are. The channels that stay of each axis are at least `floor` of them, and a multiple of
    `multiple_of`. `importance` is l2, l1, batchnorm, or taylor, which takes `batches` and `loss(model, batch)`.
    The model given is untouched.
    Errors: PruneError if a limit cannot be reached, or the result does not compute what the original does without the
    channels; UsageError for an argument that cannot be used; those of `count`.
    """
    model = unwrap(model)
    _check(multiple_of, importance, floor, batches, loss)
    inputs = _inputs(example)
    before = count(model, *inputs.args, kwargs=inputs.kwargs)
    limits = make_limits(before, params=params, macs=macs, budget=budget)
    subject = Subject(model=model, args=inputs.args, kwargs=inputs.kwargs)
    gradients = None
    if importance == "taylor":
        assert batches is not None
        assert loss is not None
        with guarded(subject):
            gradients = gather_gradients(model, batches, loss)
    decisions = Decisions()
    for _ in range(_ROUNDS):
        followed = follow(subject, keep=keep, multiple_of=multiple_of, share=floor, decisions=decisions)
        _require_costs(followed, before)
        chooser = Chooser(followed.space, limits, weigh_units(followed.space, model, importance, gradients))
        kept = chooser.choose()
        if kept is None:
            raise _unreachable(followed, chooser, before)
        cut = followed.cut(chooser.units(kept))
        second = compare(followed, cut)
        if not second.faults:
            break
        mend(followed, second)
    else:
        raise UsageError(f"{before.model} cannot be followed: it does something else after each cut")
    agree = cut.scale(second)
    made = followed.build(cut)
    remember_plan(made, cut.attributes(model))
    after = count(made, *inputs.args, kwargs=inputs.kwargs)
    slack = {limit.name: limit.amount - measured(after, limit) for limit in limits}
    if min(slack.values()) < 0 or after.params > before.params or after.macs > before.macs:
        raise AssertionError(f"the count of the pruned model is beyond a limit: {slack}")
    error = measure_error(followed, cut)
    if not (agree and error < TOLERANCE):
        raise PruneError(
            f"{type(model).__name__} without some channels does not compute what it did with zeros for them (error "
            f"{error:.1e} of the signal): a number in its code depends on their count, or its weights are no numbers"
        )
    uniform = chooser.uniform()
    return Pruned(
        model=made,
        cost=after,
        units=tuple(_list_units(followed, kept)),
        before=before,
        limits={limit.name: limit.amount for limit in limits},
        slack=slack,
        uniform={}
        if uniform is None
        else dict(zip([each.name for each in limits], chooser.costs(uniform), strict=True)),
        error=error,
    )


def _check(
    multiple_of: int, importance: str, floor: float, batches: Iterable[Any] | None, loss: Callable[..., Any] | None
) -> None:
    if multiple_of < 1:
        raise UsageError(f"multiple_of is a whole number of at least 1, got {multiple_of}")
    if not 0 <= floor < 1:
        raise UsageError(f"floor is a share of the channels, at least 0 and below 1, got {floor}")
    if importance not in get_args(Importance):
        raise UsageError(f"importance is l2, l1, batchnorm or taylor, got {importance!r}")
    if (importance == "taylor") != (batches is not None and loss is not None):
        raise UsageError('importance "taylor" needs batches and loss, which no other takes')


def _inputs(example: Any) -> Inputs:
    if isinstance(example, Inputs):
        return example
    if isinstance(example, Mapping):
        return Inputs((), example)
    return Inputs(tuple(example) if isinstance(example, list | tuple) else (example,), {})


def _require_costs(followed: Followed, cost: Cost) -> None:
    """Refuse to promise what is not followed: the sums of the trace are those of the count.

    Errors: UsageError.
    """
    lengths = followed.space.lengths(followed.space.whole())
    for quantity in ("params", "macs"):
        found = followed.space.terms(Limit(name=quantity, quantity=quantity, amount=0)).total(lengths)
        if found != getattr(cost, quantity):
            raise UsageError(
                f"{cost.model} cannot be followed: {found:,} of its {getattr(cost, quantity):,} {quantity} were seen"
            )


def _list_units(followed: Followed, kept: Ids) -> Iterable[PrunedUnit]:
    """List what was cut together, and what is locked."""
    for family, many in zip(followed.space.families, kept.tolist(), strict=True):
        narrow = "too few channels to cut, or no multiple" if family.least == len(family) else ""
        channels = min((count for _, count in family.places), default=1)
        if family.places:
            axes = tuple(family.names)
            yield PrunedUnit(axes=axes, before=len(family), after=many, channels=channels, locked=narrow)
    for name, many, reason in locked_axes(followed):
        yield PrunedUnit(axes=(name,), before=many, after=many, channels=1, locked=reason)


def _unreachable(followed: Followed, chooser: Chooser, before: Cost) -> PruneError:
    """Say what the least is that can be reached, and what stands in the way."""
    least = dict(zip([limit.name for limit in chooser.limits], chooser.costs(followed.space.least()), strict=True))
    over = [f"{limit.name} {least[limit.name]:,} of {limit.amount:,}" for limit in chooser.limits
            if least[limit.name] > limit.amount]  # fmt: skip
    locked = sorted(locked_axes(followed), key=lambda each: -each[1])[:_NAMED]
    ways = "; ".join(f"{name} ({reason})" for name, _, reason in locked) or "the floor of each axis"
    return PruneError(
        f"{before.model} cannot be cut to that: the least that can be reached is {', '.join(over)}; in the way: {ways}",
        least=least,
        reasons=tuple(f"{name}: {reason}" for name, _, reason in locked),
    )
