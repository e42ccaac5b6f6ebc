"""A folder for each class: what is read, in which order, and what is refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherpress.compress.data.sources.class_folders import (
    ClassFolder,
    require_same_classes,
    split_folder,
)
from featherpress.errors import DataError


def draw(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), colour, np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three and two images."""
    for number, name in enumerate(("bees/2.png", "bees/1.png", "ants/b/9.PNG", "ants/a.png", "bees/3.png")):
        draw(tmp_path / "train" / name, 40 * number)
    return tmp_path


def test_classes_and_images_come_sorted(root: Path) -> None:
    """Classes are the folders, sorted; images lie anywhere below, by name; labels follow a given order."""
    data = ClassFolder(root / "train")
    assert data.classes == ("ants", "bees")
    assert [data.name(row) for row in range(len(data))] == [
        "ants/a.png", "ants/b/9.PNG", "bees/1.png", "bees/2.png", "bees/3.png"
    ]  # fmt: skip
    assert [int(data[row].target["labels"]) for row in range(5)] == [0, 0, 1, 1, 1]
    assert data[3].image.shape == (3, 40, 50)
    assert int(data[3].image.max()) == 0
    turned = ClassFolder(root / "train", classes=("bees", "ants"))
    assert [turned.label(row) for row in range(5)] == [0, 0, 0, 1, 1]


def test_a_limit_takes_images_of_every_class(root: Path) -> None:
    """Fewer images are spread over the classes, not the first ones."""
    data = ClassFolder(root / "train", limit=2)
    assert [data.name(row).split("/")[0] for row in range(2)] == ["ants", "bees"]


def test_what_is_no_image_is_counted_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Notes, hidden files and hidden folders are passed over, in a warning."""
    (root / "train" / "ants" / "notes.txt").write_text("x")
    (root / "train" / ".DS_Store").write_text("x")
    (root / "train" / ".cache").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(ClassFolder(root / "train")) == 5
    said = [each.message for each in caplog.records if str(root) in each.message]
    assert said == [f"passed over 3 files in {root / 'train'} that are no images: .DS_Store, .cache, ants/notes.txt"]


def test_a_class_without_images_is_refused(root: Path) -> None:
    """An empty folder is named."""
    (root / "train" / "wasps").mkdir()
    with pytest.raises(DataError, match=r"^expected images of the class 'wasps' in .*/wasps, found none$"):
        ClassFolder(root / "train")


def test_an_image_without_a_class_is_refused(root: Path) -> None:
    """An image beside the folders is named."""
    draw(root / "train" / "stray.png")
    with pytest.raises(DataError, match=r"^.*/train/stray.png: expected an image in the folder of its class"):
        ClassFolder(root / "train")


def test_classes_that_are_not_in_the_list_are_refused(root: Path) -> None:
    """A folder that a given list does not name, and a name without a folder."""
    with pytest.raises(DataError, match=r"/train/bees: no class is called 'bees'; did you mean 'bee'\?"):
        ClassFolder(root / "train", classes=("ants", "bee"))
    with pytest.raises(DataError, match=r"expected a folder for the class 'wasps' in .*, found ants, bees"):
        ClassFolder(root / "train", classes=("ants", "bees", "wasps"))


def test_splits_of_other_classes_are_refused(root: Path) -> None:
    """A class that one split alone has is named, and the nearest that the other has."""
    for name in ("bees", "ant"):
        draw(root / "val" / name / "1.png")
    with pytest.raises(
        DataError, match=r"^the class 'ants' has a folder in .*train and none in .*val, where .* 'ant'$"
    ):
        require_same_classes(root / "train", root / "val")
    (root / "val" / "ant").rename(root / "val" / "ants")
    require_same_classes(root / "train", root / "val")
    draw(root / "val" / "wasps" / "1.png")
    with pytest.raises(DataError, match=r"^the class 'wasps' has a folder in .*val and none in .*train$"):
        require_same_classes(root / "train", root / "val")


def test_the_folder_of_a_split_is_looked_for(root: Path) -> None:
    """Its usual names are tried; where none is there, the sentence says what is."""
    assert split_folder(root, "train") == root / "train"
    with pytest.raises(DataError, match=r"^expected a folder val or valid or validation .*, found train$"):
        split_folder(root, "val")
    with pytest.raises(DataError, match=r"found no such folder$"):
        split_folder(root / "gone", "val")
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"found nothing$"):
        split_folder(root / "empty", "val")
    (root / "valid").mkdir()
    assert split_folder(root, "val") == root / "valid"
    with pytest.raises(DataError, match=r"^expected a folder for each of two or more classes in .*valid, found none$"):
        ClassFolder(root / "valid")


def test_a_broken_image_is_one_sentence(root: Path) -> None:
    """It is named when it is read."""
    (root / "train" / "ants" / "a.png").write_bytes(b"\x89PNG nothing")
    data = ClassFolder(root / "train")
    with pytest.raises(DataError, match=r"expected a whole image in .*ants/a.png"):
        data[0]
    with pytest.raises(DataError, match=r"ants/a\.png"):
        data.check(0)
