"""What the library says while it works: to standard error, and to a file in a run's folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["log_into", "log_to_stderr"]

_LOGGER = logging.getLogger("featherpress")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment, so that a progress bar can lend it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def log_to_stderr() -> None:
    """Send what the library says to standard error, once however often it is asked for."""
    if not any(isinstance(handler, _StderrHandler) for handler in _LOGGER.handlers):
        _LOGGER.addHandler(_StderrHandler())
    _LOGGER.setLevel(logging.INFO)


@contextmanager
def log_into(file: Path) -> Iterator[None]:
    """Append what the library says to a file while the context lasts, each line with its time."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        handler.close()
