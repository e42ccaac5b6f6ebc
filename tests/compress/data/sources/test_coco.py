"""Boxes in COCO's format: what is read, and errors that name their place."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from featherpress.compress.data import CocoFaces, require_sound
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
        return len(CocoFaces(path.parent, category=category).labelled[0].objects)

    assert count([head, person | {"name": "face"}]) == 2
    assert count([person, {"id": 3, "name": "FACE"}]) == 1
    assert count([person, head], "person") == 2
    for categories, category, says in (
        ([person, head], "", "got 'person', 'Head'; say which one holds the faces"),
        ([person, head], "cat", "expected one category 'cat', got 'person', 'Head'"),
        ([head], "", "annotation 2: expected a category_id of `categories`, got 1"),
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
        (content(annotations=[FACE | {"image_id": "1"}]), "got '1'; one of the two is text and the other a number"),
        (content(annotations=[FACE | {"image_id": True}]), "annotation 1: expected an image_id of `images`, got True"),
        (
            content(annotations=[FACE | {"category_id": 2}]),
            "annotation 1: expected a category_id of `categories`, got 2",
        ),
        (content(annotations=[FACE | {"category_id": "3"}]), "got '3'; one of the two is text and the other a number"),
        (content(annotations=[FACE | {"iscrowd": "0"}]), "annotation 1: expected 0 or 1 as iscrowd, got '0'"),
        (content(annotations=[FACE | {"ignore": 2}]), "annotation 1: expected 0 or 1 as ignore, got 2"),
        (content(annotations=[FACE | {"bbox": [0.1, 0.2, 0.3, 0.4]}]), "got 1 that all lie within 0 to 1"),
        (content(annotations=[FACE | {"bbox": []}]), "annotation 1: expected the key 'bbox'"),
        (content(annotations=[FACE | {"bbox": [], "segmentation": {"size": [4, 4]}}]), "expected polygons or runs"),
        (content(categories=[CATEGORY, CATEGORY]), "category 2: expected a new category, got the id 3 a second time"),
        (content(categories=[CATEGORY, CATEGORY | {"id": 4}]), "a name of its own, got 'face'"),
        (content(categories=[CATEGORY | {"keypoints": ["a", "a"]}]), "category 1: expected a list of different names"),
        (content(annotations=[FACE | {"keypoints": POINTS[:14]}]), "annotation 1: expected times x, y, visibility"),
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
        CocoFaces(path.parent)
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
    with pytest.raises(DataError, match=r"found none; looked for annotations\.json, .*YOLO's.*Pascal VOC's"):
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


NAMES = ["nose", "mouth_right", "mouth_left", "right_eye", "left_eye"]
BY_NAME = [25, 30, 2, 35, 50, 2, 15, 50, 2, 39, 21, 2, 11, 21, 2]
THE_PERSONS = [25, 30, 2, 15, 50, 2, 35, 50, 2, 11, 21, 2, 39, 21, 2]


@pytest.mark.parametrize(
    ("names", "points"),
    [
        (NAMES, BY_NAME),
        (NAMES, THE_PERSONS),
        (["L eye center", "REye", "noseTip", "LeftMouthCorner", "right_lip"], POINTS),
        (["left_eyebrow", *NAMES], [1, 1, 2, *BY_NAME]),
        (["1", "2", "3", "4", "5"], POINTS),
    ],
)
def test_landmarks_are_taken_by_name(tmp_path: Path, names: list[str], points: list[int]) -> None:
    """In whatever order they come; left is the image's, also where the names mean the person's."""
    rows = [FACE | {"keypoints": points}]
    data = CocoFaces(write(tmp_path, content(annotations=rows, categories=[CATEGORY | {"keypoints": names}])))
    assert data.faces(0).landmarks.tolist() == [[11, 21, 39, 21, 25, 30, 15, 50, 35, 50]]


def test_other_points_are_counted(tmp_path: Path) -> None:
    """Points that are no landmarks, and landmarks of which one is hidden, are left out and named."""
    other = [CATEGORY | {"keypoints": ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]}]
    data = CocoFaces(write(tmp_path, content(annotations=[FACE | {"keypoints": POINTS}], categories=other)))
    assert data.left_out == {"boxes with other key points, which were not read": 1}
    data = CocoFaces(write(tmp_path, content(annotations=[FACE | {"keypoints": [*POINTS[:-1], 0]}])))
    assert data.left_out == {"boxes without landmarks, for not all five are labelled": 1}


@pytest.mark.parametrize(
    ("segmentation", "corners"),
    [
        ([[10, 20, 40, 25, 30, 60]], [10, 20, 40, 60]),
        ({"size": [80, 64], "counts": [800 + 5, 10, 70, 12, 80 * 64 - 897]}, [10, 5, 12, 17]),
        ({"size": [80, 64], "counts": [800 + 70, 20, 80 * 64 - 890]}, [10, 0, 12, 80]),
        ({"size": [4, 4], "counts": "52203"}, [1, 1, 3, 3]),
    ],
)
def test_a_box_is_drawn_around_segments(tmp_path: Path, segmentation: object, corners: list[int]) -> None:
    """Polygons and masks, plain or compressed, stand in for a box that is not there."""
    row = {"image_id": 1, "category_id": 3, "segmentation": segmentation}
    data = CocoFaces(write(tmp_path, content(annotations=[row])))
    assert data.faces(0).boxes.tolist() == [corners]


def test_what_is_ignored_or_not_taken_is_counted(tmp_path: Path) -> None:
    """Crowds, `ignore`, empty boxes, other categories, images without boxes and without labels, and mere headings."""
    rows = [FACE, FACE | {"iscrowd": 1}, FACE | {"ignore": 1}, FACE | {"bbox": [1, 1, 0, 5]}, FACE | {"category_id": 4}]
    categories = [{"id": 0, "name": "all"}, CATEGORY | {"supercategory": "all"}, {"id": 4, "name": "hat"}]
    images = [A, A | {"id": 2, "file_name": "b.jpg"}]
    root = write(tmp_path, content(annotations=rows, categories=categories, images=images))
    for name in ("b", "c"):
        Image.new("RGB", (64, 80)).save(root / "images" / f"{name}.jpg")
    data = CocoFaces(root)
    assert data.faces(0).ignored.tolist() == [False, True, True, True]
    assert data.left_out == {
        "category 'all', which only heads others": 1,
        "crowds, ignored": 1,
        "boxes marked `ignore`, ignored": 1,
        "images that the labels do not name": 1,
        "images without a box, kept as background": 1,
        "boxes without an area, ignored": 1,
        "boxes of 'hat'": 1,
    }


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ("images/a.jpg", "a.jpg"),
        ("images\\a.jpg", "a.jpg"),
        ("train2017.zip@/a.jpg", "a.jpg"),
        ("A.JPG", "a.jpg"),
        ("mu\u0308ller.jpg", "m\u00fcller.jpg"),
        ("m\u00fcller.jpg", "mu\u0308ller.jpg"),
        ("my%20photo.jpg", "my photo.jpg"),
        ("100%25.jpg", "100%25.jpg"),
        ("images/1a2b3c4d-a.jpg", "a.jpg"),
        ("a.jpg", "1a2b3c4d-a.jpg"),
        ("./sub//a.jpg", "sub/a.jpg"),
    ],
)
def test_names_are_found_as_tools_write_them(tmp_path: Path, said: str, file: str) -> None:
    """Folders, slashes, case, composed letters, URL quotes, archives and Label Studio's prefix do not matter."""
    root = write(tmp_path, content(images=[A | {"file_name": said}]))
    (root / "images" / "a.jpg").unlink()
    (root / "images" / file).parent.mkdir(exist_ok=True)
    Image.new("RGB", (64, 80)).save(root / "images" / file)
    data = CocoFaces(root)
    require_sound(data)
    assert data.images / data.name(0) == root / "images" / file


def test_a_name_that_two_files_could_have_is_refused(tmp_path: Path) -> None:
    """Two rows for one file, and one row for two files, are both named."""
    images = [A | {"file_name": "x/a.jpg"}, A | {"id": 2, "file_name": "y/a.jpg"}]
    with pytest.raises(DataError, match=r"image 2: .* a second time, of the file that 'x/a.jpg' is"):
        CocoFaces(write(tmp_path, content(images=images)))
    root = write(tmp_path, content(images=[A | {"file_name": "A.jpg"}]))
    (root / "images" / "a.jpg").rename(root / "images" / "a.JPG")
    Image.new("RGB", (64, 80)).save(root / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"image 1: expected one image in .* for 'A.jpg', got 'a.JPG' and 'a.jpg'"):
        CocoFaces(root)


@pytest.mark.parametrize("said", [{"width": 80, "height": 64}, {}])
def test_boxes_of_the_image_before_it_was_turned_are_refused(tmp_path: Path, said: dict[str, int]) -> None:
    """A file that lies on its side by EXIF is read upright: boxes drawn on the other, said so or not, do not fit."""
    root = write(tmp_path, content(images=[A | said], annotations=[FACE | {"bbox": [10, 20, 65, 40]}]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 64)).save(root / "images" / "a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"image 1: expected boxes in the upright a.jpg, which is 64 x 80 pixels"):
        require_sound(CocoFaces(root))


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    """The size that a label says is that of its image, but for a pixel or two; 0 says nothing."""
    for width, height, sound in ((64, 80, True), (65, 79, True), (0, 0, True), (640, 800, False)):
        root = write(tmp_path, content(images=[A | {"width": width, "height": height}]))
        if sound:
            require_sound(CocoFaces(root))
            continue
        with pytest.raises(DataError, match=r"image 1: expected an image of 640 x 800 pixels.*got a.jpg of 64 x 80"):
            require_sound(CocoFaces(root))


def test_corners_and_hundredths_are_told_from_boxes(tmp_path: Path) -> None:
    """Most boxes sticking out unless they are corners, and many that end just below 100, are refused."""
    corners = [FACE | {"bbox": box} for box in ([30, 30, 60, 70], [20, 50, 60, 79], [5, 5, 20, 20])]
    with pytest.raises(DataError, match="expected x, y, width and height"):
        require_sound(CocoFaces(write(tmp_path, content(annotations=corners))))
    root = write(tmp_path, content(annotations=[FACE | {"bbox": [n, n, 50, 48.5]} for n in range(51)]))
    Image.new("RGB", (640, 480)).save(root / "images" / "a.jpg")
    with pytest.raises(DataError, match="as hundredths do"):
        require_sound(CocoFaces(root))
