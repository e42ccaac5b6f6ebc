"""Amounts as people write them: 128K parameters, 1.5M MACs."""

import re
from fractions import Fraction

from featherpress.errors import UsageError

_LONGEST = 40  # characters; Python reads no whole number of more than some thousand digits
_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_AMOUNT = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)([KMG]?)", re.ASCII | re.IGNORECASE)


def read_amount(text: str) -> int:
    """Read a whole number of 1 or more, as 256812, 256_812, 128K, 1.5M or 2G; K is a thousand.

    Errors: UsageError.
    """
    found = _AMOUNT.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    value = Fraction(found[1].replace("_", "")) * _SCALES[found[2].upper()] if found else Fraction(0)
    if value < 1 or value.denominator != 1:
        raise UsageError(f"an amount is a whole number of 1 or more, as 256812, 128K or 1.5M; got {text[:_LONGEST]!r}")
    return int(value)


def read_amounts(text: str) -> tuple[int, ...]:
    """Read several amounts with commas between them, smallest first, each once.

    Errors: UsageError.
    """
    return tuple(sorted({read_amount(part) for part in text.split(",")}))
