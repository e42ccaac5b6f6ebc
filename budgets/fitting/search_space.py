"""All models a factory makes from some whole-number knobs, and what each costs without building each.

A few dozen are built, without memory, and every axis of every parameter is read as a function of the knobs: constant,
linear in one, the quotient or product of two, or a table. A convolution's or linear layer's MACs are its weights times
the places they are applied at, which width does not change, so a few traces say those. Candidates held back while the
functions were read must come out exactly; if one does not, every candidate is built.
"""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise, permutations, product
from math import prod

import torch
from torch import nn

from featherpress.budgets.counting.costs import Cost
from featherpress.errors import UsageError

#: More values of one knob are a mistake of typing.
_MOST_VALUES = 10_000

Settings = tuple[int, ...]
Shapes = Mapping[str, tuple[int, ...]]
Function = Callable[[Settings], int | None]
Vector = tuple[int | None, ...]

#: At most this many values of a knob are built, at most this many candidates in all; fewer are all built.
VALUES, FEW, HELD_OUT, ROUNDS = 10, 48, 16, 6

#: What an axis is called that would have to be a fraction: there is no such model.
IMPOSSIBLE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A keyword argument of the factory, and the values to try."""

    name: str
    values: tuple[int, ...]


def parse_knob(text: str) -> Knob:
    """Read `width=16:128:2` (the end is included, the step may be left out) or `width=16,32,64`.

    Errors: UsageError.
    """
    name, equals, given = text.partition("=")
    try:
        if "," in given or ":" not in given:
            values = [int(value) for value in given.split(",")]
        else:
            first, last, *rest = (int(value) for value in given.split(":"))
            (step,) = rest or [1]
            values = list(islice(range(first, last + 1, step), _MOST_VALUES + 1))
    except (ValueError, OverflowError):
        values = []
    if not equals or not name.strip().isidentifier() or not 0 < len(values) <= _MOST_VALUES:
        raise UsageError(
            f"cannot read knob {text!r}; expected NAME=FIRST:LAST:STEP or NAME=VALUE,VALUE, {_MOST_VALUES:,} values at "
            "most"
        )
    return Knob(name=name.strip(), values=tuple(dict.fromkeys(values)))


@dataclass(slots=True)
class Space:
    """The candidates; `refused` counts those that the factory would not build, `reason` is what it said first."""

    factory: Callable[..., nn.Module]
    knobs: tuple[Knob, ...]
    shapes: dict[Settings, Shapes | None] = field(default_factory=dict)
    reason: str = ""

    @property
    def candidates(self) -> list[Settings]:
        """List every combination."""
        return list(product(*(knob.values for knob in self.knobs)))

    @property
    def refused(self) -> int:
        """Count the candidates known not to exist."""
        return sum(shapes is None for shapes in self.shapes.values())

    def name(self, settings: Settings) -> dict[str, int]:
        """Name the values."""
        return {knob.name: value for knob, value in zip(self.knobs, settings, strict=True)}

    def make(self, settings: Settings) -> nn.Module:
        """Build a candidate on the meta device; whatever the factory raises comes through."""
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # initialisers have opinions on tensors without data
            return self.factory(**self.name(settings))

    def measure(self, settings: Settings) -> Shapes | None:
        """Build a candidate, once, for its parameters' shapes; None if the factory refuses."""
        if settings not in self.shapes:
            try:
                parameters = self.make(settings).named_parameters()
            except Exception as error:
                self.shapes[settings] = None
                self.reason = self.reason or str(error) or type(error).__name__
            else:
                self.shapes[settings] = {name: tuple(tensor.shape) for name, tensor in parameters}
        return self.shapes[settings]

    def estimate(self) -> "Estimate | None":
        """Read the functions from a sample, and again with more of it while they leave candidates open.

        None if there are few candidates, or if those held out contradict.
        """
        everything = self.candidates
        if len(everything) <= FEW:
            return None
        chance = random.Random(0)  # noqa: S311 - not a secret
        held_out = chance.sample(everything, min(HELD_OUT, len(everything)))
        sample = self._sample(chance)
        estimate = None
        for _ in range(ROUNDS):
            if not sample:
                return None
            estimate = Estimate.of(self, sample)
            still_open = [s for s in everything if s not in self.shapes and estimate.params(s) is None]
            if len(still_open) <= FEW:
                break
            found = self._valid(chance.sample(still_open, FEW), FEW // 2)
            if not found:
                break
            sample += found
        for settings in held_out:
            shapes = self.measure(settings)
            if shapes and estimate and estimate.params(settings) not in {None, size_of(shapes)}:
                return None
        return estimate

    def _sample(self, chance: random.Random) -> list[Settings]:
        """Vary one knob at a time around a candidate that exists and around the greatest, and add some at random."""
        everything = self.candidates
        drawn = self._valid(chance.sample(everything, min(len(everything), 4 * FEW)), VALUES)
        chosen = list(drawn)
        for centre in (*drawn[:1], tuple(max(knob.values) for knob in self.knobs)):
            for index, knob in enumerate(self.knobs):
                around = [(*centre[:index], value, *centre[index + 1 :]) for value in _spread(knob.values)]
                chosen += self._valid(around, VALUES)
        return list(dict.fromkeys(chosen))

    def _valid(self, candidates: Iterable[Settings], wanted: int) -> list[Settings]:
        """Take the first that the factory builds; a refusal is quick."""
        return list(islice((settings for settings in candidates if self.measure(settings)), wanted))


def size_of(shapes: Shapes) -> int:
    """Count the elements of all parameters."""
    return sum(prod(shape) for shape in shapes.values())


def _spread(values: Sequence[int]) -> list[int]:
    """Put values in an order whose first few are both ends, neighbours, and some between."""
    ordered = sorted(values)
    if len(ordered) <= VALUES:
        return ordered
    first = [ordered[round(i * (len(ordered) - 1) / (VALUES - 2))] for i in range(VALUES - 1)]
    return list(dict.fromkeys([*first, *ordered]))


@dataclass(slots=True)
class Estimate:
    """Functions of the axes, and tensors grouped by when they exist and which functions their axes follow."""

    functions: list[Function]
    members: dict[str, tuple[int, tuple[int, ...]]]
    #: MACs per weight of each tensor, and MACs that no one tensor accounts for; None until `learn_macs` succeeded.
    places: dict[str, int] | None = None
    rest: int = 0
    groups: Counter[tuple[int, tuple[int, ...]]] = field(default_factory=Counter)
    work: Counter[tuple[int, tuple[int, ...]]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Group the tensors."""
        self.groups = Counter(self.members.values())

    @classmethod
    def of(cls, space: Space, built: Sequence[Settings]) -> "Estimate":
        """Read the functions from candidates that were built."""
        return _read_functions(built, [space.shapes[settings] or {} for settings in built], len(space.knobs))

    def params(self, settings: Settings) -> int | None:
        """Count a candidate's parameters, None where a function does not say, IMPOSSIBLE if a width is no number."""
        return self._sum(settings, self.groups, 0)

    def macs(self, settings: Settings) -> int | None:
        """Count its MACs, None before they are known."""
        return None if self.places is None else self._sum(settings, self.work, self.rest)

    def _sum(self, settings: Settings, groups: Mapping[tuple[int, tuple[int, ...]], int], total: int) -> int | None:
        values = [function(settings) for function in self.functions]
        for (presence, axes), times in groups.items():
            if values[presence] is None:
                return None
            if not values[presence]:
                continue
            sides = [values[axis] for axis in axes]
            if None in sides:
                return None
            if IMPOSSIBLE in sides:
                return IMPOSSIBLE
            total += times * prod(side for side in sides if side is not None)
        return total

    def learn_macs(self, traced: Iterable[tuple[Shapes, Cost]]) -> bool:
        """Read from a few counts at how many places each weight is applied; False if they do not agree."""
        places: dict[str, Fraction] = {}
        rests = set()
        for shapes, cost in traced:
            rests.add(cost.weight_macs.get("", 0))
            for name, shape in shapes.items():
                found = Fraction(cost.weight_macs.get(name, 0), max(prod(shape), 1))
                if places.setdefault(name, found) != found:
                    return False
        whole = all(found.denominator == 1 for found in places.values())
        if len(rests) != 1 or not whole or places.keys() < self.members.keys():
            return False
        self.rest = rests.pop()
        self.places = {name: int(found) for name, found in places.items()}
        for name, member in self.members.items():
            self.work[member] += self.places[name]
        return True


def _read_functions(settings: Sequence[Settings], shapes: Sequence[Shapes], knobs: int) -> Estimate:
    """Find a function for when each tensor exists and one for each of its axes; equal columns share theirs."""
    names = dict.fromkeys(name for found in shapes for name in found)
    functions: list[Function] = []
    known: dict[Vector, int] = {}

    def index_of(vector: Vector) -> int:
        if vector not in known:
            # A tensor that is not always there follows, where it is, what others follow everywhere.
            fits = (old for old in known if None in vector and None not in old and _agree(vector, old))
            same = next(fits, None)
            if same is None:
                functions.append(_function(vector, settings, knobs))
            known[vector] = known[same] if same is not None else len(functions) - 1
        return known[vector]

    columns = {
        name: (
            tuple(int(name in found) for found in shapes),
            [
                tuple(found[name][axis] if name in found else None for found in shapes)
                for axis in range(len(next(found[name] for found in shapes if name in found)))
            ],
        )
        for name in names
    }
    complete_first = sorted(columns, key=lambda name: 0 in columns[name][0])
    members = {
        name: (index_of(columns[name][0]), tuple(index_of(axis) for axis in columns[name][1]))
        for name in complete_first
    }
    return Estimate(functions=functions, members=members)


def _agree(vector: Vector, other: Vector) -> bool:
    return all(a is None or a == b for a, b in zip(vector, other, strict=True))


def _function(vector: Vector, settings: Sequence[Settings], knobs: int) -> Function:
    """Find the simplest function that gives all of a column."""
    points = [(s, v) for s, v in zip(settings, vector, strict=True) if v is not None]
    first = points[0][1]
    if all(value == first for _, value in points):
        return lambda _: first
    for index in range(knobs):
        table = {s[index]: v for s, v in points}
        if all(table[s[index]] == v for s, v in points):
            return _linear(index, table) or _quotient(index, table) or _looked_up(index, table)
    for i, j in permutations(range(knobs), 2):
        for form in _forms(i, j, points[0]):
            if all(form(s) == v for s, v in points):
                return form
    return dict(points).get


def _linear(index: int, table: Mapping[int, int]) -> Function | None:
    """Find a straight line through a table, if there are enough points to tell."""
    ordered = sorted(table.items())
    slopes = {Fraction(b[1] - a[1], b[0] - a[0]) for a, b in pairwise(ordered)}
    if len(slopes) != 1 or len(ordered) < 3:
        return None
    slope, (start, value) = slopes.pop(), ordered[0]

    def line(settings: Settings) -> int | None:
        found = value + slope * (settings[index] - start)
        return int(found) if found.denominator == 1 and found >= 0 else IMPOSSIBLE

    return line


def _quotient(index: int, table: Mapping[int, int]) -> Function | None:
    """Find a constant divided by the knob, at least 1, through a table."""
    least = min(table)
    if least < 1 or len(table) < 3:
        return None
    for constant in range(table[least] * least, (table[least] + 1) * least):
        if all(max(constant // value, 1) == found for value, found in table.items()):
            return lambda settings: max(constant // settings[index], 1)
    return None


def _looked_up(index: int, table: Mapping[int, int]) -> Function:
    return lambda settings: table.get(settings[index])


def _forms(i: int, j: int, point: tuple[Settings, int]) -> list[Function]:
    """Propose quotients and products of two knobs."""
    settings, value = point
    scales = [Fraction(1), Fraction(2), Fraction(3), Fraction(4), Fraction(1, 2), Fraction(1, 4)]
    forms: list[Function] = []
    for scale in scales:
        forms.append(lambda s, a=scale: max(int(a * s[i]) // s[j], 1) if s[j] else None)  # type: ignore[misc]
        forms.append(lambda s, a=scale: int(a * s[i]) // s[j] if s[j] else None)  # type: ignore[misc]
    ratio = Fraction(value, settings[i] * settings[j] or 1)
    forms.append(lambda s: int(ratio * s[i] * s[j]) if (ratio * s[i] * s[j]).denominator == 1 else IMPOSSIBLE)
    return forms
