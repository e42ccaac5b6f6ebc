"""The library's log: on standard error, and in a file of a run's folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from featherpress.compress.runtime.ranks import is_leader
from featherpress.escaping import visible

_LOGGER = logging.getLogger("featherpress")


class _OneLine(logging.Formatter):
    """Writes a message as one line of what can be seen, whatever names stand in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        record.message = visible(record.message)
        return super().formatMessage(record)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current standard error, which a progress bar may have replaced."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_OneLine())

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _FileHandler(logging.FileHandler):
    """Writes to a file and ignores a full disk, which is reported where data is lost."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def log_to_stderr() -> None:
    """Send the library's log to standard error; calling it again changes nothing."""
    if not any(isinstance(handler, _StderrHandler) for handler in _LOGGER.handlers):
        _LOGGER.addHandler(_StderrHandler())
    # The first process of a run logs everything, the others only warnings.
    _LOGGER.setLevel(logging.INFO if is_leader() else logging.WARNING)
    # It warns where there is no home to keep its list of fonts in, and does without.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


@contextmanager
def log_from(level: int) -> Iterator[None]:
    """Leave what is below a level out of the log while the context lasts."""
    before = _LOGGER.level
    _LOGGER.setLevel(level)
    try:
        yield
    finally:
        _LOGGER.setLevel(before)


@contextmanager
def log_into(file: Path) -> Iterator[None]:
    """Append the log to a file, with times, while the context lasts; only the first process does."""
    if not is_leader():
        yield
        return
    handler = _FileHandler(file, encoding="utf-8")
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        handler.close()
