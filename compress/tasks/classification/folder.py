"""Classes of images, each in a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from featherpress.compress.data.examples import ExampleDataset
from featherpress.compress.data.sources.class_folders import (
    SPLITS,
    ClassFolder,
    label_of,
    list_classes,
    require_same_classes,
    split_folder,
)
from featherpress.compress.data.subsets import join, open_part, select, spread
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.recipes.kinds import register_task
from featherpress.compress.recipes.required_files import Need
from featherpress.compress.tasks.base import Split
from featherpress.compress.tasks.classification.base import ClassificationTask
from featherpress.compress.tasks.classification.options import FolderData
from featherpress.compress.tasks.classification.scoring import balanced_weights


@register_task("folder")
class FolderTask(ClassificationTask):
    """Classifiers of images that lie in a folder for each class."""

    Data = FolderData
    data: FolderData

    @classmethod
    def needs(cls, data: FolderData) -> Iterator[Need]:
        """List the folders of both splits."""
        for key, text, split in data.places:
            root = expand_path(text)
            names = [name for name in SPLITS[split] if (root / name).is_dir()]
            yield Need(key=key, text=text, path=root / (names or SPLITS[split])[0], is_folder=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the classes: as the recipe does, or else by the folders of the first root, sorted."""
        return self.data.classes or list_classes(split_folder(expand_path(self.data.roots[0]), "train"))

    def open(self, split: Split) -> ExampleDataset:
        """Open a split; `holdout` is what is held out of `train`, or else `val`.

        Errors: `DataError` where roots or splits differ in their classes, as `ClassFolder`.
        """
        places = [(split_folder(expand_path(text), which), which) for _, text, which in self.data.places]
        for folder, _ in places[1:]:
            require_same_classes(places[0][0], folder)

        def opened(part: str) -> ExampleDataset:
            if part == "val":
                return self._open(places[-1:], self.data.validation_images)
            return self._open(places[:-1], self.data.train_images)

        found: ExampleDataset = open_part(split, self.data.holdout, opened)
        return found

    def _open(self, places: list[tuple[Path, str]], limit: int) -> ExampleDataset:
        folders = [ClassFolder(folder, classes=self.classes) for folder, _ in places]
        found = folders[0] if len(folders) == 1 else join(*folders)
        return select(found, spread(len(found), limit)) if limit else found

    def class_weights(self) -> Tensor | None:
        """Return the weight of each class; `balanced` counts the training images."""
        if self.data.class_weights != "balanced":
            return super().class_weights()
        training = self.open("train")
        return balanced_weights([label_of(training, row) for row in range(len(training))], len(self.classes))

    def described(self) -> dict[str, Any]:
        """Return the roots, as the recipe has them."""
        return {"roots": list(self.data.roots)}
