"""The command line: every command parses, calls one function of the library, prints, and exits with its code.

Exit codes are those of `featherpress.errors`.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from featherpress import __version__
from featherpress.commands.audits import audit, diff, fit
from featherpress.commands.deployment import bench, export
from featherpress.commands.detecting import detect, evaluate
from featherpress.commands.gating import gate
from featherpress.commands.printing import complain, print_usage_error
from featherpress.commands.pruning import prune
from featherpress.commands.reporting import demo, report
from featherpress.commands.sweeping import sweep
from featherpress.commands.training import distill, preflight, train
from featherpress.commands.zoo import models_app
from featherpress.compress.runtime.logs import log_to_stderr
from featherpress.errors import FeatherpressError, FileError, UsageError
from featherpress.stopping import exit_code_of, stop_on_signals

app = typer.Typer(
    help="Distillation and parameter budgeting for PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


_STOPPED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

# What typer raises on words it does not understand; where that class lives depends on its version.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line; a user's mistake is one sentence and an exit code, never a traceback."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that a console's encoding lacks are written out
        sys.stdout.reconfigure(errors="backslashreplace")
    stop_on_signals()
    log_to_stderr()
    # Threads that spin for long while they wait cost threefold beside other work; read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    sys.exit(_run())


def _run() -> int:
    """Run the command that was given; return its exit code."""
    try:
        code = int(app(prog_name="featherpress", standalone_mode=False) or 0)
        sys.stdout.flush()  # while what is full can still be named
        if code == _STOPPED:  # typer caught the signal, whichever it was
            raise KeyboardInterrupt
    except _CommandLineError as error:
        print_usage_error(error)
        return UsageError.exit_code
    except (typer.Abort, KeyboardInterrupt):
        complain("stopped before it was done; the same command begins again")
        return exit_code_of(None)
    except FeatherpressError as error:
        complain(str(error))
        return error.exit_code
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):  # of which typer makes the code of a failed check
            raise
        _drop_output()
        return FileError.exit_code
    except OSError as error:
        _drop_output()
        if not isinstance(error, BrokenPipeError):  # whoever reads has read enough
            # Files are named by what writes them.
            where = error.filename or ("standard output cannot be written" if error.errno in _FULL else "")
            complain(f"{where}: {error.strerror or error}" if where else error.strerror or str(error))
        return FileError.exit_code
    except (MemoryError, RuntimeError) as error:
        wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
        if not isinstance(error, MemoryError) and not re.search("(?i)out of memory|can't allocate memory", str(error)):
            raise
        complain(
            f"there is too little memory{f' for {wanted[1]}' if wanted else ''}: smaller images or batches take less"
        )
        return UsageError.exit_code
    return code


def _open_closed_streams() -> None:
    """Let what is printed to a stream that the caller closed go nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _drop_output() -> None:
    """Let Python not try again, as it ends, to write what could not be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"featherpress {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distillation and parameter budgeting for PyTorch models."""


#: Commands by who needs them, in the order of the help.
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Try: the whole path, and the trained model that is included": (demo, detect),
    "Audit: what models cost, and whether they keep their budget": (audit, diff, fit, prune),
    "Distil: train a small model with a large one as its teacher": (distill, sweep, preflight, train, export),
    "Report: how good, how fast, and whether the teacher helped": (evaluate, gate, bench, report),
}

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(models_app, name="models", rich_help_panel="Audit: what models cost, and whether they keep their budget")


if __name__ == "__main__":
    main()
