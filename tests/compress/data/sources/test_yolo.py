"""YOLO's text labels: the layouts in which tools write them, and errors that name file and line."""

from pathlib import Path

import pytest
from PIL import Image

from featherpress.compress.data import open_objects, require_sound
from featherpress.errors import DataError

NAMES = "cat\ndog\n"


def write(root: Path, files: dict[str, str], *images: str) -> Path:
    """Write text files as they are, and images of 64 x 80 pixels."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 80)).save(root / name)
    return root


@pytest.mark.parametrize(
    ("files", "image", "split"),
    [
        ({"classes.txt": NAMES, "labels/a.txt": "{}", "notes.json": ""}, "images/a.jpg", ""),
        ({"data.yaml": "names: [cat, dog]\nnc: 2\n", "labels/val/a.txt": "{}"}, "images/val/a.jpg", "val"),
        (
            {"data.yaml": "val: ../valid/images\nnames:\n- cat\n- dog\n", "valid/labels/a.txt": "{}"},
            "valid/images/a.PNG",
            "val",
        ),
        (
            {"data.yaml": "path: /x\nval: images/b\nnames: {0: cat, 1: dog}", "labels/b/a.txt": "{}"},
            "images/b/a.jpg",
            "val",
        ),
        ({"obj.names": NAMES, "obj_train_data/a.txt": "{}", "train.txt": "data/a.jpg"}, "obj_train_data/a.jpg", ""),
        ({"train/_darknet.labels": NAMES, "train/a.txt": "{}"}, "train/a.jpg", "train"),
        ({"classes.txt": "\ufeffcat\r\ndog\r\n", "labels/s/a.txt": "\ufeff{}\r\n"}, "images/s/a.jpg", ""),
    ],
)
def test_layouts_are_found(tmp_path: Path, files: dict[str, str], image: str, split: str) -> None:
    """Label Studio's, Ultralytics', Roboflow's, CVAT's and Darknet's; with marks and Windows' line ends."""
    root = write(tmp_path, {name: text.replace("{}", "1 0.5 0.5 0.25 0.5") for name, text in files.items()}, image)
    data = open_objects(root, split)
    require_sound(data)
    assert data.categories == ("cat", "dog")
    assert data[0].objects.boxes.tolist() == [[24, 20, 40, 60]]
    assert data[0].objects.labels.tolist() == [1]
    assert data.images / data.name(0) == root / image


@pytest.mark.parametrize(
    ("label", "image"),
    [
        ("labels/A.txt", "images/a.JPG"),
        ("labels/gr\u00fcn.txt", "images/gru\u0308n.jpg"),
        ("labels/s/a.txt", "images/S/a.jpg"),
    ],
)
def test_names_need_not_be_spelled_alike(tmp_path: Path, label: str, image: str) -> None:
    """Case and composition of letters do not matter, as long as one file fits."""
    data = open_objects(write(tmp_path, {"classes.txt": NAMES, label: "1 0.5 0.5 0.25 0.5"}, image))
    assert [len(row.objects) for row in data.labelled] == [1]
    assert data.left_out == {}


def test_a_label_file_of_two_images_is_refused(tmp_path: Path) -> None:
    """The second image is not taken for background."""
    files = {"classes.txt": NAMES, "labels/a.txt": "1 0.5 0.5 0.25 0.5"}
    with pytest.raises(DataError, match=r"labels/a\.txt: expected one image of this name, got 'a.jpg' and 'a.png'"):
        open_objects(write(tmp_path, files, "images/a.jpg", "images/a.png"))


@pytest.mark.parametrize("folders", [("obj_train_data", "obj_valid_data"), ("obj_Train_data", "obj_Validation_data")])
def test_splits_of_cvat_are_found(tmp_path: Path, folders: tuple[str, str]) -> None:
    """Each subset is a folder named after it."""
    for number, folder in enumerate(folders):
        write(tmp_path, {"obj.names": NAMES, f"{folder}/{number}.txt": "1 0.5 0.5 0.25 0.5"}, f"{folder}/{number}.jpg")
    assert [open_objects(tmp_path, split).name(0) for split in ("train", "val")] == ["0.jpg", "1.jpg"]


def test_polygons_and_points_give_their_boxes(tmp_path: Path) -> None:
    """A polygon its box; with `kpt_shape` the box comes before the points; a class may be written as a float."""
    root = write(tmp_path, {"classes.txt": NAMES, "labels/a.txt": "0.0 0.25 0.25 0.5 0.25 0.5 0.75"}, "images/a.jpg")
    assert open_objects(root)[0].objects.boxes.tolist() == [[16, 20, 32, 60]]
    settings = {"data.yaml": "names: [cat]\nkpt_shape: [1, 3]\n", "labels/a.txt": "0 0.5 0.5 0.5 0.5 3 3 2"}
    root = write(tmp_path / "points", settings, "images/a.jpg")
    assert open_objects(root)[0].objects.boxes.tolist() == [[16, 20, 48, 60]]


def test_what_has_no_counterpart_is_counted(tmp_path: Path) -> None:
    """Images without a label file or an object, and label files without an image."""
    files = {"classes.txt": NAMES, "labels/a.txt": "1 0.5 0.5 0.2 0.2\n", "labels/b.txt": "\n", "labels/gone.txt": ""}
    data = open_objects(write(tmp_path, files, "images/a.jpg", "images/b.jpg", "images/c.jpg"), categories=["dog"])
    assert [len(row.objects) for row in data.labelled] == [1, 0, 0]
    assert data.labelled[0].objects.labels.tolist() == [0]
    assert data.left_out == {
        "images with an empty label file, kept as background": 1,
        "images without a label file, kept as background": 1,
        "label files without an image": 1,
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2 0.5 0.5 0.2 0.2", "line 2: expected a class from 0 to 1, .*do its classes start from 1"),
        ("0.5 0.5 0.5 0.2 0.2", "line 2: expected a class from 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "line 2: expected a class from 0 to 1"),
        ("0 32 40 10 10", "line 2: expected numbers from 0 to 1, as shares"),
        ("0 50 50 10 0.5", "line 2: expected numbers from 0 to 1, as shares"),
        ("0 0.5 0.5 -0.2 0.2", "line 2: expected numbers from 0 to 1"),
        ("0 0.5 0.5 0.2", "line 2: expected a class and four numbers, or a class and a polygon"),
        ("0 0.5 0.5 0.2 0.2 0.9", "line 2: expected a class and four numbers"),
        ("cat 0.5 0.5 0.2 0.2", "line 2: expected a class and four numbers"),
        ("0,0.5,0.5,0.2,0.2", "line 2: expected a class and four numbers"),
        ("0 nan 0.5 0.2 0.2", "line 2: expected a class and four numbers"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    """File, line and what was expected: classes that are not listed, pixels, hundredths, scores, words."""
    root = write(tmp_path, {"classes.txt": NAMES, "labels/a.txt": f"0 0.5 0.5 0.2 0.2\n{line}\n"}, "images/a.jpg")
    with pytest.raises(DataError, match=rf"labels/a\.txt, {says}"):
        open_objects(root)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"data.yaml": "names: [", "labels/a.txt": ""}, "is not YAML"),
        ({"data.yaml": "nc: 2\n", "labels/a.txt": ""}, "expected `names`"),
        ({"data.yaml": "names: {1: a, 2: b}", "labels/a.txt": ""}, "expected `names`"),
        ({"data.yaml": "names: [a, b]\nnc: 3\n", "labels/a.txt": ""}, "as `nc` says, 3, got 2"),
        ({"classes.txt": "a\na\n", "labels/a.txt": ""}, "a name of its own, got 'a'"),
        ({"classes.txt": NAMES, "labels/b.txt": ""}, "found none that are named as they are"),
        (
            {"classes.txt": NAMES, "labels/A.txt": "", "labels/a.txt": ""},
            r"expected a new image, got 'a.jpg', which A\.txt",
        ),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(tmp_path: Path, files: dict[str, str], says: str) -> None:
    """Class lists that are none, and labels that belong to no image."""
    with pytest.raises(DataError, match=says):
        open_objects(write(tmp_path, files, "images/a.jpg"))
