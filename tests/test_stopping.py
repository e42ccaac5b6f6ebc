"""Signals that ask to stop: one exception, repeats that disturb nothing, and the exit code of each."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from featherpress.stopping import Stop, defer_signals, exit_code_of, stop_on_signals

pytestmark = pytest.mark.usefixtures("_handlers_put_back")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_each_signal_stops_once(name: str, code: int) -> None:
    """A second signal says nothing new while what the first interrupted is put in order; each has its code."""
    stop_on_signals()
    number = getattr(signal, name)
    with pytest.raises(Stop) as stopped:
        signal.raise_signal(number)
    signal.raise_signal(number)
    assert exit_code_of(stopped.value) == code
    assert exit_code_of(KeyboardInterrupt()) == exit_code_of(None) == code


def test_what_is_ignored_stays_so() -> None:
    """Under nohup a closed terminal stops nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signals()
    signal.raise_signal(signal.SIGHUP)


def test_a_block_is_whole() -> None:
    """A signal inside a block is raised after it, or never where it is dropped; what fails fails with its own error."""
    stop_on_signals()
    done = []

    def work(error: Exception | None) -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGTERM)
            if error:
                raise error
            done.append("whole")

    with pytest.raises(Stop) as stopped:
        work(None)
    assert (done, stopped.value.number) == (["whole"], signal.SIGTERM)
    with defer_signals(drop=True):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(ValueError, match="its own"):
        work(ValueError("its own"))


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_command_ends_in_one_sentence(
    run_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    """Whatever command is stopped says so, and exits by the signal."""
    monkeypatch.setattr(
        "featherpress.commands.zoo._list_model", lambda *_, **__: signal.raise_signal(getattr(signal, name))
    )
    ending = run_command("models")
    assert (ending.code, ending.out) == (code, "")
    assert ending.err == "featherpress: stopped before it was done; the same command begins again\n"
