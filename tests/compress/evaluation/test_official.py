"""WIDER FACE's own images: what is scored, and what is said when some are missing."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.widerface.files import read_predictions, write_predictions
from featherpress.compress.evaluation.widerface.images import OfficialImages, predictions_by_event
from featherpress.compress.evaluation.widerface.protocol import evaluate_widerface
from featherpress.errors import DataError


def cell(*items: object) -> NDArray[np.object_]:
    column = np.empty((len(items), 1), dtype=object)
    column[:, 0] = items
    return column


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Four .mat files: image a with two faces, both hard, the first medium and easy; b with one, hard only; c none."""
    folder = tmp_path / "truth"
    folder.mkdir()
    boxes = ([[0, 0, 20, 20], [40, 0, 20, 20]], [[5, 5, 20, 30]], np.empty((0, 4)))
    faces = {
        "event_list": cell("0--Parade", "1--Other"),
        "file_list": cell(cell("a", "b"), cell("c")),
        "face_bbx_list": cell(cell(*(np.array(each, np.int32) for each in boxes[:2])), cell(boxes[2])),
    }
    savemat(folder / "wider_face_val.mat", faces)
    counted = {"easy": ([1], [], []), "medium": ([1], [], []), "hard": ([1, 2], [1], [])}
    for subset, numbers in counted.items():
        a, b, c = (np.array(each, np.uint8).reshape(-1, 1) for each in numbers)
        savemat(folder / f"wider_{subset}_val.mat", {"gt_list": cell(cell(a, b), cell(c))})
    return folder


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 70)).save(folder / name)


ALL = ("0--Parade/a.jpg", "0--Parade/b.jpg", "1--Other/c.jpg")


def found_all(data: OfficialImages) -> DetectionSet:
    """Detections that are the labelled boxes, and one false alarm surer than all in b."""
    detections, truths = [], []
    for index in range(len(data)):
        boxes = data.labelled[index].objects.boxes.numpy()
        if data.name(index).endswith("b.jpg"):
            boxes = np.concatenate([np.array([[50, 50, 70, 70]], np.float32), boxes])
        scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
        detections.append(Detections(boxes=boxes, scores=scores, landmarks=np.zeros((len(boxes), 10), np.float32)))
        truths.append(
            Truth(
                boxes=data.labelled[index].objects.boxes.numpy(), ignored=data.labelled[index].objects.ignored.numpy()
            )
        )
    names = tuple(data.name(index) for index in range(len(data)))
    return DetectionSet(names=names, detections=tuple(detections), truths=tuple(truths))


@pytest.mark.parametrize("parent", [".", "WIDER_val/images", "widerface/WIDER_val/images"])
def test_the_whole_set_is_found_and_scored(tmp_path: Path, truth: Path, parent: str) -> None:
    """In any of three layouts; faces beyond Hard are ignored, and the scores are those of the written text files."""
    write_images(tmp_path / "data" / parent, *ALL)
    data = OfficialImages(tmp_path / "data", truth)
    assert (len(data), data.missing) == (3, 0)
    assert [data.name(i) for i in range(3)] == list(ALL)
    assert data.labelled[0].objects.boxes.tolist() == [[0, 0, 20, 20], [40, 0, 60, 20]]
    assert data[0].image.shape == (3, 70, 80)
    found = found_all(data)
    scores = data.score(found)
    assert scores.easy == pytest.approx(0.5)
    assert set(scores.curves) == {"easy", "medium", "hard"}
    write_predictions(tmp_path / "out", predictions_by_event(found))
    assert evaluate_widerface(read_predictions(tmp_path / "out"), truth) == scores


def test_missing_images_are_refused_or_counted(tmp_path: Path, truth: Path) -> None:
    """Never silently fewer: an error with how many and which, or the count of what is missing and None for no face."""
    write_images(tmp_path / "data", "0--Parade/b.jpg")
    with pytest.raises(DataError, match=r"2 of the 3 images .* first 0--Parade/a\.jpg; --present-only"):
        OfficialImages(tmp_path / "data", truth)
    with pytest.raises(
        DataError, match="--present-only scores the first 1 of the others, which is not an official result"
    ):
        OfficialImages(tmp_path / "data", truth, limit=1)
    data = OfficialImages(tmp_path / "data", truth, present_only=True)
    assert (len(data), data.missing) == (1, 2)
    scores = data.score(found_all(data))
    assert (scores.easy, scores.medium) == (None, None)
    assert scores.hard == pytest.approx(0.5)
    write_images(tmp_path / "data", *ALL)
    assert OfficialImages(tmp_path / "data", truth, limit=1).missing == 2


def test_other_images_are_refused(tmp_path: Path, truth: Path) -> None:
    """A folder with none of the images has nothing to score, whatever is asked for."""
    write_images(tmp_path / "data", "0--Faces/x.jpg")
    with pytest.raises(DataError, match=r"3 of the 3 images .*a\.jpg$"):
        OfficialImages(tmp_path / "data", truth, present_only=True)
    with pytest.raises(DataError, match="no such folder"):
        OfficialImages(tmp_path / "nowhere", truth)


def test_an_image_without_an_event_has_no_text_file() -> None:
    """The official format needs an event's folder."""
    none = Detections(boxes=np.zeros((0, 4)), scores=np.zeros(0), landmarks=np.zeros((0, 10)))
    empty = Truth(boxes=np.zeros((0, 4)), ignored=np.zeros(0, bool))
    with pytest.raises(DataError, match=r"folder of its event, .* got 'a\.jpg'"):
        predictions_by_event(DetectionSet(names=("a.jpg",), detections=(none,), truths=(empty,)))
