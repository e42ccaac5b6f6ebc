"""Train without and with a teacher into a folder: started by itself one process, by torchrun as many as it says.

python tests/compress/runtime/spread_training.py OUT
torchrun --nproc-per-node 2 tests/compress/runtime/spread_training.py OUT
"""

import sys
from pathlib import Path

import torch

from featherpress.compress.data import SyntheticFaces, TrainingCrops
from featherpress.compress.experiments.recipe_distiller import RecipeDistiller
from featherpress.compress.experiments.teachers import make_distiller
from featherpress.compress.recipes import Recipe, load_recipe
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks.detection.task import DetectionTask
from featherpress.compress.training.trainer import Trainer
from featherpress.models import Detector, create_detector
from tests.recipes import DRAWN_FACES

# An average of each image's own statistics is not that of all, so BatchNorm's stand still.
SETTINGS = (
    "schedule.epochs=2",
    "schedule.batch_size=4",
    "schedule.learning_rate=1e-3",
    "schedule.freeze_statistics=true",
    "schedule.log_every=1",
    "schedule.evaluate_every=1",
    "distillation.ramp_steps=2",
    "distillation.stop=0.3",
)
SIDE, IMAGES = 64, 8


def distiller(recipe: Recipe, student: Detector) -> RecipeDistiller:
    torch.manual_seed(5)
    teacher = create_detector("featherface_v2")
    return make_distiller(recipe, {"teacher": teacher}, student, task=DetectionTask(recipe), seed=7)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    recipe = load_recipe(DRAWN_FACES, settings=SETTINGS)
    faces = SyntheticFaces(length=IMAGES, seed=1, size=(SIDE, SIDE))
    for name in ("plain", "taught"):
        torch.manual_seed(0)
        student = create_detector("featherface_v2")
        Trainer(
            student,
            TrainingCrops(faces, size=SIDE, seed=0, variants=2),
            TrainingFolder(out / name),
            schedule=recipe.schedule,
            label=name,
            task=DetectionTask(recipe),
            distiller=distiller(recipe, student) if name == "taught" else None,
            evaluate=lambda model: float(next(model.parameters()).abs().sum()),
        ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
