"""The command line: every command parses, calls one function of the library, prints, and exits with its code.

Exit codes are those of `featherpress.errors`.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from featherpress import __version__
from featherpress.commands.audits import audit, diff, fit
from featherpress.commands.deployment import bench, export
from featherpress.commands.detecting import detect, evaluate
from featherpress.commands.gating import gate
from featherpress.commands.printing import print_usage_error
from featherpress.commands.pruning import prune
from featherpress.commands.reporting import demo, report
from featherpress.commands.sweeping import sweep
from featherpress.commands.training import distill, preflight, train
from featherpress.commands.zoo import models_app
from featherpress.compress.runtime.logs import log_to_stderr
from featherpress.errors import FeatherpressError, FileError, UsageError

app = typer.Typer(
    help="Distillation and parameter budgeting for PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


# What typer raises on words it does not understand; where that class lives depends on its version.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line; a user's mistake is one sentence and an exit code, never a traceback."""
    log_to_stderr()
    # Threads that spin for long while they wait cost threefold beside other work; read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        sys.exit(app(prog_name="featherpress", standalone_mode=False) or 0)
    except _CommandLineError as error:
        print_usage_error(error)
        sys.exit(UsageError.exit_code)
    except typer.Abort:
        sys.exit(1)
    except FeatherpressError as error:
        sys.stderr.write(f"featherpress: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"featherpress: {where}{error.strerror or error}\n")
        sys.exit(FileError.exit_code)


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
