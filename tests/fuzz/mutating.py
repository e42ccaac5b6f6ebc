"""Broken files out of sound ones: bytes turned, cut and doubled, and values of JSON, TOML and text that do harm."""

import json
import random
import re
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**400, -(10**18), 1e308, 5e-324, 2**63, "", "x" * 5000, "\x00", "\x1b[2J\n",
    "\ud800", "../../etc/passwd", "\u202e", [], {}, [[]], [None], {"": None}, "1e999", "NaN", "\N{SUPERSCRIPT TWO}",
]  # fmt: skip
"""What a key or an entry may hold instead."""

WORDS = [
    b"NaN", b"Infinity", b"1e999", b"9" * 500, b"9" * 5000, b"-0", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"[" * 3000,
    b'{"a":' * 3000, b'"\\ud800"', b"\r", b"\n\n", b"'''", b'"""', b"=", b"]]>", b"\\u0000",
    b"<!DOCTYPE x [<!ENTITY a 'b'>]>",
]  # fmt: skip


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Break a file in one to four ways."""
    for _ in range(chance.randint(1, 4)):
        content = chance.choice([_turn, _cut, _double, _insert, _replace_number, _replace_value])(content, chance)
    return content


def _turn(content: bytes, chance: random.Random) -> bytes:
    if not content:
        return content
    place, broken = chance.randrange(len(content)), bytearray(content)
    broken[place] ^= 1 << chance.randrange(8)
    return bytes(broken)


def _cut(content: bytes, chance: random.Random) -> bytes:
    first, last = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + content[last:] if chance.random() < 0.5 else content[:first]


def _double(content: bytes, chance: random.Random) -> bytes:
    first, last = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:last] + content[first : first + min(last - first, 5000)] + content[last:]


def _insert(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content) + 1)
    return content[:place] + chance.choice(WORDS) + content[place:]


def _replace_number(content: bytes, chance: random.Random) -> bytes:
    found = [*re.finditer(rb"-?\d+(\.\d+)?", content[:100_000])]
    if not found:
        return _insert(content, chance)
    place = chance.choice(found)
    return content[: place.start()] + chance.choice(WORDS) + content[place.end() :]


def _replace_value(content: bytes, chance: random.Random) -> bytes:
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _insert(content, chance)
    holder: Any = tree
    while isinstance(holder, dict | list) and holder:
        key = chance.choice([*holder]) if isinstance(holder, dict) else chance.randrange(len(holder))
        if chance.random() < 0.3 or not (isinstance(holder[key], dict | list) and holder[key]):
            holder[key] = chance.choice(VALUES)
            break
        holder = holder[key]
    try:
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):
        return content
