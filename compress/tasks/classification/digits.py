"""The handwritten digits that scikit-learn brings."""

from typing import Any

import torch
from torch import Tensor, nn

from featherpress.compress.data.examples import Example
from featherpress.compress.data.subsets import spread
from featherpress.compress.recipes.kinds import register_task
from featherpress.compress.tasks.base import Split
from featherpress.compress.tasks.classification.base import ClassificationTask
from featherpress.compress.tasks.classification.options import DigitsData
from featherpress.compress.tasks.classification.shapes import CENTRED
from featherpress.errors import UsageError

_BRIGHTEST = 16
_EVERY = 4
_DIGITS = 1797


class Digits:
    """Grey images of 8 x 8 pixels as RGB, white on black, in the order in which scikit-learn has them."""

    def __init__(self, pixels: Tensor, labels: Tensor, rows: list[int]) -> None:
        self.pixels, self.labels, self.rows = pixels, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Example:
        row = self.rows[index]
        image = self.pixels[row].expand(3, -1, -1).contiguous()
        return Example(image=image, target={"labels": self.labels[row]}, name=self.name(index))

    def name(self, index: int, /) -> str:
        """Name one image by its digit and its number."""
        return f"{int(self.labels[self.rows[index]])}/{self.rows[index]:04d}"


@register_task("digits")
class DigitsTask(ClassificationTask):
    """Classifiers of handwritten digits; unless a recipe says otherwise, mean and deviation of 0.5 are taken out."""

    Data = DigitsData
    data: DigitsData

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the digits."""
        return tuple("0123456789")

    def normalization(self, model: nn.Module) -> tuple[Any, Any]:
        """Centre grey values: they are no photographs."""
        return CENTRED

    def open(self, split: Split) -> Digits:
        """Read a split; every fourth digit is for validation.

        Errors: `UsageError` where scikit-learn is not installed.
        """
        rows = _rows("train" if split == "train" else "val")
        limit = self.data.train_images if split == "train" else self.data.validation_images
        return _read([rows[row] for row in spread(len(rows), limit or len(rows))])

    def unlabelled_images(self) -> list[Any]:
        """Open the training digits whose labels only a teacher has learned."""
        if not self.data.unlabelled:
            return []
        return [_read(sorted({*_rows("train")} - {*self.open("train").rows}))]

    def teacher_images(self, training: Digits) -> Digits:
        """Return all training digits where some are without labels for the student, or else what it learns from."""
        return _read(_rows("train")) if self.data.unlabelled else training


def _rows(split: str) -> list[int]:
    return [row for row in range(_DIGITS) if (row % _EVERY == 0) == (split == "val")]


def _read(rows: list[int]) -> Digits:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 (no dependency of ours)
    except ImportError as error:
        raise UsageError("digits data comes with scikit-learn: pip install scikit-learn") from error
    loaded = load_digits()
    pixels = torch.from_numpy(loaded.images * 255 / _BRIGHTEST).to(torch.uint8)
    return Digits(pixels, torch.from_numpy(loaded.target).long(), rows)
