"""A choice that holds: chosen, cut and proven; units of which the proof fails are locked, and the rest chosen anew."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isnan

from featherpress.budgets.counting.costs import Cost
from featherpress.compress.pruning.causes import lock_causes
from featherpress.compress.pruning.choice import Chooser, Scores
from featherpress.compress.pruning.followed import Followed, locked_axes
from featherpress.compress.pruning.labels import MEETS, Ids
from featherpress.compress.pruning.mending import mend
from featherpress.compress.pruning.oracle import TOLERANCE, measure_error
from featherpress.compress.pruning.proof import compare
from featherpress.compress.pruning.surgery import Cut
from featherpress.compress.pruning.trace import Trace
from featherpress.compress.pruning.units import Limit, Space
from featherpress.errors import PruneError, UsageError

#: How many reasons why axes stay are named where a limit cannot be reached.
_NAMED = 3
#: How often a choice may turn out to do something else: at first an operator is mended, later units are locked.
_ROUNDS, _MENDED = 12, 5
#: Why units are locked: the oracle finds a difference, or no signal to find one by.
DIFFERS = "with fewer of them the model computes something else"
SILENT = "with fewer of them too little comes through to prove anything by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """Units that stay, the cut that leaves them, and its error, which is rounding."""

    followed: Followed
    chooser: Chooser
    kept: Ids
    cut: Cut
    error: float


def choose_proven(
    before: Cost, limits: Sequence[Limit], follow_model: Callable[[], Followed], weigh: Callable[[Space], Scores]
) -> Proven:
    """Choose what stays and prove that very cut; lock the units that a proof fails of, and choose again.

    Errors: PruneError if a limit cannot be reached, with the least that can, which is proven too where a signal comes
    through, or if nothing can be proven; UsageError if the trace misses some of the cost.
    """
    for turn in range(_ROUNDS):
        followed = follow_model()
        _require_costs(followed, before)
        chooser = Chooser(followed.space, limits, weigh(followed.space))
        chosen = chooser.choose()
        kept = followed.space.least() if chosen is None else chosen
        units = chooser.units(kept)
        cut = followed.cut(units)
        second = compare(followed, cut)
        if second.faults and turn < _MENDED:
            mend(followed, second, units)
            continue
        error = _measure(followed, cut, second)
        if chosen is None and (error < TOLERANCE or isnan(error)):
            raise _unreachable(followed, chooser, before)
        if error < TOLERANCE:
            return Proven(followed=followed, chooser=chooser, kept=kept, cut=cut, error=error)
        is_sound = partial(_is_sound, followed)
        if not lock_causes(followed, units, is_sound, SILENT if isnan(error) else DIFFERS):
            break
    raise PruneError(
        f"{before.model} without some channels does not compute what it did with zeros for them (error {error:.1e} of "
        "the signal), and no channels can be found that are the cause: its weights may be no numbers, or its results "
        "the same for all inputs"
    )


def _is_sound(followed: Followed, cut: Cut) -> bool:
    return _measure(followed, cut, compare(followed, cut)) < TOLERANCE


def _measure(followed: Followed, cut: Cut, second: Trace) -> float:
    """Return the error of a cut; infinite if its trace has faults, a row would need two factors, or it does not run.

    It is no number where no signal comes through.
    """
    if second.faults or not cut.scale(second):
        return inf
    try:
        return measure_error(followed, cut)
    except Exception:  # of the model's own code, on values
        return inf


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


def _unreachable(followed: Followed, chooser: Chooser, before: Cost) -> PruneError:
    """Say what the least is that can be reached, and what stands in the way."""
    least = chooser.named_costs(followed.space.least())
    over = [f"{limit.name} {least[limit.name]:,} of {limit.amount:,}" for limit in chooser.limits
            if least[limit.name] > limit.amount]  # fmt: skip
    # The widest axis of each reason; that it meets another is the least of reasons.
    floors = ((each.names[0], each.least, each.floored) for each in followed.space.families if each.names)
    stay = [*locked_axes(followed), *(each for each in floors if each[2])]
    widest = {each[2]: each for each in sorted(stay, key=lambda each: each[1])}
    locked = sorted(widest.values(), key=lambda each: (-each[1], each[2] == MEETS))[:_NAMED]
    ways = "; ".join(f"{name} ({reason})" for name, _, reason in locked) or "the floor of each axis"
    return PruneError(
        f"{before.model} cannot be cut to that: the least that can be reached is {', '.join(over)}; in the way: {ways}",
        least=least,
        reasons=tuple(f"{name}: {reason}" for name, _, reason in locked),
    )
