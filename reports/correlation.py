"""How far a student's features follow its teacher's, level by level, as the run recorded it."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from featherpress.errors import FileError
from featherpress.reports.reading import Fields, read_json

# What a record may have rounded away before it contradicts itself.
TOLERANCE = 5e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Pearson's r with each of the teacher's channels that vary, by role, at one level of the pyramid."""

    stride: int
    channels: dict[str, tuple[float, ...]]

    def mean(self, role: str) -> float | None:
        """Return the mean over the channels, None where nothing varies or the role was not measured."""
        found = self.channels.get(role, ())
        return statistics.fmean(found) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """All levels, and how they were measured."""

    levels: tuple[Level, ...]
    method: str
    images: int | None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that were measured, the control first."""
        return tuple(role for role in ("control", "student") if any(role in level.channels for level in self.levels))


def read_correlation(file: Path) -> Correlation | None:
    """Read eval/correlation.json.

    Errors: `FileError` also when a level's mean is not that of its channels.
    """
    fields = read_json(file, "correlation")
    if fields is None:
        return None
    return Correlation(
        levels=tuple(_level(row) for row in fields.children("levels")),
        method=fields.optional("method", fields.text) or "",
        images=fields.optional("images", fields.integer),
    )


def _level(fields: Fields) -> Level:
    channels = fields.child("channels")
    roles = [role for role in ("control", "student") if channels.values.get(role) is not None]
    level = Level(stride=fields.integer("stride"), channels={role: channels.numbers(role) for role in roles})
    for role in roles:
        mean, told = level.mean(role), fields.optional(role, fields.number)
        if (mean is None) != (told is None) or not math.isclose(mean or 0, told or 0, abs_tol=TOLERANCE):
            raise FileError(
                f"{fields.file}: expected `{fields.place}.{role}` to be the mean of its channels, {mean}, got {told}; "
                "measure it again."
            )
    return level
