"""Signals that ask a program to stop: Ctrl-C, a scheduler's SIGTERM, and the SIGHUP of a closed terminal."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_REPEATED = 5.0
"""Seconds after a signal in which further ones say nothing new: what it interrupted is being put in order."""


_last: list[int] = [signal.SIGINT]
"""What arrived last: not every library hands on the exception itself."""


class Stop(KeyboardInterrupt):
    """The signal that asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_code_of(stop: BaseException | None) -> int:
    """Return the exit code of a program that a signal ended: 128 and its number, the last one's unless it is known."""
    return 128 + (stop.number if isinstance(stop, Stop) else _last[0])


def stop_on_signals() -> None:
    """Let every signal that asks to stop raise `Stop`, once; those that are ignored, as under nohup, stay so."""
    arrived = [-_REPEATED]

    def stop(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        repeated, arrived[0] = now - arrived[0] < _REPEATED, now
        if not repeated:
            _last[0] = number
            raise Stop(number)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)


@contextmanager
def defer_signals(*, drop: bool = False) -> Iterator[None]:
    """Let no signal interrupt the block: the first is raised when it has succeeded, unless told to `drop` them.

    Signals that Python does not handle, as SIGTERM in a program of others, are left to the system.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    handlers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if noted and not drop:
        handlers[noted[0]](noted[0], None)
