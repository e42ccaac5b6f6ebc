"""A student within an absolute budget, out of any model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor, nn

from featherpress.budgets.counting.costs import Cost
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.inputs import Inputs
from featherpress.budgets.counting.wrappers import unwrap
from featherpress.compress.pruning.choice import Chooser, Importance, Scores, gather_gradients, weigh_units
from featherpress.compress.pruning.followed import Followed, locked_axes
from featherpress.compress.pruning.following import follow
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.limits import make_limits, measured
from featherpress.compress.pruning.mending import mend
from featherpress.compress.pruning.oracle import TOLERANCE, measure_error
from featherpress.compress.pruning.proof import compare
from featherpress.compress.pruning.result import Pruned
from featherpress.compress.pruning.running import guarded
from featherpress.compress.pruning.surgery import Cut
from featherpress.compress.pruning.trace import Decisions, Subject
from featherpress.compress.pruning.units import Limit, Space
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
    gradients = _gather(subject, batches, loss)
    choice = _choose(
        before,
        limits,
        partial(follow, subject, keep=keep, multiple_of=multiple_of, share=floor, decisions=Decisions()),
        partial(weigh_units, model=model, importance=importance, gradients=gradients),
    )
    made = choice.followed.build(choice.cut)
    remember_plan(made, choice.cut.attributes(model))
    after = count(made, *inputs.args, kwargs=inputs.kwargs)
    return Pruned(
        model=made,
        cost=after,
        units=tuple(_list_units(choice.followed, choice.kept)),
        before=before,
        limits={limit.name: limit.amount for limit in limits},
        slack=_require_limits(limits, before, after),
        uniform=choice.chooser.uniform(),
        error=_require_equal(choice),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """Units that stay, and the cut that leaves them; `agrees` unless a row would have to make good for two numbers."""

    followed: Followed
    chooser: Chooser
    kept: Ids
    cut: Cut
    agrees: bool


def _choose(
    before: Cost, limits: Sequence[Limit], follow_model: Callable[[], Followed], weigh: Callable[[Space], Scores]
) -> _Choice:
    """Choose what stays, trace that very cut, and follow the model anew for as long as that finds something wrong."""
    for _ in range(_ROUNDS):
        followed = follow_model()
        _require_costs(followed, before)
        chooser = Chooser(followed.space, limits, weigh(followed.space))
        kept = chooser.choose()
        if kept is None:
            raise _unreachable(followed, chooser, before)
        cut = followed.cut(chooser.units(kept))
        second = compare(followed, cut)
        if not second.faults:
            return _Choice(followed=followed, chooser=chooser, kept=kept, cut=cut, agrees=cut.scale(second))
        mend(followed, second)
    raise UsageError(f"{before.model} cannot be followed: it does something else after each cut")


def _gather(
    subject: Subject, batches: Iterable[Any] | None, loss: Callable[[nn.Module, Any], Tensor] | None
) -> dict[int, Tensor] | None:
    """Return the gradients that importance wants, if it does."""
    if batches is None or loss is None:
        return None
    with guarded(subject):
        return gather_gradients(subject.model, batches, loss)


def _require_limits(limits: Sequence[Limit], before: Cost, after: Cost) -> dict[str, int]:
    """Return what is left of each limit.

    Errors: AssertionError where one does not hold, or the cost has grown.
    """
    slack = {limit.name: limit.amount - measured(after, limit) for limit in limits}
    if min(slack.values()) < 0 or after.params > before.params or after.macs > before.macs:
        raise AssertionError(f"the count of the pruned model is beyond a limit: {slack}")
    return slack


def _require_equal(choice: _Choice) -> float:
    """Return the error of what is left.

    Errors: PruneError where it is more than rounding.
    """
    error = measure_error(choice.followed, choice.cut)
    if not (choice.agrees and error < TOLERANCE):
        raise PruneError(
            f"{type(choice.followed.subject.model).__name__} without some channels does not compute what it did with "
            f"zeros for them (error {error:.1e} of the signal): a number in its code depends on their count, or its "
            "weights are no numbers"
        )
    return error


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
    least = chooser.named_costs(followed.space.least())
    over = [f"{limit.name} {least[limit.name]:,} of {limit.amount:,}" for limit in chooser.limits
            if least[limit.name] > limit.amount]  # fmt: skip
    locked = sorted(locked_axes(followed), key=lambda each: -each[1])[:_NAMED]
    ways = "; ".join(f"{name} ({reason})" for name, _, reason in locked) or "the floor of each axis"
    return PruneError(
        f"{before.model} cannot be cut to that: the least that can be reached is {', '.join(over)}; in the way: {ways}",
        least=least,
        reasons=tuple(f"{name}: {reason}" for name, _, reason in locked),
    )
