"""Which cut is the cause of a fault: of families of units in a row bisection finds one, and the next."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from featherpress.compress.pruning.followed import Followed
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.surgery import Cut


def lock_causes(followed: Followed, kept: Sequence[Ids], is_sound: Callable[[Cut], bool], reason: str) -> bool:
    """Lock the families whose cut is no longer sound, until a cut of all others is; return whether there are any.

    `kept` are the units of each family that stay.
    """
    families = followed.space.families
    cut = [place for place, units in enumerate(kept) if len(units) < len(families[place]) and families[place].names]

    def without(places: Sequence[int]) -> bool:
        some = set(places)
        return is_sound(followed.cut([kept[at] if at in some else each.units for at, each in enumerate(families)]))

    causes = list(_find(cut, without))
    for place in causes:
        _lock(followed, place, reason)
    return bool(causes)


def _find(places: list[int], is_sound: Callable[[Sequence[int]], bool]) -> Iterator[int]:
    """Yield one after another: the first so many are sound, and with the next one they are not."""
    low, left = 0, list(places)
    if not is_sound([]):
        return
    while not is_sound(left):
        high = len(left)  # what comes in front of `low` is sound
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if is_sound(left[:middle]) else (low, middle)
        yield left.pop(low)


def _lock(followed: Followed, place: int, reason: str) -> None:
    """Keep a family from being cut, by the axis of a tensor that holds the least beside it."""
    space, units = followed.space, followed.space.families[place].units
    axes = {
        (key, axis): len(ids)
        for key, labels in followed.trace.params.items()
        for axis, ids in enumerate(labels)
        if ids is not None and np.isin(units, space.unit_of[ids]).all()
    }
    followed.decisions.still[min(axes, key=lambda each: axes[each])] = reason
