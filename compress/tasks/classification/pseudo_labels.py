"""Images without labels, of which a teacher says the class."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from featherpress.compress.data.samples import ImageDataset
from featherpress.compress.data.sources.class_folders import LabelledImages
from featherpress.compress.data.transforms import Transforms
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.runtime.run_folder import is_leader
from featherpress.compress.tasks.classification.scoring import predict_classes
from featherpress.files import write_json
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
    content = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    known: dict[str, str] = content.get("labels", {})
    if content.get("asked") != asked or not known.keys() <= set(names):
        blank = LabelledImages(photographs, [0] * len(names))
        found, _ = predict_classes(
            teacher, blank, range(len(names)), prepare=prepare, takes=takes, label="labelling images"
        )
        known = {name: classes[number] for name, number in zip(found.names, found.predicted.tolist(), strict=True)}
        if is_leader():
            write_json(record, {"schema": "featherpress.labels/1", "asked": asked, "labels": known})
    return [classes.index(known.get(name, classes[0])) for name in names]
