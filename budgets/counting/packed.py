"""Layers whose weights GPTQ, AWQ and their kin pack: several numbers to an int32, with scales and zeros for groups."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

#: What such a layer keeps in place of a weight.
PACKED = ("qweight", "qzeros", "scales", "g_idx")
_WORD = 32


def note_packed(named: Iterable[tuple[str, Sequence[int]]]) -> Iterator[str]:
    """Say what packed weights stand for, by the names and shapes of all that a model or a file holds."""
    layers: defaultdict[str, dict[str, Sequence[int]]] = defaultdict(dict)
    for name, shape in named:
        path, _, last = name.rpartition(".")
        if last in PACKED:
            layers[path][last] = shape
    found = [weights for held in layers.values() if (weights := _stands_for(held))]
    if found:
        bits = " or ".join(map(str, sorted({each[1] for each in found})))
        yield (
            f"{sum(each[0] for each in found):,} weights of {bits} bits are packed in {', '.join(PACKED)} "
            f"(layers: {len(found):,}): what is counted and measured is what is stored"
        )


def _stands_for(held: dict[str, Sequence[int]]) -> tuple[int, int] | None:
    """Return how many weights a layer has, and their bits: GPTQ packs along the input, AWQ along the output."""
    packed, scales, zeros = (held.get(name, ()) for name in ("qweight", "scales", "qzeros"))
    if len(packed) != 2 or len(scales) != 2 or 0 in (*packed, *scales):
        return None
    outputs = scales[1]
    if packed[1] != outputs:
        bits = packed[1] * _WORD // outputs
        return (packed[0] * outputs, bits) if 0 < bits < _WORD else None
    groups = held.get("g_idx", ())
    inputs = groups[0] if len(groups) == 1 else 0
    bits = packed[0] * _WORD // inputs if inputs else zeros[1] * _WORD // outputs if len(zeros) == 2 else 0
    return (packed[0] * _WORD // bits * outputs, bits) if 0 < bits < _WORD else None
