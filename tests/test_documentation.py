"""The documents: their links lead somewhere, and the page of public names is what the docstrings say."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file of the repository."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link, _ in _LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_document_is_linked() -> None:
    """A reader who starts at the README reaches every page."""
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        links = [
            page.parent / link for link, _ in _LINK.findall(page.read_text(encoding="utf-8")) if link.endswith(".md")
        ]
        waiting += [link for link in links if link.exists()]
    assert not {page.resolve() for page in PAGES} - reached
