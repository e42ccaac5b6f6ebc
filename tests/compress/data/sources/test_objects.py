"""Labelled images in whatever layout they lie: which is found, and what is said where none is."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from featherpress.compress.data import CocoFaces, open_objects, require_sound
from featherpress.errors import DataError

CONTENT: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.jpg"}],
    "annotations": [
        {"image_id": 7, "category_id": 0, "bbox": [1, 2, 30, 40]},
        {"image_id": 7, "category_id": 5, "bbox": [5, 5, 9, 9]},
    ],
    "categories": [{"id": 5, "name": "dog"}, {"id": 0, "name": "cat"}],
}


@pytest.mark.parametrize(
    ("file", "image", "split"),
    [
        ("val/annotations.json", "val/a.jpg", "val"),
        ("valid/_annotations.coco.json", "valid/a.jpg", "val"),
        ("result.json", "images/a.jpg", ""),
        ("labels.json", "data/a.jpg", ""),
        ("val/labels.json", "val/data/a.jpg", "val"),
        ("annotations/instances_val2017.json", "val2017/a.jpg", "val"),
        ("annotations/instances_Train.json", "images/Train/a.jpg", "train"),
        ("annotations/instances_default.json", "images/default/a.jpg", ""),
        ("annotations/val.json", "images/a.jpg", "val"),
        ("train.json", "images/a.jpg", "train"),
        ("val/anything.json", "val/a.jpg", "val"),
    ],
)
def test_coco_is_found_where_tools_put_it(tmp_path: Path, file: str, image: str, split: str) -> None:
    """Ours, Roboflow's, Label Studio's, FiftyOne's, COCO's own and CVAT's; categories in the file's order."""
    for name in (file, image):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(json.dumps(CONTENT), encoding="utf-16" if "result" in file else "utf-8-sig")
    Image.new("RGB", (64, 80)).save(tmp_path / image)
    data = open_objects(tmp_path, split)
    require_sound(data)
    assert data.categories == ("dog", "cat")
    assert data[0].objects.labels.tolist() == [1, 0]
    assert data.images / data.name(0) == tmp_path / image
    chosen = open_objects(tmp_path, split, categories=["CAT"])
    assert (chosen.categories, chosen[0].objects.boxes.tolist()) == (("cat",), [[1, 2, 31, 42]])
    assert chosen.labelled[0].object_places == (1,)
    assert chosen.left_out == {"boxes of 'dog'": 1}


def test_categories_are_numbered_as_asked(tmp_path: Path) -> None:
    """In the order given; one that is not there, or comes twice, is refused with those that are."""
    (tmp_path / "annotations.json").write_text(json.dumps(CONTENT))
    assert open_objects(tmp_path, categories=["cat", "dog"]).labelled[0].objects.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"expected one category 'cow', got 'dog', 'cat'"):
        open_objects(tmp_path, categories=["cow"])
    with pytest.raises(DataError, match="every category once"):
        open_objects(tmp_path, categories=["cat", "Cat"])


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    """Which of them is meant cannot be known."""
    (tmp_path / "annotations").mkdir()
    for year in (2014, 2017):
        (tmp_path / f"annotations/instances_val{year}.json").write_text(json.dumps(CONTENT))
    with pytest.raises(DataError, match=r"one COCO file for val .*instances_val2014.json, .*instances_val2017.json"):
        open_objects(tmp_path, "val")


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    """Every layout is named where none fits; a JSON of something else is none."""
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "other.json").write_text("[1]")
    with pytest.raises(DataError) as caught:
        open_objects(tmp_path, "val")
    for layout in ("val/annotations.json", "_annotations.coco.json", "data.yaml", "ImageSets/Main/val.txt"):
        assert layout in str(caught.value)


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        ({"result.json": json.dumps(CONTENT)}, "COCO's format"),
        ({"classes.txt": "cat", "labels/a.txt": ""}, "YOLO's text files"),
        ({"Annotations/a.xml": "<annotation/>"}, "Pascal VOC's format"),
    ],
)
def test_an_undivided_folder_says_how_to_divide_it(tmp_path: Path, files: dict[str, str], layout: str) -> None:
    """As Label Studio and CVAT export a project: there are labels, only no split of them."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.jpg")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(
        DataError, match=rf"split 'train' in .*, found \d images in {layout}.* without such a split: put"
    ):
        open_objects(tmp_path, "train")


def test_faces_are_found_in_every_layout(tmp_path: Path) -> None:
    """A folder without the split is taken as a whole where it may be."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("hat\nface\n")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.1 0.1\n")
    Image.new("RGB", (64, 80)).save(tmp_path / "images" / "a.jpg")
    data = CocoFaces(tmp_path, "val", anywhere=True)
    assert data.faces(0).boxes.tolist() == [[16, 20, 48, 60]]
    assert data.faces(0).labels.tolist() == [0]
    with pytest.raises(DataError, match="of the split 'val'"):
        CocoFaces(tmp_path, "val")
