"""What we say about runs: saved records in, Markdown, a page, LaTeX and figures out; torch is never imported here."""

from featherpress.reports.report import write_report
from featherpress.reports.runs import Run, load_run

__all__ = ["Run", "load_run", "write_report"]
