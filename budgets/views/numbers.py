"""Numbers for people."""

UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def format_macs(amount: int) -> str:
    """Shorten to four digits and a unit: 927736256 is "927.7 M"; below 10,000 nothing is lost."""
    if amount < 0:
        return f"-{format_macs(-amount)}"
    if amount < 10_000:
        return f"{amount:,}"
    for size, unit in UNITS:
        if amount >= size:
            whole = amount / size
            return f"{whole:.2f} {unit}" if whole < 100 else f"{whole:.1f} {unit}"
    raise AssertionError(amount)
