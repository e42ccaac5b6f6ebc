"""Numbers as the report prints them: with separators, with units, and never rounded into a verdict."""

import math

__all__ = [
    "DASH",
    "MINUS",
    "ap",
    "bounds",
    "change",
    "correlation",
    "duration",
    "integer",
    "label",
    "less",
    "megabytes",
    "milliseconds",
    "per_cent",
    "percent",
    "rate",
    "reduction",
    "scientific",
    "signed_integer",
    "size",
    "spread",
]

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


def ap(value: float | None) -> str:
    """Return an AP with three decimals, or a dash when there is none."""
    return DASH if value is None or math.isnan(value) else f"{value:.3f}"


def correlation(value: float | None) -> str:
    """Return Pearson's r with three decimals, or a dash when there is none."""
    return DASH if value is None else f"{value:.3f}".replace("-", MINUS)


def spread(mean: float | None, std: float | None) -> str:
    """Return an AP with its standard deviation where that is known."""
    return ap(mean) if std is None else f"{ap(mean)} \N{PLUS-MINUS SIGN} {ap(std)}"


def change(value: float | None) -> str:
    """Return a difference of APs with its sign, with as many decimals as keep it from reading 0.

    A limit of +0.0002 printed as +0.000 would hide on which side of 0 it lies.
    """
    if value is None:
        return DASH
    if value == 0:
        return "0.000"
    decimals = 3 if abs(value) >= 0.0005 else -math.floor(math.log10(abs(value)))
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def percent(part: float | None) -> str:
    """Return a fraction as a percentage with one decimal."""
    return DASH if part is None else f"{100 * part:.1f} %".replace("-", MINUS)


def reduction(before: int | None, after: int | None) -> str:
    """Return by how much `after` is less than `before`, in % of `before`; a dash when nothing was there before."""
    return DASH if not before or after is None else percent((before - after) / before)


def less(before: float | None, after: float | None) -> str:
    """Return in words how `after` compares with `before`: "47.5 % less", "equal"."""
    if not before or after is None:
        return DASH
    if before == after:
        return "equal"
    return f"{percent(abs(before - after) / before)} {'less' if after < before else 'more'}"


def size(count: int | None) -> str:
    """Return a number of bytes, exact and in MB (10^6 bytes)."""
    return DASH if count is None else f"{count:,} B ({count / 1e6:.2f} MB)"


def megabytes(count: int | None) -> str:
    """Return a number of bytes in MB (10^6 bytes)."""
    return DASH if count is None else f"{count / 1e6:,.1f} MB"


def milliseconds(value: float | None) -> str:
    """Return a time in milliseconds, with three digits where it has fewer before the point."""
    if value is None:
        return DASH
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f} ms"


def scientific(value: float | None) -> str:
    """Return a small number with two digits and its power of ten, 0 as 0."""
    return DASH if value is None else f"{value:.1e}".replace("-", MINUS) if value else "0"


def rate(value: float | None) -> str:
    """Return a number a second, with one decimal."""
    return DASH if value is None else f"{value:,.1f}"


def per_cent(value: float | None) -> str:
    """Return what is in per cent already, with two decimals as published tables have."""
    return DASH if value is None else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Return a time in hours, minutes and seconds."""
    if seconds is None:
        return DASH
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def label(name: str) -> str:
    """Return a component's name as a reader writes it: `pyramid_attention` is "pyramid attention"."""
    return " ".join(SPELLINGS.get(word, word) for word in name.split("_"))
