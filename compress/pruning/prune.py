"""A student within an absolute budget, out of any model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor, nn

from featherpress.budgets.counting.costs import Cost
from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.inputs import Inputs
from featherpress.budgets.counting.wrappers import unwrap
from featherpress.compress.pruning.choice import Importance, gather_gradients, weigh_units
from featherpress.compress.pruning.followed import Followed, locked_axes
from featherpress.compress.pruning.following import follow
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.limits import make_limits, measured
from featherpress.compress.pruning.proven import choose_proven
from featherpress.compress.pruning.result import Pruned
from featherpress.compress.pruning.running import guarded
from featherpress.compress.pruning.trace import Decisions, Subject
from featherpress.compress.pruning.units import Limit
from featherpress.errors import UsageError
from featherpress.models.pruned import remember_plan
from featherpress.records.pruning import PrunedUnit

if TYPE_CHECKING:
    from featherpress.budgets.auditing.budget_file import Budget


def prune(
    model: nn.Module,
    example: Tensor | Inputs | Sequence[Any] | Mapping[str, Any],
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

    `example` is what its forward takes: a tensor, a sequence of arguments, arguments by name, or
    `budgets.counting.inputs.Inputs` for both. `params` and `macs` are upper limits, as are those of a `budget` file, of
    its components too. Modules or tensors that a pattern of `keep` matches stay as they are. The channels that stay of
    each axis are at least `floor` of them, and a multiple of `multiple_of`. `importance` is l2, l1, batchnorm, or
    taylor, which takes `batches` and `loss(model, batch)`.
    The model given is untouched.
    Channels without which it would compute something else stay, and say so.
    Errors: PruneError if a limit cannot be reached, or nothing can be proven; UsageError for an argument that cannot
    be used; those of `count`.
    """
    model = unwrap(model)
    _check(multiple_of, importance, floor, batches, loss)
    inputs = _inputs(example)
    before = count(model, *inputs.args, kwargs=inputs.kwargs)
    limits = make_limits(before, params=params, macs=macs, budget=budget)
    subject = Subject(model=model, args=inputs.args, kwargs=inputs.kwargs)
    gradients = _gather(subject, batches, loss)
    proven = choose_proven(
        before,
        limits,
        partial(follow, subject, keep=keep, multiple_of=multiple_of, share=floor, decisions=Decisions()),
        partial(weigh_units, model=model, importance=importance, gradients=gradients),
    )
    made = proven.followed.build(proven.cut)
    remember_plan(made, proven.cut.attributes(model))
    after = count(made, *inputs.args, kwargs=inputs.kwargs)
    return Pruned(
        model=made,
        cost=after,
        units=tuple(_list_units(proven.followed, proven.kept)),
        before=before,
        limits={limit.name: limit.amount for limit in limits},
        slack=_require_limits(limits, before, after),
        uniform=proven.chooser.uniform(),
        error=proven.error,
    )


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


def _list_units(followed: Followed, kept: Ids) -> Iterable[PrunedUnit]:
    """List what was cut together, and what is locked."""
    for family, many in zip(followed.space.families, kept.tolist(), strict=True):
        narrow = "" if family.least < len(family) else family.floored
        channels = min((count for _, count in family.places), default=1)
        if family.places:
            axes = tuple(family.names)
            yield PrunedUnit(axes=axes, before=len(family), after=many, channels=channels, locked=narrow)
    for name, many, reason in locked_axes(followed):
        yield PrunedUnit(axes=(name,), before=many, after=many, channels=1, locked=reason)
