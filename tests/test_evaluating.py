"""`featherpress evaluate`: records, files and mistakes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from rich.console import Group

from featherpress.compress.data import WiderFaces
from featherpress.compress.data.sources.predicted import PredictedFaces
from featherpress.compress.evaluation import DetectionSet, read_predictions
from featherpress.compress.evaluation.detector.listing import render_evaluation
from featherpress.compress.evaluation.detector.settings import CANDIDATES, TOP_K, DetectionSettings
from featherpress.compress.evaluation.metrics.coco import MOST_DETECTIONS

Run = Callable[..., Any]


@pytest.fixture
def coco(wider: Path, tmp_path: Path) -> Path:
    """The validation images of the small folder again, in COCO's format."""
    data, folder = WiderFaces(wider, "val"), tmp_path / "coco"
    folder.mkdir()
    (folder / "images").symlink_to(wider / "WIDER_val" / "images")
    rows = [
        {"image_id": index, "category_id": 1, "bbox": [x, y, right - x, bottom - y]}
        for index in range(len(data))
        for x, y, right, bottom in data.labelled[index].objects.boxes.tolist()
    ]
    content = {
        "images": [{"id": index, "file_name": data.name(index)} for index in range(len(data))],
        "annotations": rows,
        "categories": [{"id": 1, "name": "face"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_the_record_is_stamped_and_written(run_command: Run, wider: Path, weights: Path, tmp_path: Path) -> None:
    """Protocol and the weights' hash are in the record; `--out` holds it with detections, text files and a figure."""
    arguments = ("evaluate", "--weights", weights, "--data", wider, "--flip", "--long-side", 64, "--batch", 2)
    ending = run_command(*arguments, "--out", "out", "--json")
    assert ending.code == 0, ending.err
    record = json.loads(ending.out)
    assert record["model"] == "featherface_v2"
    assert record["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["protocol"]["flip"] is True
    assert record["protocol"]["test_scale"] == "long side 64"
    assert set(record["coco"]) >= {"ap", "ap50", "ap75", "most_detections"}
    out = tmp_path / "out"
    assert json.loads((out / "evaluation.json").read_text()) == record
    found = DetectionSet.load(out / "detections.npz")
    assert found.names == tuple(f"0--Test/val_{index}.jpg" for index in range(4))
    assert [len(rows) for rows in read_predictions(out / "predictions")["0--Test"].values()] == [
        len(each) for each in found.detections
    ]
    with Image.open(out / "precision_recall.png") as figure:
        assert figure.size[0] > 500
    again = run_command(*arguments, "--out", "out")
    assert again.code == 2
    assert "not an empty folder" in again.err


def test_coco_format_scores_as_the_same_labels_in_wider_layout(
    run_command: Run, wider: Path, coco: Path, weights: Path
) -> None:
    """The same faces in another format give the same AP, by height too."""
    both = [
        json.loads(run_command("evaluate", "--weights", weights, "--data", data, "--no-coco", "--json").out)
        for data in (wider, coco)
    ]
    assert both[0]["by_height"] == both[1]["by_height"]
    assert both[0]["ap"] == both[1]["ap"]
    assert "coco" not in both[0]


def test_the_printed_table_fits_eighty_columns(run_command: Run, wider: Path, weights: Path) -> None:
    """Scores, protocol and weights, without colour."""
    out = run_command("evaluate", "--weights", weights, "--data", wider).out
    assert max(map(len, out.splitlines())) <= 80
    for words in ("COCO: AP", "AP50 differs from the AP above", "flip no", "NMS 0.4", "sha256"):
        assert words in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--ground-truth", "nowhere"), "No wider_face_val.mat in nowhere"),
        (("--category", "head"), "faces of WIDER FACE have no --category"),
        (("--present-only",), "goes with --ground-truth"),
        (("--long-side", 5), "32 to 16384"),
        (("--out", "."), "not an empty folder"),
        (("--predictions", "x"), "not both"),
    ],
)
def test_mistakes_end_in_a_sentence(
    run_command: Run, wider: Path, weights: Path, options: tuple[str, ...], says: str
) -> None:
    """One line, exit code 2, before any image is looked at."""
    ending = run_command("evaluate", "--weights", weights, "--data", wider, *options)
    assert ending.code == 2
    assert says in ending.err
    assert len(ending.err.splitlines()) == 1


def test_the_working_point_is_an_option(run_command: Run, wider: Path, weights: Path) -> None:
    """Half unless told otherwise, at least the threshold, and never below it."""
    options = ("evaluate", "--weights", weights, "--data", wider, "--no-coco", "--json")
    for more, at in (((), 0.5), (("--threshold", 0.6), 0.6), (("--at", 0.25), 0.25)):
        record = json.loads(run_command(*options, *more).out)
        assert record["working_point"]["threshold"] == at
        assert set(record["best_f1"]) == {"threshold", "precision", "recall", "f1"}
    ending = run_command(*options, "--at", 0.01)
    assert (ending.code, "--at 0.01 is below --threshold 0.02" in ending.err) == (2, True)


def test_thresholds_are_options_and_recorded(run_command: Run, wider: Path, weights: Path) -> None:
    """The least score and the overlap of suppression are the protocol's, of an evaluation and of detections."""
    options = ("--weights", weights, "--threshold", 0.3, "--nms", 0.6, "--json")
    images = wider / "WIDER_val" / "images"
    for arguments in (("evaluate", "--data", wider), ("detect", images, "--recursive")):
        protocol = json.loads(run_command(*arguments, *options).out)["protocol"]
        assert (protocol["score_threshold"], protocol["nms_iou"]) == (0.3, 0.6)
    assert run_command("evaluate", "--data", wider, "--nms", 1.5).code == 2


def test_predictions_are_scored_as_they_are(run_command: Run) -> None:
    """What is said of images would be ignored for text predictions, so that it is refused."""
    ending = run_command("evaluate", "--predictions", "x", "--ground-truth", "y", "--limit", 3)
    assert ending.code == 2
    assert "--limit goes with --data" in ending.err


def test_labels_without_a_face_are_said_to_be(run_command: Run, wider: Path, weights: Path) -> None:
    """No face to find is no AP of 0, and is known before the work."""
    labels = wider / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    labels.write_text("0--Test/val_0.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n")
    ending = run_command("evaluate", "--weights", weights, "--data", wider)
    assert ending.code == 2
    assert "no valid face" in ending.err


def test_labels_are_checked_before_the_work(run_command: Run, wider: Path, weights: Path) -> None:
    """All images that cannot be used are counted, the first with its line in the label file."""
    for index in (1, 3):
        (wider / "WIDER_val" / "images" / "0--Test" / f"val_{index}.jpg").unlink()
    ending = run_command("evaluate", "--weights", weights, "--data", wider)
    assert ending.code == 2
    assert "wider_face_val_bbx_gt.txt, line" in ending.err
    assert "1 more of 4 images cannot be used" in ending.err


def test_text_predictions_are_scored_with_a_figure(run_command: Run, shared: Path, tmp_path: Path) -> None:
    """The official files of the reference give its three numbers, and curves that fall."""
    folder = shared / "data" / "wider_eval"
    arguments = ("--predictions", folder / "predictions_a.tar.gz", "--ground-truth", folder / "ground_truth")
    record = json.loads(run_command("evaluate", *arguments, "--json", "--out", "out").out)
    expected = json.loads((folder / "expected_a.json").read_text())
    assert [record[key] for key in ("easy", "medium", "hard")] == pytest.approx(
        [expected[key] for key in ("easy", "medium", "hard")], rel=0, abs=1e-9
    )
    with Image.open(tmp_path / "out" / "precision_recall.png") as figure:
        assert np.asarray(figure).std() > 0


OLD_KEYS = ("schema", "threshold", "protocol", "tile", "overlap", "skipped", "images")
"""What records of detections had before they named the model."""


def test_the_documentation_prints_and_limits_as_the_program_does() -> None:
    """The sentence on COCO's AP, and how many boxes go into suppression and come out of it, stand there as they are."""
    text = " ".join((Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8").split())
    data = {"images": 1, "ignored": 0, "faces": 1}
    coco = {"ap": 0.3, "ap50": 0.8, "ap75": 0.1, "most_detections": MOST_DETECTIONS}
    record = {"data": data, "protocol": DetectionSettings().to_dict(), "coco": coco, "by_height": [], "ap": 0.8}
    group = cast("Group", render_evaluation(record))
    [sentence] = [str(line) for line in group.renderables if str(line).startswith("AP50")]
    assert sentence in text
    assert f"the {CANDIDATES:,} boxes of the highest scores go into suppression, and at most {TOP_K} come out" in text


def detections(folder: Path, faces: dict[str, list[tuple[float, list[float]]]], **other: object) -> str:
    """What `detect --json` writes of images in a folder."""
    images = [
        {"file": str(folder / name), "faces": [{"box": box, "score": score} for score, box in found]}
        for name, found in faces.items()
    ]
    return json.dumps({"schema": "featherpress.detections/1", "threshold": 0.2, "images": images} | other)


def test_a_model_is_held_against_another_where_nobody_labelled(
    run_command: Run, wider: Path, weights: Path, tmp_path: Path
) -> None:
    """What a model finds itself agrees with it wholly; what it was not sure of is ignored, neither face nor alarm."""
    images = wider / "WIDER_val" / "images"
    found = run_command("detect", images, "--recursive", "--weights", weights, "--threshold", 0.02, "--json").out
    (tmp_path / "found.json").write_text(found)
    scores = [face["score"] for image in json.loads(found)["images"] for face in image["faces"]]
    positive_threshold = sorted(scores)[len(scores) // 2]
    arguments = ("evaluate", "--weights", weights, "--data", images, "--labels", tmp_path / "found.json")
    record = json.loads(run_command(*arguments, "--positive-threshold", positive_threshold, "--no-coco", "--json").out)
    assert record["ap"] == 1
    assert record["data"]["labels"] == {
        "file": "found.json",
        "positive_threshold": positive_threshold,
        "ignore_threshold": 0.02,
        **{key: json.loads(found)[key] for key in ("model", "weights", "weights_sha256")},
    }
    assert record["data"]["faces"] == sum(score >= positive_threshold for score in scores)
    assert record["data"]["ignored"] == sum(score < positive_threshold for score in scores)
    (tmp_path / "found.json").write_text(json.dumps({key: json.loads(found)[key] for key in OLD_KEYS}))
    old = json.loads(run_command(*arguments, "--positive-threshold", positive_threshold, "--no-coco", "--json").out)
    assert (old["ap"], [*old["data"]["labels"]]) == (1, [*record["data"]["labels"]][:3])
    shown = run_command(*arguments, "--positive-threshold", positive_threshold, "--no-coco").out
    assert "how far the two agree, not accuracy" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "expected JSON"),
        ('{"schema": "featherpress.evaluation/1"}', "expected the schema 'featherpress.detections/1'"),
        (detections(Path("data"), {}, threshold=None), "threshold: expected a finite number"),
        (detections(Path("/elsewhere"), {"a.jpg": []}), "image 1: expected an image in"),
        (detections(Path("data"), {"a.jpg": [(0.9, [1, 2, 3])]}), "key 3 is missing in images[1].faces[1].box"),
        (
            detections(Path("data"), {"a.jpg": [(0.9, [1, 2, 30, 40])]}),
            "expected an image at data/a.jpg, found nothing",
        ),
        (detections(Path("data"), {"b.png": [(0.3, [1, 2, 30, 40])]}), "no valid face"),
    ],
)
def test_mistakes_in_what_another_model_found(
    run_command: Run, weights: Path, tmp_path: Path, content: str, words: str
) -> None:
    """Each is one sentence that names the file and the place in it."""
    (tmp_path / "data").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "data" / "b.png")
    (tmp_path / "found.json").write_text(content)
    ending = run_command("evaluate", "--weights", weights, "--data", "data", "--labels", "found.json")
    assert ending.code == 2
    assert words in ending.err
    assert "found.json" in ending.err


def test_an_empty_box_is_no_face_to_find(tmp_path: Path) -> None:
    """What another model found beyond the border, cut to nothing, could never be found: it is ignored."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    faces: list[tuple[float, list[float]]] = [(0.9, [1, 2, 30, 40]), (0.9, [64, 2, 64, 40]), (0.3, [1, 2, 30, 40])]
    (tmp_path / "found.json").write_text(detections(tmp_path, {"a.png": faces}))
    assert PredictedFaces(tmp_path, tmp_path / "found.json").labelled[0].objects.ignored.tolist() == [False, True, True]


def test_a_baseline_puts_an_interval_on_the_difference(
    run_command: Run, wider: Path, weights: Path, tmp_path: Path
) -> None:
    """A few images of the same model decide nothing; other images, or no evaluation, are refused."""
    arguments = ("evaluate", "--weights", weights, "--data", wider, "--no-coco")
    first = json.loads(run_command(*arguments, "--out", "first", "--json").out)
    assert "baseline" not in first
    again = json.loads(run_command(*arguments, "--baseline", "first", "--json").out)["baseline"]
    assert (again["folder"], again["ap"], again["verdict"]) == ("first", first["ap"], "undecided")
    assert (again["difference"]["mean"], again["difference"]["low"], again["difference"]["high"]) == (0, 0, 0)
    shown = run_command(*arguments, "--baseline", "first").out
    assert "scores 0.000 higher than v2.safetensors of first in AP" in " ".join(shown.split())
    fewer = run_command(*arguments, "--limit", 2, "--baseline", "first")
    assert fewer.code == 2
    assert "other images or other faces" in fewer.err
    assert run_command(*arguments, "--baseline", tmp_path).code == 2
