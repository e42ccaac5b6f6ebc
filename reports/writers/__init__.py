"""From blocks to text: Markdown for GitHub, one HTML page for a browser, LaTeX tables for a paper."""

MARK = "of a featherpress report"
"""What every such text says of itself, so that the next report may replace it."""
