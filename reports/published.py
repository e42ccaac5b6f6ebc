"""Published detectors, from a small table that comes with the package, each with its source."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One detector as its source describes it; None where the source says nothing.

    Units: AP on the validation set of WIDER FACE in per cent, parameters as printed, milliseconds.
    """

    name: str
    year: int
    params: int
    source: str
    easy: float | None = None
    medium: float | None = None
    hard: float | None = None
    overall: float | None = None
    scale: str = ""
    latency_ms: float | None = None
    machine: str = ""

    @property
    def mean(self) -> float | None:
        """Return the mean of easy, medium and hard, or what the source calls the overall AP where it gives no parts."""
        if self.easy is None or self.medium is None or self.hard is None:
            return self.overall
        return (self.easy + self.medium + self.hard) / 3


@cache
def published_detectors() -> tuple[Published, ...]:
    """Return all detectors of the table, those of fewer parameters first."""
    text = (files("featherpress.reports") / "data" / "published.toml").read_text(encoding="utf-8")
    rows = (Published(**row) for row in tomllib.loads(text)["detector"])
    return tuple(sorted(rows, key=lambda row: (row.params, row.name)))
