"""Where in a TOML text a key stands, which the parser does not say."""

import re
from collections import Counter
from collections.abc import Sequence

Place = tuple[int | str, ...]

_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([^\s."']+)""")


def find_line(text: str, place: Sequence[int | str]) -> int | None:
    """Find the line (from 1) of a key, or of the nearest table around it; None if none of it is written.

    `place` is a path such as ("components", "backbone", "params", "max") or ("claims", 0, "source").
    """
    best, depth = None, 0
    table: Place = ()
    seen: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        key = None if header else _KEY.match(line)
        if header:
            parts = _parts(header[2])
            if header[1] == "[[":
                parts = (*parts, seen[header[2]])
                seen[header[2]] += 1
            here = table = parts
        elif key:
            here = (*table, *_parts(key[1]))
        else:
            continue
        common = min(len(here), len(place))
        shared = common if here[:common] == tuple(place[:common]) else 0
        if shared > depth and (shared == len(here) or not header):
            best, depth = number, shared
    return best


def _parts(dotted: str) -> Place:
    return tuple(double or single or bare for double, single, bare in _PART.findall(dotted))
