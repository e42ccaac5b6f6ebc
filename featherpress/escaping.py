"""Names from files, models and records as text: what would do anything but stand there is written out.

Each format has one function, and every writer of it uses that one.
"""

import html
import re
import unicodedata

_LINES = "\n\t"
_JOINERS = "\u200c\u200d\u00ad"

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_\allowbreak{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{EM DASH}": "---",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))
_MARKDOWN = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)|\[(?=[^\]]*\]\()|\\*\|")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}
_FORMULA = re.compile(r"[=+\-@\t\r]")
_QUOTED = 120
_QUOTES = re.compile(rf"(?<!\w)'[^']*'|\"[^\"]*\"|[^\s]{{{4 * _QUOTED},}}")
"""What is quoted, an apostrophe inside a word begins nothing; and what has no end."""
_NUMBER = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return text in which characters that steer, and are not seen, are written out, as \x1b; for a terminal too.

    Of them are control characters, marks that turn the direction of writing, and halves of a pair of surrogates. Line
    ends become spaces unless `lines` may stay.
    """
    if text.isprintable():
        return text
    if not lines:
        text = re.sub(r"[\r\n\t\v\f\x85\u2028\u2029]+", " ", text)
    return "".join(
        letter if _is_plain(letter) or (lines and letter in _LINES) else written_out(letter) for letter in text
    )


def _is_plain(letter: str) -> bool:
    kind, number = unicodedata.category(letter), ord(letter)
    no_character = number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF
    return kind not in {"Cc", "Cs", "Zl", "Zp"} and not no_character and (kind != "Cf" or letter in _JOINERS)


def written_out(letter: str) -> str:
    r"""Return a letter as Python writes it, as \x1b."""
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def escape_markdown(text: str) -> str:
    """Return one line of text that Markdown shows as it is, in a table too: no tag, entity, link or edge of a cell."""
    flat = " ".join(visible(text).split())
    return _MARKDOWN.sub(lambda found: _ENTITIES.get(found[0]) or re.sub(r"([\\[|])", r"\\\1", found[0]), flat)


def escape_html(text: str, *, lines: bool = False) -> str:
    """Return text that HTML shows as it is, in an attribute too; line ends become spaces unless `lines` may stay."""
    return html.escape(visible(text, lines=lines))


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is; a long name may break where a reader would break it."""
    pieces = re.split(r"(?<=[A-Za-z0-9][.:/-])(?=[A-Za-z])", visible(text))
    return r"\allowbreak{}".join(_LATEX_SPECIAL.sub(lambda found: _LATEX[found[0]], piece) for piece in pieces)


def escape_cell(cell: object) -> object:
    """Return a cell of a CSV that no spreadsheet takes for a formula; numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    text = visible(cell)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def shorten(sentence: str) -> str:
    """Return a sentence without the bulk of a value that it quotes whole, or of a word that never ends."""
    return _QUOTES.sub(
        lambda found: found[0] if len(found[0]) < _QUOTED + 2 else f"{found[0][:_QUOTED]}...{found[0][-1]}", sentence
    )
