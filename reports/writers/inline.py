"""The two marks that our texts have, told apart from the text between them."""

import re
from collections.abc import Callable

_MARK = re.compile(r"\*\*(?P<bold>.+?)\*\*|`(?P<code>[^`]+)`")


def render_inline(
    text: str, *, plain: Callable[[str], str], bold: Callable[[str], str], code: Callable[[str], str]
) -> str:
    """Return a text with each part rendered: `bold` gets what is already rendered, the others raw text."""
    done, parts = 0, []
    for found in _MARK.finditer(text):
        parts.append(plain(text[done : found.start()]))
        if found["bold"] is not None:
            parts.append(bold(render_inline(found["bold"], plain=plain, bold=bold, code=code)))
        else:
            parts.append(code(found["code"]))
        done = found.end()
    return "".join([*parts, plain(text[done:])])
