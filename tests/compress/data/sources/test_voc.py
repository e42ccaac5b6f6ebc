"""Pascal VOC's labels: layouts, how pixels are counted, and errors that name file and object."""

from pathlib import Path

import pytest
from PIL import Image

from featherpress.compress.data import open_objects, require_sound
from featherpress.errors import DataError

BOX = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox>"


def page(*objects: str, name: str = "a.jpg", size: str = "<size><width>64</width><height>80</height></size>") -> str:
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


def thing(name: str = "cat", box: str = BOX, more: str = "") -> str:
    return f"<object><name>{name}</name>{more}{box}</object>"


def write(root: Path, files: dict[str, str], *images: str) -> Path:
    """Write text files, and images of 64 x 80 pixels."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 80)).save(root / name)
    return root


@pytest.mark.parametrize(
    ("files", "image", "split"),
    [
        ({"Annotations/a.xml": page(thing()), "ImageSets/Main/val.txt": "\ufeffa\r\n"}, "JPEGImages/a.jpg", "val"),
        ({"Annotations/a.xml": page(thing(), name="old.jpg")}, "JPEGImages/a.JPG", ""),
        ({"annotations/a.xml": page(thing(), name="a")}, "images/a.png", ""),
        ({"VOCdevkit/VOC2012/Annotations/a.xml": page(thing())}, "VOCdevkit/VOC2012/JPEGImages/a.jpg", ""),
        ({"valid/a.xml": page(thing(), name="C:\\x\\a.jpg")}, "valid/a.jpg", "val"),
        ({"Annotations/s/a.xml": page(thing(), name="s/a.jpg")}, "JPEGImages/s/a.jpg", ""),
        ({"Annotations/s/a.xml": page(thing()), "ImageSets/Main/val.txt": "s/a\n"}, "JPEGImages/s/a.jpg", "val"),
        ({"a.xml": page(thing(), size="<size><width>0</width><height>0</height></size>")}, "a.jpg", ""),
    ],
)
def test_layouts_are_found(tmp_path: Path, files: dict[str, str], image: str, split: str) -> None:
    """VOC's own, with and without lists, Roboflow's, and files beside their images, whatever `filename` says."""
    root = write(tmp_path, files, image)
    data = open_objects(root, split)
    require_sound(data)
    assert data.categories == ("cat",)
    assert data[0].objects.boxes.tolist() == [[10, 20, 40, 60]]
    assert data.images / data.name(0) == root / image


def test_names_that_come_again_in_another_folder_are_all_read(tmp_path: Path) -> None:
    """Frames are counted from 1 in every folder: no page replaces one of the same name, in a split or beside it."""
    names = ("cat", "dog", "pig")
    for split, name in zip(("train", "valid", "test"), names, strict=True):
        write(tmp_path, {f"{split}/1.xml": page(thing(name), name="1.jpg")}, f"{split}/1.jpg")
    assert {open_objects(tmp_path, split).categories for split in ("train", "val", "test")} == {names}
    pages = {f"Annotations/{n}/1.xml": page(thing(name), name="1.jpg") for n, name in enumerate(names)}
    data = open_objects(write(tmp_path / "b", pages, *(f"JPEGImages/{n}/1.jpg" for n in range(3))))
    assert [(data.name(n), data[n].objects.labels.tolist()) for n in range(3)] == [
        (f"{n}/1.jpg", [n]) for n in range(3)
    ]


def test_pages_in_folders_of_a_split_are_read(tmp_path: Path) -> None:
    """In a folder a split too, and an image without a page is counted though another split has one of its name."""
    write(tmp_path, {"train/1.xml": page(thing(), name="1.jpg"), "train/s/1.xml": page(thing("dog"), name="1.jpg")})
    write(
        tmp_path, {"val/2.xml": page(thing(), name="2.jpg")}, "train/1.jpg", "train/s/1.jpg", "train/2.jpg", "val/2.jpg"
    )
    data = open_objects(tmp_path, "train")
    require_sound(data)
    assert {data.name(n): data.categories[data[n].objects.labels[0]] for n in range(2)} == {
        "1.jpg": "cat",
        "s/1.jpg": "dog",
    }
    assert data.left_out == {"images without an XML file": 1}


def test_pixels_are_counted_from_where_the_files_say(tmp_path: Path) -> None:
    """From 1, as VOC does, unless a box starts at 0 or lies between pixels; every split alike."""
    other = BOX.replace("11", "0")
    files = {"Annotations/a.xml": page(thing()), "Annotations/b.xml": page(thing("dog", other), name="b.jpg")}
    root = write(tmp_path, files | {"train.txt": "a 1"}, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    data = open_objects(root, "train")
    assert data[0].objects.boxes.tolist() == [[11, 21, 40, 60]]
    assert data.categories == ("cat", "dog")
    floats = write(tmp_path / "floats", {"a.xml": page(thing(box=BOX.replace("11", "11.5")))}, "a.jpg")
    assert open_objects(floats)[0].objects.boxes.tolist() == [[11.5, 21, 40, 60]]


def test_what_is_ignored_or_not_taken_is_counted(tmp_path: Path) -> None:
    """Difficult and empty boxes, other categories, parts of objects, and images without a file."""
    point = BOX.replace("40", "11")
    part = f"<part><name>head</name>{BOX}</part>"
    things = (thing(more="<difficult>1</difficult>"), thing(box=point), thing("dog"), thing(more=part))
    root = write(tmp_path, {"Annotations/a.xml": page(*things)}, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    data = open_objects(root, categories=["cat"])
    assert data.labelled[0].objects.ignored.tolist() == [True, True, False]
    assert data.left_out == {
        "difficult boxes, ignored": 1,
        "boxes without an area, ignored": 1,
        "images without an XML file": 1,
        "boxes of 'dog'": 1,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<annotation>", "is not XML"),
        ("<root/>", "expected an <annotation>, got <root>"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "plain XML"),
        (page(thing(), thing(name=" ")), "object 2: expected a <name>"),
        (page(thing(box="<polygon/>")), "object 1: expected a <bndbox>, got <name>, <polygon>"),
        (page(thing(box=BOX.replace("11", "x"))), "object 1: expected four finite numbers as xmin"),
        (page(thing(box=BOX.replace("11", "inf"))), "object 1: expected four finite numbers"),
        (page(thing(box=BOX.replace("11", "50"))), "object 1: expected xmin up to xmax"),
        (page(thing(more="<difficult>yes</difficult>")), "object 1: expected 0 or 1 as <difficult>, got 'yes'"),
        (page(thing(), size="<size><width>80</width><height>64</height></size>"), "expected boxes in the upright"),
        (page(thing(), name="b.jpg"), "expected its own image, 'a.jpg', as `filename`, got 'b.jpg'"),
        (page(thing(box=BOX.replace("11", "90").replace("40", "99"))), "object 1: expected a box inside a.jpg"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, says: str) -> None:
    """File, object and what was expected."""
    root = write(tmp_path, {"Annotations/a.xml": text}, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    with pytest.raises(DataError, match=says) as caught:
        require_sound(open_objects(root))
    assert "a.xml" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"), [("b", "line 2: expected an image with"), ("a.jpg", "line 2: .*a second time")]
)
def test_a_list_names_what_is_there(tmp_path: Path, line: str, says: str) -> None:
    """An image without a file, and one that comes twice, are named with the line."""
    files = {"Annotations/a.xml": page(thing()), "ImageSets/Main/train.txt": f"a\n{line}\n"}
    with pytest.raises(DataError, match=rf"train\.txt, {says}"):
        open_objects(write(tmp_path, files, "JPEGImages/a.jpg"), "train")


def test_real_labels_are_read(shared: Path) -> None:
    """Blood cells of three categories, in three splits, as a microscopist's tool wrote them."""
    splits = [open_objects(shared / "data/tasks/blood_cells_voc", split) for split in ("train", "val", "test")]
    assert [len(data) for data in splits] == [205, 87, 72]
    for data in splits:
        require_sound(data)
        assert data.categories == ("Platelets", "RBC", "WBC")
    assert sum(len(row.objects) for data in splits for row in data.labelled) == 4888
    assert sum(sum(data.left_out.values()) for data in splits) == 2
