"""The arguments of a factory that a fit may vary."""

from dataclasses import dataclass
from itertools import islice

from featherpress.errors import UsageError

#: More values of one knob are a typing mistake.
_MOST_VALUES = 10_000


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
