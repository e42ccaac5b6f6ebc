"""Images without labels, of which a teacher says the class."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from featherpress.compress.data.samples import ImageDataset
from featherpress.compress.data.sources.class_folders import LabelledImages
from featherpress.compress.data.sources.unlabelled import kept_labels
from featherpress.compress.data.transforms import Transforms
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.tasks.classification.scoring import predict_classes
from featherpress.models.inputs import ModelInput


def label_images(
    teacher: nn.Module,
    photographs: ImageDataset,
    classes: Sequence[str],
    *,
    takes: ModelInput,
    prepare: Transforms,
    record: Path,
) -> list[int]:
    """Return the teacher's class of each image, 0 for one that cannot be read, which training skips.

    They are kept in a record, so that a resumed run has the same; another teacher, or other images, are asked again.

    Errors: `DataError` where no image can be read.
    """
    names = [photographs.name(index) for index in range(len(photographs))]
    asked = {"teacher": fingerprint(teacher), "classes": list(classes), "images": len(names)}

    def look() -> dict[str, str]:
        blank = LabelledImages(photographs, [0] * len(names))
        found, _ = predict_classes(
            teacher, blank, range(len(names)), prepare=prepare, takes=takes, label="labelling images"
        )
        return {name: classes[number] for name, number in zip(found.names, found.predicted.tolist(), strict=True)}

    known = kept_labels(record, asked, fits=lambda known: known.keys() <= set(names), label=look)
    return [classes.index(known.get(name, classes[0])) for name in names]
