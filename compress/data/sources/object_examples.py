"""Labelled objects as examples: images with boxes and the numbers of their categories."""

from featherpress.compress.data.examples import Example
from featherpress.compress.data.samples import Sample
from featherpress.compress.data.sources.objects import LabelledObjects


class ObjectExamples:
    """The images of a folder with boxes, labels and which of them are ignored.

    Targets: boxes (n, 4) float32 as corners in pixels, labels (n,) int64, ignored (n,) bool.
    """

    def __init__(self, folder: LabelledObjects) -> None:
        self.folder, self.categories = folder, folder.categories

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int, /) -> Example:
        """Read one image; raises DataError where it is broken or does not fit its labels."""
        return example_of(self.folder[index])

    def read_downscaled(self, index: int, side: int) -> Example:
        """Read one image as `LabelledFolder` does, a JPEG smaller where its short side stays `side` or more."""
        return example_of(self.folder.read_downscaled(index, side))

    def name(self, index: int, /) -> str:
        """Name one image."""
        return self.folder.name(index)

    def cache_key(self, index: int, /) -> str:
        """Return a text that changes with an image's file and its labels."""
        return self.folder.cache_key(index)

    def check(self, index: int, /) -> None:
        """Look at the header of an image's file; raises DataError where the image cannot be used."""
        self.folder.check(index)


def example_of(sample: Sample) -> Example:
    """Return an image with its boxes, labels and which are ignored, as an example."""
    objects = sample.objects
    target = {"boxes": objects.boxes, "labels": objects.labels, "ignored": objects.ignored}
    return Example(image=sample.image, target=target, name=sample.name)
