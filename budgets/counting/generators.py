"""Generators of random numbers that a forward may draw from, and go another way by."""

import operator
import pickle
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch


class _Ways(NamedTuple):
    """How the state of a generator is read, set and compared, and whether operators do the drawing, which are seen."""

    get: Callable[[Any], Any]
    put: Callable[[Any, Any], object]
    seen: bool = False
    differ: Callable[[Any, Any], bool] = operator.ne


def ways_of(kind: type) -> _Ways | None:
    """Tell how a class of generators is read and set; None for what is not one, or has no state."""
    if issubclass(kind, torch.Generator):
        return _Ways(torch.Generator.get_state, torch.Generator.set_state, seen=True)
    if issubclass(kind, random.Random) and not issubclass(kind, random.SystemRandom):
        return _Ways(random.Random.getstate, random.Random.setstate)
    numpy: Any = sys.modules.get("numpy")
    if numpy and issubclass(kind, numpy.random.RandomState):
        return _Ways(numpy.random.RandomState.get_state, numpy.random.RandomState.set_state, differ=_differ)
    if numpy and issubclass(kind, numpy.random.Generator):
        return _Ways(_bits, _set_bits, differ=_differ)
    return None


def _differ(state: Any, other: Any) -> bool:
    return pickle.dumps(state) != pickle.dumps(other)  # there are arrays in it


def _bits(generator: Any) -> Any:
    return generator.bit_generator.state


def _set_bits(generator: Any, state: Any) -> None:
    generator.bit_generator.state = state


class Generators:
    """Those of the whole program, and those that are added, as they were then."""

    def __init__(self) -> None:
        self._states: dict[int, tuple[Any, _Ways, str, Any]] = {}
        self.add(torch.default_generator)
        self.add(random.random.__self__, "Python")  # type: ignore[attr-defined]
        if numpy := sys.modules.get("numpy"):
            self.add(numpy.random.rand.__self__, "NumPy")

    def add(self, generator: Any, name: str = "") -> bool:
        """Note where one is; return whether it is one."""
        ways = ways_of(type(generator))
        if ways and id(generator) not in self._states:
            self._states[id(generator)] = generator, ways, name, ways.get(generator)
        return ways is not None

    def put_back(self) -> None:
        """Let all go on from where they were."""
        for generator, ways, _, state in self._states.values():
            ways.put(generator, state)

    def notes(self, memo: Mapping[int, Any]) -> list[str]:
        """Say whose numbers were drawn, where no operator drew them; `memo` is that of copies, by `deep`."""
        originals = memo.get(id(memo), ())
        copies = ((memo[id(own)], ways, "", ways.get(own)) for own in originals if (ways := ways_of(type(own))))
        whose = dict.fromkeys(
            name or f"a {type(each).__name__}"
            for each, ways, name, was in (*self._states.values(), *copies)
            if not ways.seen and ways.differ(ways.get(each), was)
        )
        return [
            f"the forward draws random numbers of {name}: where it goes another way by them, it costs otherwise"
            for name in whose
        ]
