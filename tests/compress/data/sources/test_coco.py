"""Boxes in COCO's format: what is read, and errors that name their place."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from featherpress.compress.data import CocoFaces, require_sound
from featherpress.compress.data.sources.coco import read_coco
from featherpress.compress.tasks.detection.options import FaceData
from featherpress.errors import DataError, UsageError

POINTS = [11, 21, 2, 39, 21, 2, 25, 30, 1, 15, 50, 2, 35, 50, 2]
FACE = {"image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40]}
CATEGORY = {"id": 3, "name": "face"}
A = {"id": 1, "file_name": "a.jpg"}


def content(**changed: Any) -> dict[str, Any]:
    return {"images": [A], "annotations": [FACE], "categories": [CATEGORY]} | changed


def write(folder: Path, labels: object, *, images: str = "images") -> Path:
    """Write labels, and one image of 64 x 80 pixels called a.jpg."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 80), "red").save(folder / images / "a.jpg")
    (folder / "annotations.json").write_text(labels if isinstance(labels, str) else json.dumps(labels))
    return folder


@pytest.mark.parametrize("images", [".", "images"])
def test_boxes_landmarks_and_crowds_are_read(tmp_path: Path, images: str) -> None:
    """Corners, five visible points, crowds and empty boxes as ignored; images lie beside the file or in `images`."""
    rows = [
        FACE | {"keypoints": POINTS},
        FACE | {"bbox": [0, 0, 60, 70], "iscrowd": 1},
        FACE | {"bbox": [5, 5, 0, 9]},
        FACE | {"keypoints": [*POINTS[:-1], 0]},
        FACE | {"keypoints": POINTS[:9]},
    ]
    data = CocoFaces(write(tmp_path, content(annotations=rows), images=images))
    faces = data[0].objects
    assert data.name(0) == "a.jpg"
    assert data[0].image.shape == (3, 80, 64)
    assert faces.boxes[0].tolist() == [10, 20, 40, 60]
    assert faces.ignored.tolist() == [False, True, True, False, False]
    assert faces.has_landmarks.tolist() == [True, False, False, False, False]
    assert faces.landmarks[0].tolist() == [11, 21, 39, 21, 25, 30, 15, 50, 35, 50]
    assert not faces.landmarks[1:].any()


def test_images_without_faces_stay_in_their_order(tmp_path: Path) -> None:
    """An image that no annotation names has no face, and is still there; `limit` keeps the first."""
    images = [A | {"id": "x", "file_name": "b/b.png"}, A]
    data = CocoFaces(write(tmp_path, content(images=images)))
    assert [data.name(i) for i in range(len(data))] == ["b/b.png", "a.jpg"]
    assert [len(data.labelled[i].objects) for i in range(2)] == [0, 1]
    assert len(CocoFaces(tmp_path, limit=1)) == 1
    with pytest.raises(UsageError, match="at least 1 image"):
        CocoFaces(tmp_path, limit=0)


def test_the_category_is_chosen(tmp_path: Path) -> None:
    """The only category, the one called face in any case, or the one named; anything else is asked for."""
    person, head = {"id": 1, "name": "person"}, {"id": 3, "name": "Head"}
    rows = [FACE, FACE | {"category_id": 1}, FACE | {"category_id": 1}]

    def count(categories: list[dict[str, Any]], category: str = "") -> int:
        path = write(tmp_path, content(categories=categories, annotations=rows)) / "annotations.json"
        return len(read_coco(path, category=category)[0].objects)

    assert count([head]) == 1
    assert count([person, {"id": 3, "name": "FACE"}]) == 1
    assert count([person, head], "person") == 2
    for categories, category, says in (
        ([person, head], "", "got 'person', 'Head'; say which one holds the faces"),
        ([person, head], "cat", "expected one category 'cat', got 'person', 'Head'"),
        ([], "", "got none"),
    ):
        with pytest.raises(DataError, match=says):
            count(categories, category)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([], "expected an object with images, annotations and categories, got a list"),
        ({"images": [], "annotations": []}, "expected a list under `categories`, got nothing"),
        (content(images={}), "expected a list under `images`, got an object"),
        (content(images=[{"id": 1}]), "image 1: expected the key 'file_name', got id"),
        (content(images=["a.jpg"]), "image 1: expected an object, got text"),
        (content(images=[A, A | {"file_name": "b.jpg"}]), "image 2: expected a new image, got the id 1 a second time"),
        (content(images=[A, A | {"id": 2}]), "image 2: expected a new image, got the file_name 'a.jpg' a second time"),
        (content(images=[A | {"id": [1]}]), "image 1: expected a number or text as an image's id, got a list"),
        (content(images=[A | {"file_name": "../a.jpg"}]), "image 1: expected a path inside the image folder"),
        (content(images=[A | {"file_name": "/a.jpg"}]), "image 1: expected a path inside"),
        (content(images=[A | {"file_name": "C:\\a.jpg"}]), "image 1: expected a path inside"),
        (content(images=[A | {"file_name": 5}]), "image 1: expected a path inside"),
        (content(annotations=[{"image_id": 1, "bbox": []}]), "annotation 1: expected the key 'category_id'"),
        (content(annotations=[FACE, FACE | {"image_id": 9}]), "annotation 2: expected an image_id of `images`, got 9"),
        (content(annotations=[FACE | {"bbox": [1, 2, 3]}]), "annotation 1: expected four finite numbers"),
        (content(annotations=[FACE | {"bbox": [1, 2, 3, "x"]}]), "annotation 1: expected four finite numbers"),
        (content(annotations=[FACE | {"bbox": [1, 2, -3, 4]}]), "annotation 1: expected a width and height of at"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "category 1: expected the key 'name'"),
        (json.dumps(content(annotations=[FACE | {"bbox": [1, 2, 3, 0]}])).replace(" 0]", " NaN]"), "four finite"),
        (content(annotations=[FACE | {"keypoints": [None] * 15}]), "annotation 1: expected finite numbers as keyp"),
    ],
)
def test_bad_labels_are_named_by_their_place(tmp_path: Path, labels: object, says: str) -> None:
    """Every mistake ends in one sentence with the file, the place in it and what was expected."""
    path = write(tmp_path, labels) / "annotations.json"
    with pytest.raises(DataError) as caught:
        read_coco(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert says in message
    assert "\n" not in message


def test_images_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """A missing image, a link out of the folder and a box wholly outside: each with its place, and all are counted."""
    Image.new("RGB", (64, 80)).save(tmp_path / "elsewhere.png")
    root = tmp_path / "data"
    images = [A, A | {"id": 2, "file_name": "gone.jpg"}, A | {"id": 3, "file_name": "link.png"}]
    rows = [FACE, FACE | {"bbox": [64, 0, 9, 9]}]
    write(root, content(images=images, annotations=rows))
    (root / "images" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    data = CocoFaces(root)
    for index, says in enumerate(("annotation 2: .* wholly outside", "image 2: .*found nothing", "image 3: .*a link")):
        with pytest.raises(DataError, match=says):
            data[index]
    with pytest.raises(DataError, match=r"annotation 2: .*; 2 more of 3 images cannot be used"):
        require_sound(data)


def test_a_folder_without_labels_is_named(tmp_path: Path) -> None:
    """The error says whether the folder or the file in it is missing."""
    with pytest.raises(DataError, match="found no such folder"):
        CocoFaces(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"expected annotations\.json in .*, found none"):
        CocoFaces(tmp_path)


def test_a_recipe_reads_each_split_from_its_folder(tmp_path: Path) -> None:
    """`kind = "coco"` opens train and val apart, with a category and a limit."""
    from featherpress.compress.tasks.detection.data import open_data

    write(tmp_path / "train", content(images=[A, A | {"id": 2, "file_name": "b.jpg"}]))
    write(tmp_path / "val", content(categories=[CATEGORY | {"name": "head"}, {"id": 1, "name": "tail"}]))
    recipe = FaceData(kind="coco", root=str(tmp_path), category="HEAD")
    assert open_data(recipe, "val").name(0) == "a.jpg"
    with pytest.raises(DataError, match="expected one category 'HEAD'"):
        open_data(recipe, "train")
    assert len(open_data(FaceData(kind="coco", root=str(tmp_path), train_images=1), "train")) == 1
    for wrong in ({"kind": "coco"}, {"kind": "widerface", "root": "x", "category": "face"}):
        with pytest.raises(ValueError, match=r"data needs a `root`|only coco data"):
            FaceData.model_validate(wrong)
