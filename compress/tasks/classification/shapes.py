"""Drawn shapes told apart."""

from typing import Any

from torch import nn

from featherpress.compress.data.synthetic.shapes import SHAPE_NAMES, Shapes
from featherpress.compress.recipes.kinds import register_task
from featherpress.compress.tasks.base import Split
from featherpress.compress.tasks.classification.base import ClassificationTask
from featherpress.compress.tasks.classification.options import ShapesData

_VALIDATION_SEED = 1_000_003
CENTRED = ((0.5,) * 3, (0.5,) * 3)


@register_task("shapes")
class ShapesTask(ClassificationTask):
    """Classifiers of drawn shapes; unless a recipe says otherwise, mean and deviation of 0.5 are taken out."""

    Data = ShapesData
    data: ShapesData

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the shapes."""
        return SHAPE_NAMES[: self.data.classes]

    def normalization(self, model: nn.Module) -> tuple[Any, Any]:
        """Centre colours: drawn ones are no photographs."""
        return CENTRED

    def open(self, split: Split) -> Shapes:
        """Draw a split; validation and held-out images come from a seed of their own."""
        train = split == "train"
        length = self.data.train_images if train else self.data.validation_images
        seed = self.data.seed + (0 if train else _VALIDATION_SEED)
        return Shapes(length=length, seed=seed, size=self.data.sizes[0], classes=self.data.classes)
