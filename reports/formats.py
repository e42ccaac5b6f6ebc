"""Numbers as the report prints them: with separators, with units, and never rounded into a verdict."""

import math
from collections.abc import Callable

DASH = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"
# The field's own spellings, for names that come from module paths.
SPELLINGS = {"bifpn": "BiFPN", "fpn": "FPN", "ssh": "SSH", "cbam": "CBAM", "dcn": "DCN"}


def integer(value: int | None) -> str:
    """Return a whole number with separators, or a dash when there is none."""
    return DASH if value is None else f"{value:,}".replace("-", MINUS)


def signed_integer(value: int | None) -> str:
    """Return a whole number with separators and its sign, or a dash when there is none."""
    return DASH if value is None else f"{value:+,}".replace("-", MINUS) if value else "0"


def bounds(low: int | None, high: int | None) -> str:
    """Return in words what a limit allows, both ends included."""
    if low is None or high is None:
        return DASH if low is high else f"at most {integer(high)}" if low is None else f"at least {integer(low)}"
    return integer(low) if low == high else f"{integer(low)} to {integer(high)}"


def fraction(value: float | None) -> str:
    """Return a score with three decimals, or a dash when there is none."""
    return DASH if value is None or math.isnan(value) else f"{value:.3f}".replace("-", MINUS)


def spread(mean: float | None, std: float | None) -> str:
    """Return a score with its standard deviation where that is known."""
    return fraction(mean) if std is None else f"{fraction(mean)} \N{PLUS-MINUS SIGN} {fraction(std)}"


def change(value: float) -> str:
    """Return a difference of scores with its sign, with as many decimals as keep it from reading 0.

    A limit of +0.0002 printed as +0.000 would hide on which side of 0 it lies.
    """
    # 0.75 less 0.6625 is to be printed as 0.0875 is, although in binary it is a little more.
    value = round(value, 12)
    if value == 0:
        return "0.000"
    decimals = 3 if abs(value) >= 0.0005 else -math.floor(math.log10(abs(value)))
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def interval(low: float, high: float, write: Callable[[float], str] = change) -> str:
    """Return both limits of an interval of differences, or of scores written by `fraction`."""
    return f"[{write(low)}, {write(high)}]"


def percent(share: float) -> str:
    """Return a share in %, with the digits that it was given with."""
    return f"{100 * share:g} %"


def relative_change(before: int, after: int) -> str:
    """Return a change in % of `before`, with its sign and as many decimals as keep it from reading none or all.

    What was not there before is "new", what is in neither a dash.
    """
    if not before:
        return "new" if after else DASH
    if after == before:
        return "0.0 %"
    return f"{_share(before, after, '+')} %".replace("-", MINUS)


def _share(before: float, after: float, sign: str = "") -> str:
    """Return a change in % of `before` as `relative_change` has it; one too small for a float has one decimal."""
    share = 100 * (after - before) / before
    kept = (n for n in range(1, 12) if not after or round(share, n) not in (0.0, -100.0))
    return f"{share:{sign},.{next(kept, 1)}f}"


def less(before: float | None, after: float | None) -> str:
    """Return in words how `after` compares with `before`: "47.5 % less", "equal"."""
    if not before or after is None:
        return DASH
    if before == after:
        return "equal"
    return f"{_share(before, after).lstrip('-')} % {'less' if after < before else 'more'}"


def size(count: int | None) -> str:
    """Return a number of bytes, exact and in MB (10^6 bytes)."""
    return DASH if count is None else f"{count:,} B ({count / 1e6:,.2f} MB)"


def megabytes(count: int | None) -> str:
    """Return a number of bytes in MB (10^6 bytes)."""
    return DASH if count is None else f"{count / 1e6:,.1f} MB"


def milliseconds(value: float) -> str:
    """Return a time in milliseconds, with three digits where it has fewer before the point."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 2
    return f"{value:,.{decimals}f} ms"


def scientific(value: float | None) -> str:
    """Return a small number with two digits and its power of ten, 0 as 0."""
    return DASH if value is None else f"{value:.1e}".replace("-", MINUS) if value else "0"


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def label(name: str) -> str:
    """Return a component's name as a reader writes it: `pyramid_attention` is "pyramid attention"."""
    return " ".join(SPELLINGS.get(word, word) for word in name.split("_"))
