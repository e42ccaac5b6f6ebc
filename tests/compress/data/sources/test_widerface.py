"""WIDER FACE's labels: quirks, landmarks, and errors that name their line."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from featherpress.compress.data import WiderFaces, require_sound
from featherpress.compress.data.sources.widerface import read_labels, read_landmarks
from featherpress.errors import DataError, UsageError

FACE = "10 20 30 40 0 0 0 0 0 0"
POINTS = "11 21 0.0 39 21 0.0 25 30 1.0 15 50 0.0 35 50 0.0 0.9"
UNLABELLED = " ".join(["-1.0"] * 15) + " 0.4"


def write(folder: Path, labels: str | bytes, *, landmarks: str | None = None, split: str = "train") -> Path:
    """Make a folder in WIDER FACE's layout, with one real image."""
    (folder / "wider_face_split").mkdir(parents=True)
    images = folder / f"WIDER_{split}" / "images" / "0--Faces"
    images.mkdir(parents=True)
    Image.new("RGB", (64, 80), "red").save(images / "a.jpg")
    data = labels.encode() if isinstance(labels, str) else labels
    (folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_bytes(data)
    if landmarks is not None:
        (folder / "retinaface_gt_v1.1" / split).mkdir(parents=True)
        (folder / "retinaface_gt_v1.1" / split / "label.txt").write_text(landmarks)
    return folder


@pytest.mark.parametrize("parent", [".", "widerface"])
def test_reads_a_folder_or_its_parent(tmp_path: Path, parent: str) -> None:
    """The folder itself and the one that holds it as `widerface` both work."""
    write(tmp_path / parent, f"0--Faces/a.jpg\n1\n{FACE}\n")
    data = WiderFaces(tmp_path, "train")
    sample = data[0]
    assert sample.image.shape == (3, 80, 64)
    assert sample.objects.boxes.tolist() == [[10, 20, 40, 60]]
    assert data.name(0) == sample.name == "0--Faces/a.jpg"


def test_images_without_faces_come_with_or_without_their_line_of_zeros(tmp_path: Path) -> None:
    """WIDER FACE writes a line of zeros under a count of 0; other writers do not."""
    zeros = " ".join(["0"] * 10)
    base = write(tmp_path, f"a.jpg\n0\n{zeros}\nb.jpg\n0\nc.jpg\n1\n{FACE}\n")
    data = WiderFaces(base, "train")
    assert [data.name(i) for i in range(len(data))] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [len(data.labelled[i].objects) for i in range(3)] == [0, 0, 1]


def test_a_blank_line_before_the_zeros_changes_nothing(tmp_path: Path) -> None:
    """Files whose lines end twice, as after a bad conversion, are read."""
    base = write(tmp_path, f"a.jpg\r\n\r\n0\r\n\r\n{' '.join(['0'] * 10)}\r\n\r\nb.jpg\r\n\r\n1\r\n\r\n{FACE}\r\n")
    data = WiderFaces(base, "train")
    assert [(data.name(i), len(data.labelled[i].objects)) for i in range(2)] == [("a.jpg", 0), ("b.jpg", 1)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_names_beyond_ascii_find_their_file(tmp_path: Path, encoding: str) -> None:
    """An image with an umlaut is found whether the label file is UTF-8, with a mark or without, or Latin-1."""
    base = write(tmp_path, f"0--Faces/f\u00fcnf.jpg\n1\n{FACE}\n".encode(encoding))
    folder = base / "WIDER_train" / "images" / "0--Faces"
    (folder / "a.jpg").rename(folder / "f\u00fcnf.jpg")
    assert WiderFaces(base, "train")[0].name == "0--Faces/f\u00fcnf.jpg"


def test_a_link_out_of_the_image_folder_is_not_followed(tmp_path: Path) -> None:
    """A linked image that leads outside is refused, directly or through a linked folder; one that stays in is read."""
    secret = tmp_path / "secret" / "s.jpg"
    secret.parent.mkdir()
    Image.new("RGB", (64, 80)).save(secret)
    base = write(tmp_path / "data", "0--Faces/out.jpg\n0\n0--Faces/in.jpg\n0\nevent/s.jpg\n0\n0--Faces/dead.jpg\n0\n")
    folder = base / "WIDER_train" / "images" / "0--Faces"
    (folder / "out.jpg").symlink_to(secret)
    (folder / "in.jpg").symlink_to("a.jpg")
    (folder / "dead.jpg").symlink_to("nothing.jpg")
    (folder.parent / "event").symlink_to(secret.parent)
    data = WiderFaces(base, "train")
    for index, line in ((0, 1), (2, 5)):
        with pytest.raises(DataError, match=rf"bbx_gt\.txt, line {line}: expected .*leads out of it"):
            data[index]
    assert data[1].image.shape == (3, 80, 64)
    with pytest.raises(DataError, match=r"line 7: .*a link to nothing"):
        data[3]


def test_a_linked_image_folder_is_followed(tmp_path: Path) -> None:
    """The folder of the images may be a link itself: people keep data on another disk."""
    base = write(tmp_path / "data", "0--Faces/a.jpg\n0\n")
    (base / "WIDER_train").rename(tmp_path / "disk")
    (base / "WIDER_train").symlink_to(tmp_path / "disk")
    assert WiderFaces(base, "train")[0].image.shape == (3, 80, 64)


@pytest.mark.parametrize("box", ["64 0 9 9", "0 80 9 9", "-9 0 9 9", "70 -99 9 9"])
def test_a_face_wholly_outside_its_image_is_named_with_its_line(tmp_path: Path, box: str) -> None:
    """Such a label belongs to another image or another size of it; an ignored face there does no harm."""
    base = write(tmp_path, f"0--Faces/a.jpg\n2\n{FACE}\n{box} 0 0 0 0 0 0\n")
    with pytest.raises(DataError, match=r"line 4: expected a box inside 0--Faces/a\.jpg, which is 64 x 80 pixels"):
        WiderFaces(base, "train")[0]
    write(tmp_path / "b", f"0--Faces/a.jpg\n1\n{box} 0 0 0 1 0 0\n")
    assert len(WiderFaces(tmp_path / "b", "train")[0].objects) == 1


def test_a_face_partly_outside_stays_as_it_is(tmp_path: Path) -> None:
    """WIDER FACE labels what a border cuts; the box is kept, since the protocol scores it so."""
    base = write(tmp_path, "0--Faces/a.jpg\n1\n-5 70 20 40 0 0 0 0 0 0\n")
    assert WiderFaces(base, "train")[0].objects.boxes.tolist() == [[-5, 70, 15, 110]]


def test_all_images_are_looked_at_before_work_begins(tmp_path: Path) -> None:
    """The check needs no decoding, finds a broken head too, and says how many images cannot be used."""
    base = write(tmp_path, f"0--Faces/a.jpg\n1\n{FACE}\n0--Faces/b.jpg\n0\n0--Faces/c.jpg\n0\n")
    require_sound(WiderFaces(base, "train", limit=1))
    (base / "WIDER_train" / "images" / "0--Faces" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.jpg.*; 1 more of 3 images cannot be used"):
        require_sound(WiderFaces(base, "train"))


def test_windows_line_ends_blank_lines_and_latin_1_names(tmp_path: Path) -> None:
    """Carriage returns and blank lines are passed over; names in Latin-1 are read as such."""
    base = write(tmp_path, f"caf\u00e9\x85.jpg\r\n1\r\n{FACE}\r\n\r\n".encode("latin-1"))
    assert WiderFaces(base, "train").name(0) == "caf\u00e9\x85.jpg"


def test_invalid_and_empty_faces_are_ignored(tmp_path: Path) -> None:
    """WIDER's `invalid` flag and a width or height of 0 make a face neither positive nor negative."""
    rows = ["1 2 3 4 0 0 0 1 0 0", "1 2 0 4 0 0 0 0 0 0", "1 2 3 0 0 0 0 0 0 0", "1 2 3 4 1 1 1 0 2 1"]
    base = write(tmp_path, "\n".join(["a.jpg", "4", *rows]))
    assert WiderFaces(base, "train").labelled[0].objects.ignored.tolist() == [True, True, True, False]


def test_landmarks_are_joined_by_box(tmp_path: Path) -> None:
    """Landmarks go to the face whose box they carry, whatever the order; -1 means not labelled."""
    other = "100 20 30 40 0 0 0 0 0 0"
    labels = f"a.jpg\n3\n{other}\n{FACE}\n300 1 5 5 0 0 0 1 0 0\n"
    landmarks = f"# a.jpg\n10 20 30 40 {POINTS}\n100 20 30 40 {UNLABELLED}\n# other.jpg\n1 1 2 2\n"
    faces = WiderFaces(write(tmp_path, labels, landmarks=landmarks), "train").labelled[0].objects
    assert faces.has_landmarks.tolist() == [False, True, False]
    assert faces.landmarks[1].tolist() == [11, 21, 39, 21, 25, 30, 15, 50, 35, 50]
    assert not faces.landmarks[[0, 2]].any()
    assert faces.ignored.tolist() == [False, False, True]


def test_limit_keeps_the_first_images(tmp_path: Path) -> None:
    """`limit` cuts the list, and 0 is refused."""
    base = write(tmp_path, "a.jpg\n0\nb.jpg\n0\n")
    assert len(WiderFaces(base, "train", limit=1)) == 1
    with pytest.raises(UsageError, match="at least 1 image, got 0"):
        WiderFaces(base, "train", limit=0)


@pytest.mark.parametrize(
    ("labels", "line", "says"),
    [
        ("a.jpg\n1\n10 20 -3 40 0 0 0 0 0 0\n", 3, "at least 0 for a face in a.jpg"),
        ("a.jpg\n1\n10 20 30\n", 3, "10 numbers for a face in a.jpg, got '10 20 30'"),
        ("a.jpg\n1\n10 20 nan 40 0 0 0 0 0 0\n", 3, "10 numbers"),
        (f"a.jpg\n2\n{FACE}\n", 4, "one more face in a.jpg, got the end of the file"),
        (f"a.jpg\n2\n{FACE}\nb.jpg\n0\n", 4, "got 'b.jpg'"),
        (f"a.jpg\n1\n{FACE}\n{FACE}\n", 4, "one more face than the number above"),
        ("a.jpg\nmany\n", 2, "the number of faces in a.jpg, got 'many'"),
        ("a.jpg\n-1\n", 2, "the number of faces"),
        ("a.jpg\n", 2, "the number of faces in a.jpg, got the end of the file"),
        ("../a.jpg\n0\n", 1, "inside the image folder"),
        ("/etc/a.jpg\n0\n", 1, "inside the image folder"),
        ("x\\..\\..\\a.jpg\n0\n", 1, "inside the image folder"),
        ("C:\\a.jpg\n0\n", 1, "inside the image folder"),
        ("a.jpg\n0\na.jpg\n0\n", 3, "'a.jpg' a second time"),
    ],
)
def test_bad_labels_are_named_by_file_and_line(tmp_path: Path, labels: str, line: int, says: str) -> None:
    """Every mistake in a label file ends in one sentence with the file, the line and what was expected."""
    path = tmp_path / "labels.txt"
    path.write_text(labels)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: expected ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ("# ../a\n", 1),
        ("#\n", 1),
        ("# a\n1 2 3 4\n# a\n", 3),
        ("1 2 3 4\n", 1),
        ("# a\n1 2 3\n", 2),
        ("# a\n1 2 -3 4\n", 2),
        ("# a\n\n1 2 3 x\n", 3),
    ],
)
def test_bad_landmarks_are_named_by_line(tmp_path: Path, labels: str, line: int) -> None:
    """The same holds for RetinaFace's file."""
    path = tmp_path / "label.txt"
    path.write_text(labels)
    with pytest.raises(DataError, match=f"line {line}: expected "):
        read_landmarks(path)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    """A root, a split or an image that is not there: the error says where it was expected."""
    with pytest.raises(DataError, match="no such folder"):
        WiderFaces(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="wider_face_split beside"):
        WiderFaces(tmp_path, "train")
    base = write(tmp_path, "gone.jpg\n0\n")
    with pytest.raises(DataError, match="wider_face_test_bbx_gt"):
        WiderFaces(base, "test")
    with pytest.raises(DataError, match=r"gone\.jpg, found nothing"):
        WiderFaces(base, "train")[0]


def test_the_photographs_are_all_there(shared: Path) -> None:
    """The shared data set has the images, faces, landmarks and invalid flags that its description counts."""
    splits = [WiderFaces(shared / "data", split) for split in ("train", "val")]
    assert [len(split) for split in splits] == [1332, 240]
    faces = [split.labelled[index].objects for split in splits for index in range(len(split))]
    ignored = torch.cat([face.ignored for face in faces])
    labelled = torch.cat([face.has_landmarks for face in faces])
    assert (int((~ignored).sum()), int(ignored.sum()), int(labelled.sum())) == (3919, 715, 3470)
    assert splits[0][0].image.dtype == torch.uint8
