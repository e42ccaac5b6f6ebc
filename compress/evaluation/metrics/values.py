"""One value per example, whose mean is the score: what a task of one's own saves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.archives import Arrays, Saved, save_arrays
from featherpress.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExampleValues(Saved):
    """The value of each example by the metric of a name.

    Shapes: values (n,).
    Errors: DataError where there is not one finite value per example, or none at all.
    """

    WHAT: ClassVar[str] = "values"

    metric: str
    names: tuple[str, ...]
    values: NDArray[Any]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names),) or not self.names or not np.isfinite(self.values).all():
            raise DataError(f"Expected a finite value for each of {len(self.names)} examples; got {self.values.shape}.")

    @property
    def mean(self) -> float:
        """The score."""
        return float(self.values.mean())

    def save(self, path: Path) -> None:
        """Write one compressed npz, complete or not at all."""
        save_arrays(
            path, {"metric": np.array(self.metric), "names": np.array(self.names), "values": np.array(self.values)}
        )

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Take the arrays of a saved file."""
        return cls(
            metric=str(arrays["metric"]), names=tuple(map(str, arrays["names"])), values=np.array(arrays["values"])
        )
