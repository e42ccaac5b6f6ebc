"""What the library says while it works: to standard error, and to a file in a run's folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from featherpress.compress.runtime.run_folder import is_leader

_LOGGER = logging.getLogger("featherpress")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment, so that a progress bar can lend it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _FileHandler(logging.FileHandler):
    """Writes to a file while that can be written; a full disk is said where something is lost, not here."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def log_to_stderr() -> None:
    """Send what the library says to standard error, once however often it is asked for."""
    if not any(isinstance(handler, _StderrHandler) for handler in _LOGGER.handlers):
        _LOGGER.addHandler(_StderrHandler())
    # Of the processes of one run, one tells; what goes wrong, all do.
    _LOGGER.setLevel(logging.INFO if is_leader() else logging.WARNING)


@contextmanager
def log_into(file: Path) -> Iterator[None]:
    """Append what the library says to a file while the context lasts, each line with its time; one process does."""
    if not is_leader():
        yield
        return
    handler = _FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        handler.close()
