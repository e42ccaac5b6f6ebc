"""What continuous integration reads: the job's summary page."""

import os
from pathlib import Path

from featherpress.errors import FileError

VARIABLE = "GITHUB_STEP_SUMMARY"


def append_step_summary(markdown: str) -> None:
    """Add to the summary of a GitHub job, where there is one.

    Errors: FileError if it cannot be written.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(markdown + "\n")
    except OSError as error:
        raise FileError(f"cannot write the job summary that {VARIABLE} names, {path}: {error}") from error
