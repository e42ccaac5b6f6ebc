"""What commands print: records as JSON or as text, and highlighted sentences."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def show(record: dict[str, Any], as_json: bool, render: Callable[[], "RenderableType"]) -> None:
    """Print a record as JSON, or as text."""
    if as_json:
        print_json(record)
    else:
        plain_console().print(render())


def print_json(record: dict[str, Any]) -> None:
    """Print a record as indented JSON."""
    typer.echo(json.dumps(record, indent=2))


def plain_console() -> "Console":
    """Print plain text: names of modules and files are nobody's markup."""
    from rich.console import Console

    return Console(markup=False)


def say(console: "Console", text: str) -> None:
    """Print a highlighted paragraph."""
    console.print(f"\n{text}\n", style="bold", markup=False, highlight=False)


def print_usage_error(error: Any) -> None:
    """State in one sentence which words of a command line make no sense, or show the help that was asked for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    path = error.ctx.command_path if error.ctx else "featherpress"
    sys.stderr.write(f"featherpress: {message[:1].lower()}{message[1:]}; see `{path} --help`\n")


def print_closing(*lines: str) -> None:
    """Print the last lines of a run; only the first process does."""
    from featherpress.compress.runtime.run_folder import is_leader

    if is_leader():
        typer.echo("\n".join(lines))
