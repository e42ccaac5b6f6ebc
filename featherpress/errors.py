"""Every error a user can cause.

Exit codes, of every command:

0  done; within budget; not worse
1  a limit or a check failed; worse
2  a mistake in usage or files; a run that had to stop
130, 143, 129  stopped by Ctrl-C, SIGTERM, SIGHUP
3  cannot be trusted or decided

The command line prints the sentence and exits with `exit_code`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar


class FeatherpressError(Exception):
    """A mistake the user can mend; `str(error)` is one clear sentence: what was expected, what came, what to do."""

    exit_code: ClassVar[int] = 2


class UsageError(FeatherpressError):
    """An argument, a name or a value that cannot be used."""


class FileError(FeatherpressError):
    """A file that is missing, broken or of another kind."""


class BudgetFileError(FileError):
    """A budget file that cannot be read or contradicts itself."""


class RecipeError(FileError):
    """A recipe that cannot be read or contradicts itself."""


class CheckpointError(FileError):
    """Weights that do not fit the model, or that are not safe to load."""


class DataError(FileError):
    """Labels or images that cannot be used."""


class CountError(FeatherpressError):
    """A count that cannot be trusted: an operator without a formula, or sums that disagree."""

    exit_code = 3


class ExportError(FeatherpressError):
    """A model that cannot be exported as it is, or an export that does not compute what the model does."""

    exit_code = 1


class PruneError(FeatherpressError):
    """A model that cannot be cut to its limits: the least of each that can be reached, and what is in the way."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, least: Mapping[str, int] | None = None, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.least = dict(least or {})
        self.reasons = tuple(reasons)


class TrainingError(FeatherpressError):
    """A run that had to stop; its last good state is kept."""


class StoppedError(TrainingError):
    """A run that was told to stop by a signal; its exit code is that signal's."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # type: ignore[misc]
