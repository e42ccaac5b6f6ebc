"""How far a student's features follow its teacher's: Pearson's r, channel by channel, level by level.

The student's features first go through the linear map (a 1x1 convolution with bias) that fits the teacher's best, found
by least squares on other images than those measured on. So student and control are treated alike, although only one of
them was trained with adapters.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn

from featherpress.compress.data import FaceDataset
from featherpress.compress.distillation.adapters import match_sizes
from featherpress.compress.distillation.taps import Tap
from featherpress.compress.experiments.build import taps_of
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.recipes.terms import FeatureTerm
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError
from featherpress.models import Detector, load_weights, normalize
from featherpress.records import Correlation, Level

METHOD = (
    "Each model's features go through the linear map that fits the teacher's best, found by least squares on as many "
    "other validation images. Channels of the teacher that do not vary are left out."
)
# Of a channel's own mean square, below which its variance counts as none.
_STILL = 1e-8
# Of the largest variance, what keeps the fit solvable when channels copy one another.
_RIDGE = 1e-6


class LevelFit:
    """Sums over positions of one level, from which the best map and its correlation follow; in float64.

    Shapes: student features (n, s), teacher features (n, t), any n at a time.
    """

    def __init__(self, student: int, teacher: int) -> None:
        self.width, self.count = student, 0
        self.sums = torch.zeros(student + teacher, dtype=torch.float64)
        self.products = torch.zeros(student + teacher, student + teacher, dtype=torch.float64)

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Take more positions in."""
        both = torch.cat([student, teacher], dim=1).double()
        self.count += len(both)
        self.sums += both.sum(0)
        self.products += both.T @ both

    def solve(self) -> Tensor:
        """Return the map (s, t) that fits the centred features best."""
        inner, cross, _ = self._centred()
        ridge = _RIDGE * inner.diagonal().max().clamp(min=1e-300)
        solved: Tensor = torch.linalg.solve(inner + ridge * torch.eye(len(inner), dtype=inner.dtype), cross)
        return solved

    def correlate(self, weights: Tensor) -> list[float]:
        """Return Pearson's r of the mapped student with each teacher channel that varies, on these positions."""
        inner, cross, teacher = self._centred()
        common = (weights * cross).sum(0)
        mapped = (weights * (inner @ weights)).sum(0).clamp(min=0)
        varies = teacher > _STILL * self.products.diagonal()[self.width :]
        found = common[varies] / (mapped[varies] * teacher[varies]).sqrt().clamp(min=1e-300)
        return [float(value) for value in found.clamp(-1, 1)]

    def _centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the centred products of the student, (s, s), of both, (s, t), and of each teacher channel, (t,)."""
        centred = self.products - torch.outer(self.sums, self.sums) / max(self.count, 1)
        own = self.width
        return centred[:own, :own], centred[:own, own:], centred.diagonal()[own:]


@torch.inference_mode()
def correlate(
    students: Mapping[str, nn.Module], teacher: nn.Module, images: Sequence[Tensor], *, taps: tuple[str, str]
) -> dict[int, dict[str, list[float]]]:
    """Return r for each of the teacher's channels that vary, by level's stride, then by student.

    `taps` are the students' and the teacher's. Images at even places fit the maps, the others are measured on. A level
    that is no map (N, C, H, W) on both sides is left out.

    Shapes: images (1, 3, H, W) as the models take them.
    """
    sums: dict[int, dict[str, tuple[LevelFit, LevelFit]]] = {}
    modes = {module: module.training for model in (*students.values(), teacher) for module in model.modules()}
    ours = {role: Tap(student.eval(), taps[0]) for role, student in students.items()}
    theirs = Tap(teacher.eval(), taps[1])
    try:
        with ExitStack() as stack, Progress("correlating with the teacher", total=len(images)) as progress:
            for tap in (*ours.values(), theirs):
                stack.enter_context(tap.open())
            for number, image in enumerate(images):
                teacher(image)
                wanted = theirs.take()
                for role, student in students.items():
                    student(image)
                    _take(sums, ours[role].take(), wanted, role=role, half=number % 2, height=image.shape[2])
                progress.advance()
    finally:
        for module, training in modes.items():
            module.training = training
    return {
        stride: {role: measured.correlate(fitted.solve()) for role, (fitted, measured) in halves.items()}
        for stride, halves in sums.items()
    }


def _take(
    sums: dict[int, dict[str, tuple[LevelFit, LevelFit]]],
    ours: Sequence[Tensor],
    theirs: Sequence[Tensor],
    *,
    role: str,
    half: int,
    height: int,
) -> None:
    for student, teacher in zip(ours, theirs, strict=True):
        if student.dim() != 4 or teacher.dim() != 4:
            continue
        # Sides are rounded up from level to level: the stride is the power of two that comes nearest.
        stride = 2 ** round(math.log2(height / student.shape[2]))
        fits = sums.setdefault(stride, {})
        if role not in fits:
            widths = student.shape[1], teacher.shape[1]
            fits[role] = (LevelFit(*widths), LevelFit(*widths))
        pair = (student, match_sizes(teacher, student))
        fits[role][half].add(*(each[0].flatten(1).T.cpu() for each in pair))


def record_correlation(experiment: Experiment, teacher: nn.Module, *, images: int = 24) -> None:
    """Write `eval/correlation.json` for the arms of the first seed, from their saved weights, unless it is there.

    Up to `images` validation images, evenly spaced, fit the maps, and as many others are measured on. Nothing is
    written where no feature is compared, or for models that are not detectors.
    """
    file, taps = experiment.out / "eval" / "correlation.json", _taps(experiment)
    if file.exists() or taps is None or not isinstance(teacher, Detector):
        return
    device = next(teacher.parameters()).device
    students: dict[str, nn.Module] = {}
    for role, folder in (("student", experiment.out), ("control", experiment.out / "control")):
        weights = folder / "weights" / "last.safetensors"
        if weights.exists():
            students[role] = experiment.task.build(
                experiment.recipe.student.model, experiment.recipe.student.settings
            ).to(device)
            load_weights(students[role], weights)
    chosen = [normalize(image[None].to(device)) for image in _spread(experiment.validation, 2 * images)]
    if not students or len(chosen) < 2:
        return
    measured = correlate(students, teacher, chosen, taps=taps)
    Correlation(
        images=len(chosen) // 2,
        taps={"student": taps[0], "teacher": taps[1]},
        method=METHOD,
        levels=tuple(Level.of(stride, channels) for stride, channels in measured.items()),
    ).save(file)


def _taps(experiment: Experiment) -> tuple[str, str] | None:
    """Return where the first feature term that weighs something taps the student and the first teacher."""
    recipe = experiment.recipe.distillation
    for name, path in taps_of(recipe).items():
        term = recipe.losses[name]
        assert isinstance(term, FeatureTerm)
        return term.student, path
    return None


def _spread(dataset: FaceDataset, count: int) -> list[Tensor]:
    """Read images evenly spaced over the data, those that are broken left out."""
    step = max(1, len(dataset) // count)
    found = []
    for index in range(0, len(dataset), step)[:count]:
        with suppress(DataError):
            found.append(dataset[index].image)
    return found
