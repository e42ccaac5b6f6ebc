"""Exports of torchvision's detectors: one graph gives boxes and scores, and is scored with the model's suppression."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD

from featherpress.compress.deployment.graphs import GraphOptions, find_subject
from featherpress.compress.recipes import load_recipe
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.objects.detectors import build_detector
from featherpress.compress.tasks.objects.inference import Suppressed, find_objects
from featherpress.errors import UsageError
from featherpress.models import save_weights
from featherpress.models.decoded import DecodedDetector
from featherpress.models.factories import load_factory
from featherpress.models.fcos import Pyramid, fcos
from featherpress.models.inputs import input_of
from featherpress.models.ssdlite import ssdlite

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.needs_torch("2.9", "exporting")
Run = Callable[..., Any]
TWO_STAGES = "torchvision.models.detection:fasterrcnn_mobilenet_v3_large_320_fpn"
FCOS = "featherpress.models.fcos:fcos"
SMALL = {"num_classes": 3, "width": 4, "channels": 32, "size": 64}
RECIPE = """
name = "cells"
student.model = "featherpress.models.fcos:fcos"
student.settings = { num_classes = 3, width = 4, channels = 32, size = 64 }
data = { kind = "coco", root = "ROOT", size = 64 }
schedule = { epochs = 1, batch_size = 3 }
"""


def retinanet(size: int) -> RetinaNet:
    """Build a small RetinaNet, which pads images to a multiple of 32."""
    anchors = AnchorGenerator(((16, 24), (32, 48), (64, 96)), ((0.5, 1.0),) * 3)
    pyramid = Pyramid(4, 1, 32)
    return RetinaNet(pyramid, 3, min_size=size, max_size=size, anchor_generator=anchors, head=RetinaNetHead(32, 4, 3))


def shaken(model: nn.Module) -> Any:
    """Give a detector's head weights with which it is sure of something."""
    for weight in model.head.parameters():  # type: ignore[union-attr]
        nn.init.normal_(weight, std=0.1)
    return model.eval()


def rows(found: Mapping[str, Tensor]) -> Tensor:
    """List detections of categories: score, label, box; equal scores in an order of their own."""
    listed = torch.cat([found["scores"][:, None], found["labels"][:, None].float(), found["boxes"]], dim=1)
    return torch.tensor(sorted(listed[found["labels"] > 0].double().round(decimals=3).tolist()))


def write(root: Path, model: nn.Module) -> None:
    """Write noisy images in COCO's format, in which there is what a model is surest of, so that it is right."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        annotations = []
        for number in range(4):
            pixels = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            found = find_objects(model, torch.from_numpy(pixels).permute(2, 0, 1))
            for (x, y, right, bottom), kind in zip(
                found["boxes"][:8].tolist(), found["labels"][:8].tolist(), strict=True
            ):
                shape = [x, y, right - x, bottom - y]
                annotations.append({"image_id": number, "category_id": max(kind, 0), "bbox": shape})
        images = [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 64} for number in range(4)]
        names = [{"id": kind, "name": name} for kind, name in enumerate(("disc", "box"))]
        content = {"images": images, "annotations": annotations, "categories": names}
        (root / split / "annotations.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "build",
    [lambda: fcos(3, width=4, channels=32, size=96), lambda: ssdlite(3, width=0.25, size=96), lambda: retinanet(72)],
)
@torch.inference_mode()
def test_the_graph_finds_what_the_model_does(build: Callable[[], nn.Module]) -> None:
    """Boxes, scores and categories, once suppressed, are those of torchvision's own forward, of any image's shape."""
    torch.manual_seed(0)
    model = shaken(build())
    model.score_thresh, model.detections_per_img, model.topk_candidates = 0.4, 10_000, 10_000
    decoded = DecodedDetector(model)
    side = decoded.side
    image = torch.rand(3, side, side) if isinstance(model, RetinaNet) else torch.rand(3, 80, 120)
    ours, theirs = rows(Suppressed(decoded, model, side=side)([image])[0]), rows(model([image])[0])
    assert len(theirs) > 5
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-3)
    boxes, scores = decoded(torch.rand(3, 3, side, side))
    assert boxes.shape[:2] == scores.shape[:2]
    assert (boxes.shape[2], scores.shape[2]) == (4, 2)
    assert (decoded.softmax, decoded.padding) == (isinstance(model, SSD), 24 if isinstance(model, RetinaNet) else 0)


def test_a_detector_ships_in_eight_bits(tmp_path: Path, run_command: Run) -> None:
    """Both files are scored by mAP as the model is, and say their categories and their size."""
    (tmp_path / "cells.toml").write_text(RECIPE.replace("ROOT", str(tmp_path / "data")))
    torch.manual_seed(0)
    write(tmp_path / "data", shaken(build_detector(FCOS, SMALL, classes=2, side=64)))
    torch.manual_seed(0)
    task = task_of(load_recipe(str(tmp_path / "cells.toml")))
    model = shaken(task.build(FCOS, SMALL))
    save_weights(model, tmp_path / "last.safetensors")
    options = ["--recipe", "cells.toml", "--weights", "last.safetensors", "--out", "c.onnx", "--int8"]
    ending = run_command("export", *options, "--calibration-images", "2")
    assert ending.code == 0, ending.err
    record = json.loads((tmp_path / "c.export.json").read_text())
    evaluation = record["evaluation"]
    expected = task.evaluate(model, task.open("val"), label="").score
    assert expected > 0.5
    assert evaluation["metric"] == {"key": "map", "name": "mAP"}
    assert evaluation["float32"]["score"] == pytest.approx(expected, abs=0.02)
    assert evaluation["int8"]["score"] > 0
    assert [each["name"] for each in evaluation["int8"]["by_class"]] == ["disc", "box"]
    assert record["outputs"] == ["boxes", "scores"]
    assert record["input"]["dynamic"] == ["batch"]
    about = {each.key: each.value for each in onnx.load(tmp_path / "c.int8.onnx").metadata_props}
    assert json.loads(about["takes"])["classes"] == ["disc", "box"]
    assert about["preprocessing"] == "RGB, 0..1, minus (0, 0, 0), over (1, 1, 1), 64 pixels a side"


def test_a_detector_is_exported_by_its_name() -> None:
    """Without a recipe it is what images it takes by itself; one of two stages is refused."""
    subject = find_subject("featherpress.models.fcos:fcos", None, options=GraphOptions(), model=fcos(3, size=64))
    assert subject.outputs == ("boxes", "scores")
    assert subject.shapes == ((1, 3, 64, 64), (2, 3, 64, 64))
    takes = input_of(subject.original)
    assert takes is not None
    assert takes.size == 64
    two = load_factory(TWO_STAGES, {"num_classes": 3, "weights_backbone": "none"})
    with pytest.raises(UsageError, match="looks at regions that it finds in an image"):
        find_subject("x:fasterrcnn", None, options=GraphOptions(), model=two)


def test_detectors_that_scale_into_a_square_take_one_side() -> None:
    """A height and a width that differ are refused in a sentence."""
    with pytest.raises(UsageError, match="scales images into a square itself: give --input one side"):
        find_subject(FCOS, None, options=GraphOptions(), side=(64, 96), model=fcos(**SMALL))
