"""The WIDER FACE protocol: equal to the reference numbers and to a plain loop, and clear about broken files."""

import json
import runpy
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import savemat

from featherpress.compress.evaluation.detections import Detections
from featherpress.compress.evaluation.widerface.files import (
    SUBSETS,
    WiderImage,
    WiderPredictions,
    prediction_rows,
    read_ground_truth,
    read_predictions,
    write_predictions,
)
from featherpress.compress.evaluation.widerface.protocol import WiderScores, evaluate_widerface
from featherpress.errors import DataError

ORACLE = runpy.run_path(str(Path(__file__).with_name("oracle.py")))

Rows = NDArray[np.float64]


def rows(*values: tuple[float, float, float, float, float]) -> Rows:
    return np.array(values, dtype=np.float64).reshape(-1, 5)


def image(*boxes: tuple[float, float, float, float], name: str = "a", ignored: tuple[int, ...] = ()) -> WiderImage:
    counted = ~np.isin(np.arange(len(boxes)), ignored)
    return WiderImage(
        event="0--Parade",
        name=name,
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        counted=dict.fromkeys(SUBSETS, counted),
    )


def test_the_official_ground_truth_gives_the_reference_numbers(shared: Path) -> None:
    """All three subsets equal the reference port's on 3,226 images to 1e-9."""
    folder = shared / "data" / "wider_eval"
    scores = evaluate_widerface(folder / "predictions_a.tar.gz", folder / "ground_truth").to_dict()
    expected = json.loads((folder / "expected_a.json").read_text())
    assert list(scores) == ["easy", "medium", "hard"]
    for subset in SUBSETS:
        assert scores[subset] == pytest.approx(expected[subset], rel=0, abs=1e-9)


def test_a_hand_computed_case() -> None:
    """Scores 0.9 hit, 0.5 false alarm, 0.1 hit of 2 faces: 1/2 * 1 + 1/2 * 2/3 = 5/6."""
    predictions = rows((0, 0, 9, 9, 0.9), (500, 0, 9, 9, 0.5), (100, 0, 9, 9, 0.1))
    scores = evaluate_widerface({"0--Parade": {"a": predictions}}, [image((0, 0, 9, 9), (100, 0, 9, 9))])
    assert scores == WiderScores(easy=scores.easy, medium=scores.easy, hard=scores.easy)
    assert scores.easy == pytest.approx(5 / 6, abs=1e-12)


def test_a_subset_counts_its_own_faces_and_ignores_the_others() -> None:
    """Only the right face is easy, and missed: 0. Both are medium: 1/2. The left is hard, found and then doubled: 1."""
    predictions = rows((0, 0, 9, 9, 0.9), (0, 0, 9, 9, 0.1))
    left, right = np.array([True, False]), np.array([False, True])
    labelled = WiderImage(
        event="0--Parade",
        name="a",
        boxes=np.array([[0, 0, 9, 9], [100, 0, 9, 9.0]]),
        counted={"easy": right, "medium": left | right, "hard": left},
    )
    scores = evaluate_widerface({"0--Parade": {"a": predictions}}, [labelled])
    assert scores == WiderScores(easy=0.0, medium=0.5, hard=1.0)


def test_a_single_score_enters_all_at_once() -> None:
    """Without a range to bring to 0..1 every detection counts at the first threshold."""
    predictions = rows((0, 0, 9, 9, 0.7), (500, 0, 9, 9, 0.7))
    assert evaluate_widerface({"0--Parade": {"a": predictions}}, [image((0, 0, 9, 9))]).hard == 0.5


@pytest.mark.parametrize("scores", [(5, 4.999, 4.5), (-10, -10.005, -11)])
def test_scores_are_scaled_from_0_at_most_and_1_at_least(scores: tuple[float, float, float]) -> None:
    """Scores beyond 0..1 stretch the range but never shrink it, so near ones share a threshold and halve precision."""
    first, second, third = scores
    predictions = rows((0, 0, 9, 9, first), (500, 0, 9, 9, second), (500, 0, 9, 9, third))
    assert evaluate_widerface({"0--Parade": {"a": predictions}}, [image((0, 0, 9, 9))]).easy == 0.5


def test_half_an_overlap_is_enough() -> None:
    """Borders counted, 10 x 5 pixels of 10 x 10 are IoU 1/2 and found, a little less is not."""
    for height, expected in ((4, 1.0), (3.99, 0.0)):
        predictions = rows((0, 0, 9, height, 0.9))
        assert evaluate_widerface({"0--Parade": {"a": predictions}}, [image((0, 0, 9, 9))]).easy == expected


def test_the_order_of_rows_does_not_matter() -> None:
    """A false alarm that stands before a surer hit is not counted before it."""
    hit, alarm = (0, 0, 9, 9, 0.9), (500, 0, 9, 9, 0.1)
    for order in ((hit, alarm), (alarm, hit)):
        assert evaluate_widerface({"0--Parade": {"a": rows(*order)}}, [image((0, 0, 9, 9))]).easy == 1.0


@st.composite
def cases(draw: st.DrawFn) -> tuple[WiderPredictions, list[WiderImage]]:
    """Up to 4 images, boxes on a coarse grid, scores unsorted, tied and beyond 0..1, faces in each subset at random."""
    number = st.integers(0, 8).map(float)
    side = st.sampled_from([0.0, 1.0, 2.0, 3.0, 3.5, 6.0])
    score = st.sampled_from([-0.5, 0.0, 0.001, 0.25, 0.2505, 0.5, 0.999, 1.0, 3.0]) | st.floats(0, 1)
    images, predictions = [], {}
    for index in range(draw(st.integers(1, 4))):
        boxes = draw(st.lists(st.tuples(number, number, side, side), min_size=int(index == 0), max_size=5))
        flags = st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes))
        counted = {subset: np.array(draw(flags), dtype=np.bool_) for subset in SUBSETS}
        if index == 0:  # every subset needs a face
            counted = {subset: np.append(True, flag[1:]) for subset, flag in counted.items()}
        labelled = np.array(boxes).reshape(-1, 4)
        images.append(WiderImage(event="e", name=str(index), boxes=labelled, counted=counted))
        predictions[str(index)] = rows(*draw(st.lists(st.tuples(number, number, side, side, score), max_size=7)))
    return {"e": predictions}, images


@settings(deadline=None, max_examples=60)
@given(cases())
def test_the_vectorised_evaluation_equals_the_plain_loop(case: tuple[WiderPredictions, list[WiderImage]]) -> None:
    """Same average precision as one threshold and one detection at a time."""
    expected = ORACLE["evaluate"](*case)
    assert evaluate_widerface(*case).to_dict() == pytest.approx(expected, rel=0, abs=1e-12)


def test_predictions_come_back_as_written_from_folder_and_archive(tmp_path: Path) -> None:
    """Every digit, the order of rows and images without detections survive, below another folder too."""
    rng = np.random.default_rng(0)
    written = {"0--Parade": {"a": rng.random((5, 5)) * 1000, "b": rows()}, "1--Handshaking": {"a": rng.random((1, 5))}}
    write_predictions(tmp_path / "pred", written)
    with tarfile.open(tmp_path / "pred.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "pred", "some/pred")
    for source in (tmp_path / "pred", tmp_path / "pred.tar.gz"):
        read = read_predictions(source)
        assert {event: list(images) for event, images in read.items()} == {
            "0--Parade": ["a", "b"],
            "1--Handshaking": ["a"],
        }
        for event, images in written.items():
            for name, expected in images.items():
                np.testing.assert_array_equal(read[event][name], expected)


def test_prediction_rows_give_corner_width_and_height() -> None:
    """x1, y1, x2, y2 = 10, 20, 40, 60 is written as 10, 20, 30, 40."""
    detections = Detections(
        boxes=np.array([[10, 20, 40, 60]], dtype=np.float32),
        scores=np.array([0.5], dtype=np.float32),
        landmarks=np.zeros((1, 10), dtype=np.float32),
    )
    assert prediction_rows(detections).tolist() == [[10, 20, 30, 40, 0.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0--Parade/a.jpg\n2\n1 2 3 4 0.5\n1 2 3 x 0.4\n", r"a\.txt, line 4: expected x, y.*'1 2 3 x 0\.4'"),
        ("0--Parade/a.jpg\n2\n1 2 3 4 0.5\n\n1 2 3\n", r"a\.txt, line 5"),
        ("0--Parade/a.jpg\n1\n1 2 3 4 nan\n", r"a\.txt, line 3"),
        ("0--Parade/a.jpg\n3\n1 2 3 4 0.5\n", r"a\.txt, line 2: .*follow, 1; got '3'"),
        ("0--Parade/a.jpg\n", r"a\.txt, line 2"),
        ("", r"a\.txt, line 1"),
        ("0--Parade/a.jpg\n1\n1 2 \udcff 4 0.5\n", r"a\.txt, line 3: expected plain text"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_broken_line_is_named_with_its_file(text: str, message: str, packed: bool, tmp_path: Path) -> None:
    """The sentence says which file, which line, and what was expected there."""
    source = tmp_path / "pred"
    (source / "0--Parade").mkdir(parents=True)
    (source / "0--Parade" / "a.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    if packed:
        with tarfile.open(tmp_path / "pred.tar.gz", "w:gz") as archive:
            archive.add(source, "pred")
        source = tmp_path / "pred.tar.gz"
    with pytest.raises(DataError, match=message):
        read_predictions(source)


def test_more_columns_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    """What follows the score is left alone, as are blank lines."""
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "a.txt").write_bytes(b"a\r\n1\r\n1 2  3 4 0.5 7 7\r\n\r\n")
    assert read_predictions(tmp_path)["e"]["a"].tolist() == [[1, 2, 3, 4, 0.5]]


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    """No folder, an empty one, no archive, a missing event, a missing image, and one given twice."""
    with pytest.raises(DataError, match=r"No predictions at .*nowhere"):
        read_predictions(tmp_path / "nowhere")
    with pytest.raises(DataError, match="No predictions in"):
        read_predictions(tmp_path)
    (tmp_path / "pred.tar.gz").write_bytes(b"\x1f\x8b not an archive")
    with pytest.raises(DataError, match="not a whole tar archive"):
        read_predictions(tmp_path / "pred.tar.gz")
    write_predictions(tmp_path / "pred", {"0--Parade": {"b": rows()}})
    with pytest.raises(DataError, match=r"event 9--Other in .*pred"):
        evaluate_widerface(
            tmp_path / "pred",
            [WiderImage(event="9--Other", name="a", boxes=np.zeros((0, 4)), counted={})],
        )
    with pytest.raises(DataError, match=r"No predictions for 0--Parade/a\.jpg in .*pred"):
        evaluate_widerface(tmp_path / "pred", [image((0, 0, 9, 9))])
    write_predictions(tmp_path / "pred" / "again", {"0--Parade": {"b": rows()}})
    with pytest.raises(DataError, match=r"0--Parade/b were read already"):
        read_predictions(tmp_path / "pred")


def test_only_files_of_an_event_are_predictions(tmp_path: Path) -> None:
    """A note beside the events and a hidden file in one, as some systems leave, are not read."""
    write_predictions(tmp_path, {"0--Parade": {"a": rows()}})
    (tmp_path / "readme.txt").write_text("how these were made")
    (tmp_path / "0--Parade" / "._a.txt").write_bytes(b"\x00\xff")
    assert {event: list(images) for event, images in read_predictions(tmp_path).items()} == {"0--Parade": ["a"]}


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    """A download that stopped half way does not score as fewer detections."""
    rng = np.random.default_rng(0)
    write_predictions(tmp_path / "pred", {"e": {str(index): rng.random((50, 5)) for index in range(20)}})
    whole = tmp_path / "pred.tar.gz"
    with tarfile.open(whole, "w:gz") as archive:
        archive.add(tmp_path / "pred", "pred")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match="not a whole tar archive"):
        read_predictions(whole)


def save_ground_truth(folder: Path, *, numbers: list[int]) -> None:
    """Write the four .mat files for one event of two images; `numbers` are the faces counted in the first."""

    def cell(*items: object) -> NDArray[np.object_]:
        column = np.empty((len(items), 1), dtype=object)
        column[:, 0] = items
        return column

    boxes = cell(np.array([[0, 0, 9, 9], [100, 0, 9, 9]], dtype=np.int32), np.array([[5, 5, 20, 30]], dtype=np.int32))
    faces = {"event_list": cell("0--Parade"), "file_list": cell(cell("a", "b")), "face_bbx_list": cell(boxes)}
    savemat(folder / "wider_face_val.mat", faces)
    counted = cell(np.array(numbers, dtype=np.uint8).reshape(-1, 1), np.empty((0, 1), dtype=np.uint8))
    for subset in SUBSETS:
        savemat(folder / f"wider_{subset}_val.mat", {"gt_list": cell(counted)})


def test_ground_truth_is_read_from_mat_files(tmp_path: Path) -> None:
    """Faces are numbered from 1 in the subset lists; an image may have none that counts."""
    save_ground_truth(tmp_path, numbers=[2])
    first, second = read_ground_truth(tmp_path)
    assert (first.event, first.name, second.name) == ("0--Parade", "a", "b")
    assert first.boxes.tolist() == [[0, 0, 9, 9], [100, 0, 9, 9]]
    assert first.counted["hard"].tolist() == [False, True]
    assert second.counted["hard"].tolist() == [False]


@pytest.mark.parametrize("numbers", [[3], [0]])
def test_a_subset_of_faces_that_do_not_exist_is_refused(numbers: list[int], tmp_path: Path) -> None:
    """Face 3 of 2 and face 0 say that the files do not belong together."""
    save_ground_truth(tmp_path, numbers=numbers)
    with pytest.raises(DataError, match="do not fit together"):
        read_ground_truth(tmp_path)


def test_missing_and_broken_ground_truth_is_named(tmp_path: Path) -> None:
    """A missing, a foreign, an empty and an incomplete .mat file, and one that counts no face."""
    with pytest.raises(DataError, match=r"No wider_face_val\.mat in"):
        read_ground_truth(tmp_path)
    for content in (b"not a MATLAB file, but longer than its header of 128 bytes" * 9, b"short", b""):
        (tmp_path / "wider_face_val.mat").write_bytes(content)
        with pytest.raises(DataError, match=r"wider_face_val\.mat cannot be read"):
            read_ground_truth(tmp_path)
    save_ground_truth(tmp_path, numbers=[])
    predictions: WiderPredictions = {"0--Parade": {"a": rows(), "b": rows()}}
    with pytest.raises(DataError, match="counts no face as easy"):
        evaluate_widerface(predictions, tmp_path)
    savemat(tmp_path / "wider_hard_val.mat", {"other": np.zeros(1)})
    with pytest.raises(DataError, match=r"wider_hard_val\.mat lacks 'gt_list'"):
        read_ground_truth(tmp_path)
