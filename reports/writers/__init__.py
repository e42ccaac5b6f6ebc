"""From blocks to text: Markdown for GitHub, one HTML page for a browser, LaTeX tables for a paper."""
