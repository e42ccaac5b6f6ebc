"""What a recipe says reaches the task: weights of terms, mining, the scale at test, how many images are looked at."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from featherpress.compress.data import Objects, Sample, SyntheticFaces
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.detection import task as detection
from featherpress.compress.tasks.detection.loss import detection_loss
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.models import Detector, PriorSpec
from tests.recipes import DRAWN_FACES

SMALL = ("data.size=64", "data.image_size=64", "data.train_images=4", "data.validation_images=3")


class Fixed(Detector):
    """Says the same of every image."""

    def __init__(self) -> None:
        super().__init__(PriorSpec())
        self.one = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> Any:
        random = torch.Generator().manual_seed(0)
        count = len(self.priors(*images.shape[-2:]))
        return tuple(torch.randn(len(images), count, width, generator=random) for width in (4, 2, 10))


def losses(*settings: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return a task's terms on two crops, and the bare terms, mined as the recipe says."""
    recipe: Recipe = load_recipe(DRAWN_FACES, settings=[*SMALL, *settings])
    task, model = DetectionTask(recipe), Fixed()
    batch = task.crops(SyntheticFaces(length=4, seed=0, size=(64, 64)), 0).batch([(0, 0), (1, 0)])
    targets, outputs = task.assign_targets(batch, model), task.name_outputs(model(task.images(batch, model)))
    targets = replace(targets, has_landmarks=targets.positive)
    terms = task.compute_loss(outputs, batch, targets, torch.tensor([4, 2])).terms
    bare = detection_loss(*outputs.values(), targets, torch.tensor([4, 2]), mining=recipe.losses.mining)
    named = {"class": bare.classification, "box": bare.box, "landmark": bare.landmark}
    return {name: float(value) for name, value in terms.items()}, {name: float(value) for name, value in named.items()}


@pytest.mark.parametrize("mining", ["batch", "image"])
def test_supervised_terms_have_their_weights(mining: str) -> None:
    """Unless told otherwise 1, 2 and 1; else what `[losses]` says, each its own."""
    found, bare = losses(f"losses.mining={mining}")
    assert found == pytest.approx({"class": bare["class"], "box": 2 * bare["box"], "landmark": bare["landmark"]})
    told = ("losses.classification=3", "losses.box=5", "losses.landmark=7", f"losses.mining={mining}")
    found, bare = losses(*told)
    assert found == pytest.approx(
        {"class": 3 * bare["class"], "box": 5 * bare["box"], "landmark": 7 * bare["landmark"]}
    )
    assert min(bare.values()) > 0


def test_mining_is_the_recipes() -> None:
    """By image other negatives are mined than by batch."""
    assert losses("losses.mining=image")[0]["class"] != losses("losses.mining=batch")[0]["class"]


def test_a_detector_is_scored_at_the_recipes_scale_on_so_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """`data.long_side` is the scale at test; where `images` are given, the first so many are looked at."""
    seen: list[Any] = []

    def look(_model: Any, _images: Any, *, settings: Any, indices: Any, **_rest: Any) -> Any:
        seen.append((settings.long_side, list(indices)))
        raise KeyboardInterrupt

    monkeypatch.setattr(detection, "evaluate_model", look)
    task = task_of(load_recipe(DRAWN_FACES, settings=[*SMALL, "data.long_side=96"]))
    assert task.min_teacher_score == 0.05
    for images in (0, 2, 9):
        with pytest.raises(KeyboardInterrupt):
            task.evaluate(Fixed(), task.open("val"), label="", images=images)
    assert seen == [(96, [0, 1, 2]), (96, [0, 1]), (96, [0, 1, 2])]


def test_no_face_anywhere_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """An AP of 0 for want of faces is not the AP of a model that finds nothing: it comes with a warning."""

    class Empty:
        """One image without a face."""

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Sample(image=torch.zeros(3, 64, 64, dtype=torch.uint8), objects=Objects.none(), name="empty")

    result = task_of(load_recipe(DRAWN_FACES, settings=[*SMALL])).evaluate(Fixed(), Empty(), label="")
    assert result.record["ap"] is None
    assert result.score == 0
    assert "no valid face in 1 images" in caplog.text


def test_a_classifier_is_scored_on_so_many_images() -> None:
    """By the share of labels that it says, on images spread over the set: of classes in turn, the first of three."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1.0, 0, 0]))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return self.bias.expand(len(images), 3)

    small = ["data.classes=3", "data.train_images=4", "data.validation_images=7", "data.image_size=64"]
    task, model = task_of(load_recipe("classifier", settings=small)), First()
    scores = [task.evaluate(model, task.open("val"), label="", images=images).score for images in (0, 3)]
    assert scores == pytest.approx([3 / 7, 1 / 3])
    assert model.training
    assert task.min_teacher_score == pytest.approx(1 / 3 + 0.1)


def test_images_that_are_held_out_are_not_trained_on() -> None:
    """Of eleven three are kept back; the validation images are others, and without a holdout stand in for it."""
    names = {}
    for holdout in (3, 0):
        task = task_of(load_recipe(DRAWN_FACES, settings=[*SMALL, "data.train_images=11", f"data.holdout={holdout}"]))
        sets = {split: task.open(split) for split in ("train", "holdout", "val")}  # type: ignore[arg-type]
        names[holdout] = {split: [str(images.name(i)) for i in range(len(images))] for split, images in sets.items()}
    assert (len(names[3]["train"]), len(names[3]["holdout"]), len(names[3]["val"])) == (8, 3, 3)
    assert sorted(names[3]["train"] + names[3]["holdout"]) == sorted(names[0]["train"])
    assert names[0]["holdout"] == names[0]["val"]
    faces = task_of(load_recipe(DRAWN_FACES, settings=[*SMALL]))
    assert not torch.equal(faces.open("train")[0].image, faces.open("val")[0].image)
