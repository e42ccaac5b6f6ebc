"""Photographs that a teacher labels, and runs that go on from an earlier one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from featherpress.compress.data import Objects
from featherpress.compress.data.sources.unlabelled import LabelledPhotographs, Photographs
from featherpress.compress.evaluation.detections import Detections
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.compress.experiments.distill import distill
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.recipes.data import UnlabelledRecipe
from featherpress.compress.tasks import task_of
from featherpress.compress.tasks.detection import pseudo_labels
from featherpress.compress.tasks.detection.data import draw_faces
from featherpress.compress.tasks.detection.pseudo_labels import control_crops, label_photographs, mixed_crops
from featherpress.errors import RecipeError
from featherpress.models import Detector, create_detector

RECIPE = """
name = "tiny"
student = { model = "featherface_v2", settings = { out_channels = 16 } }
teacher = { model = "featherface_v2", weights = "shipped" }
data = { kind = "synthetic", size = 64, image_size = 96, train_images = 8, validation_images = 2, variants = 1 }
schedule = { epochs = 1, batch_size = 4, log_every = 1 }
distillation = { ramp_steps = 1, stop = 0 }
"""


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three photographs of noise, and one that is broken."""
    random = np.random.default_rng(0)
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(3):
        pixels = random.integers(0, 255, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A recipe whose teacher comes with the package, and need not be good on so few images."""
    monkeypatch.setattr("featherpress.compress.tasks.detection.task.DetectionTask.min_teacher_score", 0.0)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return lambda *settings: load_recipe(tmp_path / "tiny.toml", settings=settings)


def test_the_thresholds_themselves() -> None:
    """What scores `positive_threshold` exactly is a face; the next smaller number is ignored."""
    label = {"boxes": [[0, 0, 4, 4]] * 2, "scores": [0.5, 0.4999], "landmarks": [[0] * 10] * 2}
    assert pseudo_labels._faces(label, positive_threshold=0.5).ignored.tolist() == [False, True]


def test_several_scales_are_merged(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found at one scale comes as it is, overlapping or not; at two, the better of two on one face stays."""
    boxes = {320: [[1, 1, 30, 30], [2, 2, 31, 31]], 640: [[1, 1, 31, 31], [60, 60, 80, 80]]}
    scores = {320: [0.5, 0.4], 640: [0.9, 0.3]}

    def look(_model: Detector, _image: torch.Tensor, *, settings: Any) -> Detections:
        side = settings.long_side
        return Detections(
            boxes=np.array(boxes[side], np.float32),
            scores=np.array(scores[side], np.float32),
            landmarks=np.zeros((2, 10), np.float32),
        )

    monkeypatch.setattr(pseudo_labels, "detect_faces", look)
    asked = [DetectionSettings(long_side=side) for side in (320, 640)]
    one, two = (pseudo_labels._ask(create_detector("featherface_v2"), Photographs(album), 0, asked[:n]) for n in (1, 2))
    assert one["scores"] == pytest.approx([0.5, 0.4])
    assert two["scores"] == pytest.approx([0.9, 0.3])
    assert two["boxes"] == [[1, 1, 31, 31], [60, 60, 80, 80]]


def test_what_the_teacher_is_sure_of_is_a_face(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two thresholds part faces, ignored ones and background; a broken image has none; all is asked once."""
    found = Detections(
        boxes=np.array([[1, 1, 30, 30], [40, 1, 60, 30]], np.float32),
        scores=np.array([0.9, 0.4], np.float32),
        landmarks=np.full((2, 10), 5, np.float32),
    )
    asked: list[tuple[float, int]] = []

    def look(_model: Detector, _image: torch.Tensor, *, settings: Any) -> Detections:
        asked.append((settings.score_threshold, settings.long_side))
        return found

    monkeypatch.setattr(pseudo_labels, "detect_faces", look)
    recipe = UnlabelledRecipe(root=str(album), positive_threshold=0.6, ignore_threshold=0.2, long_side=640)
    photographs, record = Photographs(album), tmp_path / "labels.json"
    teacher = create_detector("featherface_v2")
    labelled = label_photographs(teacher, photographs, recipe=recipe, record=record)
    assert asked == [(0.2, 640)] * 3
    assert labelled[0].objects.ignored.tolist() == [False, True]
    assert labelled[0].objects.boxes[0].tolist() == [1, 1, 30, 30]
    assert len(labelled.objects[3]) == 0
    assert json.loads(record.read_text())["schema"] == "featherpress.labels/1"
    again = label_photographs(teacher, photographs, recipe=recipe, record=record)
    assert len(asked) == 3
    assert torch.equal(again.objects[0].landmarks, labelled.objects[0].landmarks)


def test_several_scales_and_folders_are_joined(
    album: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher looks at every scale, and the surer of two finds stays; each folder has its labels, and its turns."""
    large = np.array([[1, 1, 30, 30]], np.float32)
    small = np.array([[1, 2, 30, 30], [50, 50, 54, 55]], np.float32)

    asked: list[int] = []

    def look(_model: Detector, _image: torch.Tensor, *, settings: Any) -> Detections:
        asked.append(settings.long_side)
        boxes, scores = (small, [0.9, 0.4]) if settings.long_side else (large, [0.7])
        return Detections(
            boxes=boxes, scores=np.array(scores, np.float32), landmarks=np.zeros((len(boxes), 10), np.float32)
        )

    monkeypatch.setattr(pseudo_labels, "detect_faces", look)
    root = f'data.unlabelled.root=["{album}", "{album}"]'
    recipe: Recipe = tiny(root, "data.unlabelled.per_batch=2", "data.unlabelled.long_side=[0, 1280]")
    training, teacher = task_of(recipe).open("train"), create_detector("featherface_v2")
    crops = mixed_crops(recipe.data, training, task_of(recipe).unlabelled_images(), teacher, out=tmp_path, seed=0)
    assert len(crops) - crops.sampler.labelled == 8
    assert asked == [0, 1280] * 6
    mixed_crops(recipe.data, training, task_of(recipe).unlabelled_images(), teacher, out=tmp_path, seed=0)
    assert len(asked) == 12
    faces = crops.dataset[8 + 4].objects
    assert faces.boxes.tolist() == [[1, 2, 30, 30], [50, 50, 54, 55]]
    assert faces.ignored.tolist() == [False, True]
    assert (tmp_path / "labels.json").read_text() == (tmp_path / "labels-2.json").read_text()
    photographs = [index >= 12 for keys in crops.sampler.epoch_batches(0, 4) for index, _ in keys[4:]]
    assert sorted(photographs) == [False, False, True, True]


def test_labels_belong_to_who_gave_them_and_how(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another teacher, or other thresholds for asking it, label anew; what counts as a face is decided afterwards."""
    asked: list[float] = []

    def look(_model: Detector, _image: torch.Tensor, *, settings: Any) -> Detections:
        asked.append(settings.score_threshold)
        return Detections(
            boxes=np.ones((1, 4), np.float32), scores=np.ones(1, np.float32), landmarks=np.ones((1, 10), np.float32)
        )

    monkeypatch.setattr(pseudo_labels, "detect_faces", look)
    one, other = create_detector("featherface_v2", out_channels=16), create_detector("featherface_v2", out_channels=16)
    recipe, photographs, record = UnlabelledRecipe(root=str(album)), Photographs(album), tmp_path / "labels.json"
    for teacher, changes, times in (
        (one, {}, 3),
        (one, {"positive_threshold": 0.9}, 0),
        (other, {}, 3),
        (other, {"ignore_threshold": 0.1}, 3),
        (other, {"ignore_threshold": 0.1, "long_side": 640}, 3),
    ):
        asked.clear()
        label_photographs(teacher, photographs, recipe=recipe.model_copy(update=changes), record=record)
        assert len(asked) == times, changes


def test_a_second_stage_goes_on_with_photographs(tiny: Any, album: Path, tmp_path: Path) -> None:
    """Each arm starts from its own weights of the earlier run; the student alone sees photographs, and more images."""
    first: Recipe = tiny()
    distill(first, tmp_path / "first")
    settings = [f"student.run={tmp_path / 'first'}", f"data.unlabelled.root={album}", "data.unlabelled.per_batch=2"]
    still = ["schedule.learning_rate=1e-12", "schedule.ema=0", "schedule.weight_decay=0"]
    distill(tiny(*settings, *still), tmp_path / "second")
    assert set(json.loads((tmp_path / "second" / "labels.json").read_text())["labels"]) >= {"0.png", "broken.jpg"}
    for arm in ("", "control"):
        before, after = (
            load_file(tmp_path / run / arm / "weights" / "last.safetensors") for run in ("first", "second")
        )
        weights = [key for key in before if key.endswith("weight")]
        assert all(torch.allclose(after[key], before[key], rtol=0, atol=1e-6) for key in weights)
    students, controls = (
        load_file(tmp_path / "first" / arm / "weights" / "last.safetensors") for arm in ("", "control")
    )
    assert any(not torch.equal(students[key], controls[key]) for key in students)


def test_a_recipe_says_how_large_faces_are(tiny: Any, album: Path, tmp_path: Path) -> None:
    """Labelled crops and those of photographs are cut by the recipe's zoom: four times as far out, faces a quarter."""
    far = ["data.crops.zoom_out_probability=1", "data.crops.zoom_out=[4, 4]", f"data.unlabelled.root={album}"]
    near = ["data.crops.zoom_out_probability=1", "data.crops.zoom_out=[1, 1]", f"data.unlabelled.root={album}"]
    heights = []
    for settings in (near, far):
        recipe: Recipe = tiny(*settings)
        task = task_of(recipe)
        crops = task.crops(task.open("train"), seed=0)
        faces = torch.cat([crops.crop(index, 0).objects.sizes for index in range(8)])
        heights.append(float(faces[:, 1].mean()))
        mixed = mixed_crops(
            recipe.data,
            task.open("train"),
            task.unlabelled_images(),
            create_detector("featherface_v2"),
            out=tmp_path,
            seed=0,
        )
        assert mixed.ranges == crops.ranges
    assert heights[1] == pytest.approx(heights[0] / 4, rel=0.2)


def test_the_control_gets_as_many_labelled_crops_instead(album: Path, tmp_path: Path, tiny: Any) -> None:
    """Its batches are as large as the student's, and all of them are of labelled images."""
    recipe = tiny(f'data.unlabelled={{root="{album}", per_batch=3}}')
    labelled, folders = task_of(recipe).open("train"), task_of(recipe).unlabelled_images()
    taught = mixed_crops(recipe.data, labelled, folders, create_detector("featherface_v2").eval(), out=tmp_path, seed=0)
    control = control_crops(recipe.data, labelled, seed=0)
    batches = [crops.sampler.epoch_batches(0, 4) for crops in (taught, control)]
    assert [len(keys) for keys in batches[0]] == [len(keys) for keys in batches[1]] == [7, 7]
    assert max(index for keys in batches[0] for index, *_ in keys) >= len(labelled)
    assert max(index for keys in batches[1] for index, *_ in keys) < len(labelled)


def test_drawn_pictures_go_on_without_labels(tiny: Any, tmp_path: Path) -> None:
    """Where labels end, pictures go on: the student sees them with the teacher's, which learned their own first."""
    task = task_of(tiny("data.unlabelled={images=3, per_batch=2}"))
    labelled, (more,) = task.open("train"), task.unlabelled_images()
    all_drawn = draw_faces(task.data, 11)
    assert [more.name(row) for row in range(3)] == [all_drawn.name(8 + row) for row in range(3)]
    learned = task.teacher_images(labelled)
    assert [learned.name(row) for row in range(11)] == [all_drawn.name(row) for row in range(11)]
    assert torch.equal(learned[9].objects.boxes, all_drawn[9].objects.boxes)
    crops = task.unlabelled_crops(labelled, 0, teacher=create_detector("featherface_v2").eval(), out=tmp_path)
    assert (len(crops), crops.sampler.labelled) == (11, 8)
    assert torch.equal(crops.dataset[9].image, all_drawn[9].image)
    assert list(json.loads((tmp_path / "labels.json").read_text())["labels"]) == [more.name(row) for row in range(3)]
    one, other = (LabelledPhotographs(more, [each] * 3) for each in (learned[9].objects, Objects.none()))
    assert len(learned[9].objects)
    assert one.cache_key(1) != other.cache_key(1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("data.unlabelled={per_batch=2}",), "`unlabelled` needs a `root`, or in `images` how many are drawn"),
        (("data.kind=coco", "data.root=here", "data.unlabelled={}"), "`unlabelled` needs a `root`, the folder"),
    ],
)
def test_photographs_come_from_somewhere(tiny: Any, settings: tuple[str, ...], words: str) -> None:
    """Without a folder, and without a number of pictures to draw, there are none."""
    with pytest.raises(RecipeError, match=words):
        tiny(*settings)
