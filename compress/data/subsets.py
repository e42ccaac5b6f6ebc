"""Data sets made of others: two joined, or some images of one."""

from collections.abc import Sequence

from featherpress.compress.data.samples import FaceDataset, Sample
from featherpress.errors import UsageError


class JoinedFaces:
    """Two data sets, one after the other, under one numbering."""

    def __init__(self, first: FaceDataset, second: FaceDataset) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> Sample:
        data, row = self.find(index)
        return data[row]

    def name(self, index: int) -> str:
        """Name an image of either."""
        data, row = self.find(index)
        return data.name(row)

    def find(self, index: int) -> tuple[FaceDataset, int]:
        """Say which data set an image is of, and its number there."""
        return (self.first, index) if index < len(self.first) else (self.second, index - len(self.first))


class SelectedFaces:
    """The images of a data set with these numbers, in this order."""

    def __init__(self, dataset: FaceDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def name(self, index: int) -> str:
        """Name an image as its own data set does."""
        return self.dataset.name(self.indices[index])

    def find(self, index: int) -> tuple[FaceDataset, int]:
        """Give the whole data set, and an image's number there."""
        return self.dataset, self.indices[index]


def hold_out(dataset: FaceDataset, count: int) -> tuple[SelectedFaces, SelectedFaces]:
    """Split a data set into what is trained on and `count` images to choose by, spread evenly over it.

    Errors: `UsageError` when nothing would be left to train on.
    """
    total = len(dataset)
    if not 0 < count < total:
        raise UsageError(f"expected to hold out 1 to {total - 1} of {total} images, got {count}")
    held = [(2 * number + 1) * total // (2 * count) for number in range(count)]
    rest = sorted(set(range(total)) - set(held))
    return SelectedFaces(dataset, rest), SelectedFaces(dataset, held)
