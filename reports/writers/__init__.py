"""From blocks to text: Markdown for GitHub, one HTML page for a browser, LaTeX tables for a paper."""

from featherpress.reports.writers.latex import to_latex
from featherpress.reports.writers.markdown import to_markdown
from featherpress.reports.writers.page import to_page

__all__ = ["to_latex", "to_markdown", "to_page"]
