"""Detection of any categories: torchvision's detectors, their losses, COCO's mAP, and a recipe from end to end."""

import copy
import csv
import json
import logging
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from featherpress.commands.recipes import audit_recipe
from featherpress.compress.evaluation.metrics.mean_precision import (
    ObjectSet,
    match_categories,
    summarize,
    weighted_map,
)
from featherpress.compress.evaluation.saved_scores import map_scores
from featherpress.compress.experiments.distill import distill
from featherpress.compress.recipes import Recipe, load_recipe, recipe_to_toml
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.compress.tasks.objects.detectors import build_detector, is_torchvisions
from featherpress.compress.tasks.objects.task import ObjectsTask
from featherpress.errors import CountError, DataError, UsageError
from featherpress.models.fcos import fcos
from featherpress.models.ssdlite import ssdlite

SMALL = {"width": 0.25, "size": 64}
TORCHVISION = "torchvision.models.detection:"


def write(root: Path, *, images: int = 6, categories: tuple[str, ...] = ("disc", "box")) -> Path:
    """Write both splits of drawn discs and boxes in COCO's format."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        rows: dict[str, list[Any]] = {"images": [], "annotations": []}
        for number in range(images):
            picture = Image.new("RGB", (96, 80), "grey")
            for kind in range(len(categories)):
                x, y, side = random.integers(0, 50), random.integers(0, 40), random.integers(16, 30)
                corners = [int(x), int(y), int(x + side), int(y + side)]
                draw = ImageDraw.Draw(picture)
                (draw.ellipse if kind else draw.rectangle)(corners, fill="white" if kind else "black")
                box = [*corners[:2], int(side), int(side)]
                rows["annotations"].append({"image_id": number, "category_id": kind, "bbox": box})
            picture.save(root / split / f"{number}.png")
            rows["images"].append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 80})
        rows["categories"] = [{"id": kind, "name": name} for kind, name in enumerate(categories)]
        (root / split / "annotations.json").write_text(json.dumps(rows))
    return root


def recipe_of(root: Path, **changed: Any) -> Recipe:
    model = {"model": "featherpress.models.ssdlite:ssdlite", "settings": SMALL}
    schedule = {"epochs": 1, "batch_size": 3}
    content = {
        "name": "objects",
        "student": model,
        "teacher": model | {"schedule": schedule},
        "data": {"kind": "coco", "root": str(root), "size": 64},
        "schedule": schedule,
        "distillation": {"losses": {"class": {"loss": "kl"}}},
    }
    return Recipe.model_validate(content | changed)


def found_in(images: int, categories: int, *, seed: int = 0) -> ObjectSet:
    """Draw objects, some of them crowds, and detections near most of them and elsewhere."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in ("boxes", "scores", "classes", "truth", "kinds", "ignored")}
    counts = []
    for _ in range(images):
        n = int(random.integers(0, 9))
        corner, side = random.uniform(0, 300, (n, 2)), random.uniform(40, 120, (n, 2))
        truth, kinds = np.concatenate([corner, corner + side], axis=1), random.integers(0, categories, n)
        other = random.uniform(0, 300, (4, 2))
        near = truth[random.random(n) < 0.8]
        boxes = np.concatenate([near + random.normal(0, 6, near.shape), np.concatenate([other, other + 50], axis=1)])
        rows["boxes"].append(boxes)
        rows["scores"].append(random.random(len(boxes)))
        rows["classes"].append(random.integers(0, categories, len(boxes)))
        rows["truth"].append(truth)
        rows["kinds"].append(kinds)
        rows["ignored"].append(random.random(n) < 0.15)
        counts.append((len(boxes), n))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return ObjectSet(
        names=tuple(map(str, range(images))),
        categories=tuple("abcdef"[:categories]),
        found=np.array([count for count, _ in counts]),
        boxes=joined["boxes"],
        scores=joined["scores"],
        classes=joined["classes"],
        labelled=np.array([count for _, count in counts]),
        truth_boxes=joined["truth"],
        truth_classes=joined["kinds"],
        truth_ignored=joined["ignored"],
    )


def test_map_is_cocos() -> None:
    """mAP, AP50, AP75 and every category agree with COCO's own evaluation, crowds included."""
    from torchmetrics.detection import MeanAveragePrecision

    found = found_in(40, 3)
    metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
    detections, truths = [], []
    ends = np.cumsum(found.found), np.cumsum(found.labelled)
    for image in range(40):
        rows = slice(ends[0][image] - found.found[image], ends[0][image])
        boxes, scores = torch.tensor(found.boxes[rows]), torch.tensor(found.scores[rows])
        detections.append({"boxes": boxes, "scores": scores, "labels": torch.tensor(found.classes[rows])})
        rows = slice(ends[1][image] - found.labelled[image], ends[1][image])
        boxes, crowds = torch.tensor(found.truth_boxes[rows]), torch.tensor(found.truth_ignored[rows])
        truths.append({"boxes": boxes, "labels": torch.tensor(found.truth_classes[rows]), "iscrowd": crowds.long()})
    metric.update(detections, truths)
    coco, ours = metric.compute(), summarize(found)
    for key, name in (("map", "mAP"), ("map_50", "AP50"), ("map_75", "AP75")):
        assert ours[name] == pytest.approx(float(coco[key]), abs=1e-6)
    assert [each["score"] for each in ours["by_class"]] == pytest.approx(coco["map_per_class"].tolist(), abs=1e-6)


def test_map_of_resampled_images_is_that_of_the_images() -> None:
    """An image that counts twice is two; one that counts zero is none; a set without an object scores 0."""
    found = found_in(12, 2)
    scores = map_scores([found])
    assert scores.metrics[0](np.ones((1, 12)))[0] == pytest.approx(summarize(found)["mAP"])
    assert weighted_map(match_categories(found), np.full((1, 12), 2.0))[0] == pytest.approx(summarize(found)["mAP"])
    assert weighted_map(match_categories(found), np.zeros((1, 12)))[0] == 0
    assert (
        scores.objects.tolist()
        == np.bincount(np.repeat(np.arange(12), found.labelled)[~found.truth_ignored], minlength=12).tolist()
    )
    with pytest.raises(DataError, match="same images"):
        map_scores([found, found_in(12, 2, seed=1)])


def test_detections_are_saved_and_read(tmp_path: Path) -> None:
    """What was saved is what is read; rows that do not add up are refused."""
    found = found_in(5, 2)
    found.save(tmp_path / "a.npz")
    again = ObjectSet.load(tmp_path / "a.npz")
    assert (again.names, again.categories) == (found.names, found.categories)
    assert summarize(again) == summarize(found)
    with pytest.raises(DataError, match="as many rows"):
        ObjectSet.from_arrays(
            {name: getattr(found, name) for name in ObjectSet.__slots__} | {"scores": found.scores[1:]}
        )


@pytest.mark.parametrize(
    ("target", "terms", "logits"),
    [
        ("featherpress.models.ssdlite:ssdlite", {"class", "box"}, True),
        ("featherpress.models.fcos:fcos", {"class", "box", "centre"}, True),
        (TORCHVISION + "ssdlite320_mobilenet_v3_large", {"class", "box"}, True),
        (TORCHVISION + "retinanet_resnet50_fpn", {"class", "box"}, True),
        (TORCHVISION + "fcos_resnet50_fpn", {"class", "box", "centre"}, True),
        (
            TORCHVISION + "fasterrcnn_mobilenet_v3_large_320_fpn",
            {"class", "box", "proposal_class", "proposal_box"},
            False,
        ),
    ],
)
def test_detectors_give_heads_and_losses(target: str, terms: set[str], logits: bool) -> None:
    """Of a batch; of a list what torchvision gives. Weights keep their names, and a copy does the same."""
    model = build_detector(target, {}, classes=2, side=64)
    names = set(model.state_dict())
    model = copy.deepcopy(model)
    assert set(model.state_dict()) == names
    images = torch.rand(2, 3, 64, 64)
    targets = [
        {"boxes": torch.tensor([[5.0, 5, 40, 40]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    outputs = model.train()(images, targets)
    losses = {name: value for name, value in outputs.items() if name.endswith("_loss")}
    assert {name.removesuffix("_loss") for name in losses} == terms
    assert all(value.ndim == 0 for value in losses.values())
    torch.stack([*losses.values()]).sum().backward()
    raw = model.eval()(images)
    assert ({"logits", "boxes"} <= set(raw)) == logits
    if logits:
        assert raw["logits"].shape[:2] == (2, 3)
        assert raw["boxes"].shape == (2, raw["logits"].shape[2], 4)
    assert set(model([images[0]])[0]) == {"boxes", "labels", "scores"}


def test_other_models_are_refused() -> None:
    """Models that are no detectors, that have other categories, and settings of our own factory that make no sense."""
    with pytest.raises(UsageError, match="gives a ResNet, expected one of torchvision's detectors"):
        build_detector("torchvision.models:resnet18", {}, classes=2, side=64)
    with pytest.raises(UsageError, match="has 5 classes, expected 3"):
        build_detector("featherpress.models.ssdlite:ssdlite", SMALL | {"num_classes": 5}, classes=2, side=64)
    with pytest.raises(UsageError, match="channels a multiple of 32"):
        fcos(3, channels=48)
    for wrong in ({"backbone": "resnet"}, {"width": 0.0}, {"size": 8}):
        with pytest.raises(UsageError, match="expected mobilenet_v3_large or mobilenet_v3_small"):
            ssdlite(3, **wrong)


def test_the_student_says_which_task(tmp_path: Path) -> None:
    """Faces for our own detectors; objects for torchvision's, and wherever `categories` are named."""
    assert isinstance(task_of(recipe_of(tmp_path)), ObjectsTask)
    faces = {"student": {"model": "featherface_v2"}, "teacher": None, "distillation": {}}
    assert isinstance(task_of(recipe_of(tmp_path, **faces)), DetectionTask)
    assert is_torchvisions(TORCHVISION + "ssd300_vgg16")
    assert not is_torchvisions("torchvision.models:resnet18")
    assert not is_torchvisions("nowhere:model")
    made = {"kind": "coco", "root": "x", "size": 96, "train": [{"Resize": [96, 96]}]}
    for data, size in ((made, 96), (made | {"train": []}, 64)):  # a trial keeps the size that transforms have
        assert recipe_of(tmp_path, data=data).data.shrunk(images=2, validation_images=2, side=64).size == size
    with pytest.raises(UsageError, match="give `categories`"):
        task_of(recipe_of(tmp_path, data={"kind": "coco", "root": "x", "size": 64, "category": "disc"}))


def test_a_recipe_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher, student and control are trained and scored by category, with pictures; ignored boxes teach nothing."""
    recipe = recipe_of(write(tmp_path / "data"))
    assert task_of(recipe).classes == ("disc", "box")
    monkeypatch.setattr(ObjectsTask, "min_teacher_score", 0.0)
    distill(recipe, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "eval" / "validation.json").read_text())
    assert record["schema"] == "featherpress.score/1"
    assert [each["name"] for each in record["by_class"]] == ["disc", "box"]
    assert [each["examples"] for each in record["by_class"]] == [6, 6]
    assert set(record["further"]) == {"AP50", "AP75"}


def test_the_references_recipe_for_heads_of_sigmoids_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits by `binary`, the pyramid by `pkd`, and images that the teacher labels, as `docs/recipes.md` has it."""
    page = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text(encoding="utf-8")
    content = tomllib.loads(page.partition("`[data]`, objects")[2].partition("```toml")[2].partition("```")[0])
    root, small = write(tmp_path / "data"), {"num_classes": 3, "width": 4, "channels": 32, "size": 64}
    content["teacher"] |= {"settings": small | {"blocks": 2}, "weights": "", "schedule": {"epochs": 1, "batch_size": 3}}
    content["student"]["settings"] = small
    content["schedule"] = {"epochs": 1, "batch_size": 3, "log_every": 1}
    photographs = {"root": str(root / "val"), "per_batch": 1, "positive_threshold": 0.0}
    content["data"] |= {"root": str(root), "size": 64, "unlabelled": photographs}
    monkeypatch.setattr(ObjectsTask, "min_teacher_score", 0.0)
    monkeypatch.setattr("featherpress.models.fcos.LEAST_SCORE", 0.0)
    distill(Recipe.model_validate(content), tmp_path / "run")
    rows = [*csv.DictReader((tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines())]
    assert all(float(rows[0][f"kd_{term}"]) > 0 for term in ("class", "neck"))
    assert {*json.loads((tmp_path / "run" / "labels.json").read_text())["labels"]} == {f"{n}.png" for n in range(6)}


def test_batches_hold_what_the_examples_do(tmp_path: Path) -> None:
    """Crops keep boxes in step; a batch comes apart as it was; ignored boxes are no targets."""
    root = write(tmp_path)
    content = json.loads((root / "train" / "annotations.json").read_text())
    content["annotations"][0]["iscrowd"] = 1
    (root / "train" / "annotations.json").write_text(json.dumps(content))
    data = {"kind": "coco", "root": str(root), "size": 64, "train": [{"Resize": [64, 64]}]}
    task = task_of(recipe_of(root, data=data))
    batch = task.crops(task.open("train"), 0).batch([(0, 0), (1, 0)])
    assert batch.ignored[0].tolist() == [True, False]
    assert [each["labels"].tolist() for each in batch.targets()] == [[2], [1, 2]]
    for row, each in enumerate(batch.separate()):
        assert torch.equal(each.target["boxes"], batch.boxes[row][batch.present[row]])
    scale = Tensor([64 / 96, 64 / 80, 64 / 96, 64 / 80])
    box = content["annotations"][2]["bbox"]
    corners = Tensor([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    torch.testing.assert_close(batch.boxes[1, 0], corners * scale)


class Finder(nn.Module):
    """A teacher that finds a disc and a box in every image, something of which it is not sure, and the background."""

    def __init__(self, scores: tuple[float, ...] = (0.9, 0.3, 0.6)) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        boxes = torch.tensor([[8.0, 4, 40, 30], [1, 1, 9, 9], [30, 20, 62, 60], [0, 0, 90, 70]])
        scores = torch.cat([self.scores, torch.tensor([0.99])])
        return [{"boxes": boxes, "labels": torch.tensor([2, 1, 1, 0]), "scores": scores} for _ in images]


def test_a_teacher_labels_images(tmp_path: Path) -> None:
    """Boxes and categories of what it is sure of, in the crops of the student alone; they are kept, and asked once."""
    root = write(tmp_path / "data")
    album = {"root": str(root / "val"), "per_batch": 2}
    data = {"kind": "coco", "root": str(root), "size": 64, "train": [{"Resize": [64, 64]}], "unlabelled": album}
    task, teacher = task_of(recipe_of(root, data=data)), Finder()
    (root / "val" / "6.png").write_bytes(b"no image")
    crops = task.unlabelled_crops(task.open("train"), 0, teacher=teacher, out=tmp_path)
    [keys, *_] = crops.sampler.epoch_batches(0, 3)
    assert [index >= 6 for index, _ in keys] == [False] * 3 + [True] * 2
    scale = Tensor([64 / 96, 64 / 80, 64 / 96, 64 / 80])
    for target in crops.batch(keys[3:]).targets():
        torch.testing.assert_close(target["boxes"], Tensor([[8, 4, 40, 30], [30, 20, 62, 60]]) * scale)
        assert target["labels"].tolist() == [2, 1]
    kept = json.loads((tmp_path / "labels.json").read_text())
    assert kept["labels"]["0.png"]["labels"] == ["box", "disc"]
    assert kept["labels"]["6.png"]["boxes"] == []
    kept["labels"]["0.png"]["labels"] = ["disc", "disc"]
    (tmp_path / "labels.json").write_text(json.dumps(kept))
    again = task.unlabelled_crops(task.open("train"), 0, teacher=teacher, out=tmp_path)
    assert again.batch([(6, 0)]).targets()[0]["labels"].tolist() == [1, 1]
    other = task.unlabelled_crops(task.open("train"), 0, teacher=Finder((0.9, 0.8, 0.5)), out=tmp_path)
    assert other.batch([(6, 0)]).targets()[0]["labels"].tolist() == [2, 1]
    shutil.copy(root / "val" / "0.png", root / "val" / "7.png")
    more = task.unlabelled_crops(task.open("train"), 0, teacher=Finder((0.9, 0.8, 0.5)), out=tmp_path)
    assert len(more.batch([(13, 0)]).targets()[0]["labels"]) == 2
    control = task.unlabelled_crops(task.open("train"), 0, teacher=None, out=tmp_path)
    assert all(index < 6 for keys in control.sampler.epoch_batches(0, 3) for index, _ in keys)
    assert len(control.sampler.epoch_batches(0, 3)[0]) == 5
    with pytest.raises(DataError, match=r"finds nothing of a score of 0\.6 or more in the 8 images"):
        task.unlabelled_crops(task.open("train"), 0, teacher=Finder((0.1, 0.1, 0.1)), out=tmp_path)


@pytest.mark.parametrize(("key", "value"), [("ignore_threshold", 0.5), ("long_side", 640)])
def test_what_faces_alone_have_is_refused(tmp_path: Path, key: str, value: float) -> None:
    """A key of unlabelled images that would change nothing is an error."""
    data = {"kind": "coco", "root": "x", "size": 64, "unlabelled": {"root": "y", key: value}}
    with pytest.raises(UsageError, match=f"`data.unlabelled.{key}` is for faces"):
        task_of(recipe_of(tmp_path, data=data))


def test_logits_are_compared_as_the_heads_mean_them(tmp_path: Path) -> None:
    """A head of sigmoids by `binary`, one of a softmax by `kl`; the other way round is one sentence."""
    root = write(tmp_path)
    small = {"model": "featherpress.models.fcos:fcos", "settings": {"width": 4, "channels": 32}}
    softmax = {"model": "featherpress.models.ssdlite:ssdlite", "settings": SMALL}
    for model, wrong, right in ((small, "kl", "binary"), (small, "dist", "binary"), (softmax, "binary", "kl")):
        for loss in (wrong, right):
            terms = {"losses": {"class": {"loss": loss}}}
            task = task_of(recipe_of(root, student=model, teacher=model | {"weights": "x"}, distillation=terms))
            if loss == wrong:
                with pytest.raises(UsageError, match=rf"`distillation.losses.class`: the head .* use {right}"):
                    task.build(model["model"], model["settings"])
            else:
                assert isinstance(task.build(model["model"], model["settings"]), nn.Module)


def test_heads_of_other_anchors_are_not_compared(tmp_path: Path) -> None:
    """As many places with boxes of other sizes would teach what is seen elsewhere; features can be compared."""
    model, build = "featherpress.models.ssdlite:ssdlite", build_detector
    compared = {"c": {"loss": "kl"}, "f": {"loss": "pkd", "student": "backbone", "teacher": "backbone"}}
    for losses in (compared, {"f": compared["f"]}):
        parts: dict[str, Any] = {"student": {"model": model}, "teacher": {"model": model, "weights": "x"}}
        task = task_of(recipe_of(write(tmp_path / str(len(losses))), **parts, distillation={"losses": losses}))
        ours, theirs = (build(model, SMALL, classes=2, side=64) for _ in range(2))
        task.teacher_inputs(ours, theirs)
        theirs.anchor_generator.scales[0] *= 2  # type: ignore[index, operator, union-attr]
        if "c" in losses:
            with pytest.raises(UsageError, match=r"`distillation.losses.c`: the student's places have the anchors"):
                task.teacher_inputs(ours, theirs)
        else:
            task.teacher_inputs(ours, theirs)


def test_splits_with_other_categories_are_refused(tmp_path: Path) -> None:
    """A category that only the validation labels have, and one that they lack, are named with the file."""
    root = write(tmp_path)
    path = root / "val" / "annotations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"categories": [*content["categories"], {"id": 7, "name": "bar"}]}))
    with pytest.raises(DataError, match=r"val/annotations.json: expected the categories .* got 'bar' too"):
        task_of(recipe_of(root)).open("val")
    path.write_text(json.dumps(content | {"annotations": [], "categories": content["categories"][:1]}))
    with pytest.raises(DataError, match=r"val/annotations.json: expected one category 'box'"):
        task_of(recipe_of(root)).open("val")


def test_a_model_that_cannot_be_counted_trains_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it costs is not known, and the log says why; with a budget it does not start."""
    model = {
        "model": TORCHVISION + "fasterrcnn_mobilenet_v3_large_320_fpn",
        "settings": {"num_classes": 3, "weights_backbone": "none"},
    }
    recipe = recipe_of(tmp_path, student=model, teacher=None, distillation={})
    with caplog.at_level(logging.WARNING, logger="featherpress"):
        assert audit_recipe(recipe, allow_over_budget=False) == {}
    assert "what the models cost is not known: " in caplog.text
    with pytest.raises(CountError):
        audit_recipe(recipe.model_copy(update={"budget": "featherface_v2"}), allow_over_budget=False)


def test_a_resumed_run_weighs_its_losses_alike(tmp_path: Path) -> None:
    """What a run writes of its recipe gives only the weights that were given: theirs are 1, and ours are for faces."""
    for given in ({}, {"box": 0.5}):
        recipe = recipe_of(tmp_path, losses=given)
        (tmp_path / "recipe.toml").write_text(recipe_to_toml(recipe))
        again = load_recipe(tmp_path / "recipe.toml")
        assert again == recipe
        assert again.losses.model_fields_set == recipe.losses.model_fields_set == given.keys()
