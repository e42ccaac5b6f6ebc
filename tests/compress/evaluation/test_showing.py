"""An evaluation as a table with its lines, and detections drawn into an image, both to the letter."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from torch import Tensor

from featherpress.compress.evaluation import Detections
from featherpress.compress.evaluation.detector.listing import render_evaluation
from featherpress.compress.evaluation.detector.render import draw_detections

RECORD: dict[str, Any] = {
    "by_height": [{"name": "< 16", "faces": 1200, "ap": 0.25}, {"name": "> 96", "faces": 0, "ap": None}],
    "ap": 0.5,
    "data": {"faces": 1200, "images": 1234, "ignored": 5678, "missing": 1000},
    "protocol": {
        "iou": 0.5,
        "test_scale": "original",
        "flip": False,
        "nms_iou": 0.4,
        "score_threshold": 0.02,
        "top_k": 750,
    },
}
PROTOCOL = (
    "1,234 images, 5,678 faces ignored; IoU 0.5, scale original, flip no, NMS 0.4, scores from 0.02, "
    "at most 750 an image"
)


def shown(**more: Any) -> list[str]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_evaluation(RECORD | more))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_table_of_an_evaluation() -> None:
    """Heights to the left, numbers to the right, no AP where there is no face, and below how it was measured."""
    assert shown() == [
        "face height  faces     AP",
        "< 16 px      1,200  0.250",
        "> 96 px          0      -",
        "all          1,200  0.500",
        PROTOCOL,
    ]


def test_what_stands_below_the_table() -> None:
    """WIDER FACE's three numbers and whether they are official, COCO's, the labels' and the baseline's, the weights."""
    data = RECORD["data"]
    wider = {"easy": 0.91, "medium": 0.82, "hard": 0.73456}
    below = shown(**wider, weights="w.pt", weights_sha256="0123456789abcdef")[4:]
    assert below == [
        *("WIDER FACE:", "easy    0.9100", "medium  0.8200", "hard    0.7346"),
        "no official result: 1,000 of its images are missing",
        PROTOCOL,
        "weights w.pt, sha256 0123456789ab",
    ]
    points = {"working_point": {"threshold": 0.5, "precision": None, "recall": 0.0, "f1": 0.0}}
    points["best_f1"] = {"threshold": 0.25, "precision": 0.5, "recall": 1.0, "f1": 2 / 3}
    assert shown(**points)[4:6] == [
        "from a score of 0.500: precision -, recall 0.000, F1 0.000",
        "best F1, from a score of 0.250: precision 0.500, recall 1.000, F1 0.667",
    ]
    assert "no official" not in "".join(shown(**wider, data=data | {"missing": 0}))
    (coco, differs, labels, baseline, _) = shown(
        coco={"ap": 0.1, "ap50": 0.2, "ap75": None, "most_detections": 100},
        data=data | {"labels": {"file": "t.json", "positive_threshold": 0.6}},
        baseline={"folder": "old", "ap": 0.25, "sentence": "better by 0.25"},
    )[4:]
    assert coco == "COCO: AP 0.100, AP50 0.200, AP75 -"
    assert "100 detections of an image" in differs
    assert labels.startswith("compared with another model's detections (t.json), faces from a score of 0.6: ")
    assert baseline == "baseline old: AP 0.250; better by 0.25"


ORANGE, BLUE = torch.tensor([230, 159, 0]), torch.tensor([86, 180, 233])


def drawn(*boxes: tuple[float, float, float, float], long: int = 200) -> Tensor:
    """Draw boxes that score 0.87, with their landmarks in the middle, into a black image of 100 rows; (H, W, 3)."""
    corners = np.array(boxes).reshape(-1, 4)
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    found = Detections(boxes=corners, scores=np.full(len(boxes), 0.87), landmarks=np.tile(middle, (1, 5)))
    return draw_detections(torch.zeros(3, 100, long, dtype=torch.uint8), found).permute(1, 2, 0)


def is_orange(pixels: Tensor) -> bool:
    return bool((pixels == ORANGE).all())


def test_boxes_points_and_scores_are_drawn() -> None:
    """A box's edges and its landmarks have their colours, its score stands above it, and its face is left in sight."""
    image = drawn((20, 40, 60, 80))
    assert is_orange(image[40:81, 20])
    assert is_orange(image[40:81, 60])
    assert is_orange(image[80, 20:61])
    assert (image[60, 40] == BLUE).all()
    inside = image[42:79, 22:59].reshape(-1, 3)
    assert int((inside != 0).any(dim=1).sum()) < 20
    label = image[28:40, 20:36]
    assert (label == ORANGE).all(dim=-1).float().mean() > 0.2
    assert (label == 0).all(dim=-1).any()
    assert not image[:25].any()
    assert not image[82:].any()


def test_a_score_stands_in_its_box() -> None:
    """The label is as large as its text, its corner at the box's, and nothing else is drawn up there."""
    font = ImageFont.load_default(size=9)
    draw = ImageDraw.Draw(Image.new("RGB", (9, 9)))
    top = 40 - draw.textbbox((0, 0), "0.87", font=font)[3] - 2
    left, upper, right, lower = (round(edge) for edge in draw.textbbox((20, top), "0.87", font=font))
    above = drawn((20, 40, 60, 80))[:40]
    rows, columns = (above != 0).any(dim=-1).nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (upper, lower)
    assert abs(int(columns.min()) - left) <= 1
    assert abs(int(columns.max()) - right) <= 1


def test_a_score_without_room_above_stands_below() -> None:
    """At the image's top it is below the box, and at its left edge it begins at the edge."""
    image = drawn((-10, 2, 30, 40))
    assert (image[42:50, 0:15] == ORANGE).all(dim=-1).float().mean() > 0.2
    assert (image[42:50, 0] == ORANGE).all(dim=-1).any()
    assert not image[0].any()


def test_lines_grow_with_the_image() -> None:
    """A line is a pixel for each 640 of the longer side; where nothing was found the image stays what it is."""
    assert (drawn((300, 40, 400, 80), long=1280)[60, 298:303] == ORANGE).all(dim=-1).sum() == 2
    assert (drawn((100, 40, 150, 80))[60, 98:103] == ORANGE).all(dim=-1).sum() == 1
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    nothing = Detections(boxes=np.zeros((0, 4)), scores=np.zeros(0), landmarks=np.zeros((0, 10)))
    assert draw_detections(image, nothing) is image
