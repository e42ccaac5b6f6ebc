"""The documentation site: the pages of this folder, and the public names by their docstrings."""

import re
from typing import Any

from featherpress import __version__, budgets, compress, models
from featherpress.records import run  # noqa: F401  (a record of free keys cannot be built where autodoc checks types)

project = "Featherpress"
author = copyright = "The Featherpress authors"  # noqa: A001  (Sphinx's name)
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
autosummary_generate = False
html_theme = "furo"
html_title = f"Featherpress {__version__}"
html_copy_source = False
myst_heading_anchors = 3
# Files of the repository that are no pages are links to files, as they are where the pages are read in it.
suppress_warnings = ["myst.xref_missing"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
# Types that a module names without importing them.
autodoc_type_aliases = {"Budget": "featherpress.budgets.Budget"}

# Names that are imported when first asked for are asked for.
for _package in (budgets, compress, models):
    for _name in _package.__all__:
        getattr(_package, _name)


def _to_rst(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Turn a docstring's code in single backquotes into literals, and keep its stars and bars plain."""
    parts = re.split(r"(`[^`]+`)", "\n".join(lines))
    text = "".join(
        f"`{part}`" if number % 2 else re.sub(r"([*|\\_])", r"\\\1", part) for number, part in enumerate(parts)
    )
    text = re.sub(r"\n(?=(?:Shapes|Errors|Units|Source|Parameters):)", "\n\n", text)
    lines[:] = text.split("\n")


def setup(app: Any) -> None:
    """Read docstrings as this project writes them."""
    app.connect("autodoc-process-docstring", _to_rst)
