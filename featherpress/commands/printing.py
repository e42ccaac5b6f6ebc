"""What commands print: records as JSON or as text, highlighted sentences, and a job's summary page."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from featherpress.errors import FeatherpressError, FileError
from featherpress.escaping import shorten, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Let what other people's code prints go to stderr, from Python and from below: stdout may be our JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def junit_on_error(wanted: bool, name: str) -> Iterator[None]:
    """Let a CI's report say what went wrong where there is no result: the error goes on as it is."""
    try:
        yield
    except (FeatherpressError, OSError) as error:
        if wanted:
            from featherpress.budgets.views.junit import render_error

            sys.stdout.write(render_error(name, error))
        raise


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
    from rich.text import Text

    class PlainConsole(Console):
        """Writes out what steers a terminal; colours are its own."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text, lines=True), **options)

    return PlainConsole(markup=False)


def echo(text: str, *, nl: bool = True) -> None:
    """Print text, with what would steer a terminal written out."""
    typer.echo(visible(text, lines=True), nl=nl)


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
    complain(f"{message[:1].lower()}{message[1:]}; see `{path} --help`")


def complain(sentence: str) -> None:
    """Say on standard error why a command ended; where that is closed or full the exit code says it alone."""
    with suppress(OSError):
        sys.stderr.write(f"featherpress: {visible(shorten(sentence))}\n")
        sys.stderr.flush()


def print_closing(*lines: str) -> None:
    """Print the last lines of a run; only the first process does."""
    from featherpress.compress.runtime.ranks import is_leader

    if is_leader():
        echo("\n".join(lines))


def append_step_summary(markdown: str) -> None:
    """Add to the summary page of a GitHub job, where there is one.

    Errors: FileError if it cannot be written.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(markdown + "\n")
    except OSError as error:
        raise FileError(f"cannot write the job summary that GITHUB_STEP_SUMMARY names, {path}: {error}") from error
