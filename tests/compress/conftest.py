"""A tiny experiment: V2 on 64-pixel synthetic faces."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from featherpress.compress.data import SyntheticFaces, TrainingCrops
from featherpress.compress.distillation.teachers import BoundTeacher
from featherpress.compress.experiments.teacher_outputs import CachedTeacher
from featherpress.compress.experiments.teachers import make_distiller
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.compress.training.trainer import Trainer
from featherpress.models import Detector, create_detector
from tests.recipes import DRAWN_FACES

SETTINGS = (
    "data.size=64",
    "data.image_size=64",
    "data.train_images=12",
    "data.validation_images=4",
    "schedule.epochs=2",
    "schedule.batch_size=4",
    "schedule.log_every=1",
    "schedule.evaluate_every=0",
    "schedule.save_every=0",
    "distillation.ramp_steps=1",
    "distillation.stop=0.2",
)

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def recipe() -> Recipe:
    """Six steps, each logged and saved."""
    return load_recipe(DRAWN_FACES, settings=SETTINGS)


@pytest.fixture(scope="session")
def teacher() -> Detector:
    """A teacher with random weights, which is enough to learn from."""
    torch.manual_seed(5)
    return create_detector("featherface_v2").eval()


@pytest.fixture
def make_trainer(recipe: Recipe, tmp_path: Path, teacher: Detector) -> MakeTrainer:
    """Build a trainer that always starts from the same weights and sees the same crops."""

    def make(
        name: str,
        *,
        distil: bool = False,
        scale: float = 1.0,
        cached: Callable[[BoundTeacher], CachedTeacher] | None = None,
        used: Recipe = recipe,
        seed: int = 0,
        evaluate: Callable[[Detector], float] | None = None,
    ) -> Trainer:
        torch.manual_seed(seed)
        student = create_detector("featherface_v2")
        faces = SyntheticFaces(length=12, seed=1, size=(64, 64))
        distiller = None
        if distil:
            alone = used.model_copy(update={"teachers": (), "teacher": used.all_teachers[0]})
            distiller = make_distiller(
                alone, {"teacher": teacher}, student, task=DetectionTask(used), seed=7, scale=scale
            )
            if cached:
                distiller.caches = {"teacher": cached(distiller.kd.teachers["teacher"])}
        return Trainer(
            student,
            TrainingCrops(faces, size=64, seed=0, variants=2),
            TrainingFolder(tmp_path / name),
            schedule=used.schedule,
            label=name,
            task=DetectionTask(used),
            distiller=distiller,
            evaluate=evaluate,
        )

    return make


@pytest.fixture
def own_precision() -> Iterator[None]:
    """Let a test choose its precision, which one process of accelerate's otherwise chooses once."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
