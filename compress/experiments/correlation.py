"""How similar a student's features are to its teacher's: linear CKA, level by level.

Linear CKA is 1 for features that are equal up to rotation and scale and needs no fitted map, so the student and the
control are treated alike, although only one of them was trained with adapters.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn

from featherpress.compress.distillation.adapters import match_sizes
from featherpress.compress.distillation.taps import Tap
from featherpress.compress.experiments.build import build_trained, taps_of
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.recipes.terms import FeatureTerm
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError
from featherpress.records.run import Correlation, Level

_CONSTANT = 1e-8  # of the squared features, below which their variance counts as none


class LinearCKA:
    """Linear centred kernel alignment of two sets of features, summed over samples in float64.

    |X^T Y|^2 / (|X^T X| |Y^T Y|) in Frobenius norms, with X and Y centred over all samples.

    Source: Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, eq. 3 and 5.
    """

    def __init__(self) -> None:
        self._count, self._width = 0, 0
        self._sum = self._products = torch.zeros((), dtype=torch.float64)

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Add samples; shapes: (n, s) and (n, t)."""
        both = torch.cat([student, teacher], dim=1).double()
        self._count, self._width = self._count + len(both), student.shape[1]
        self._sum, self._products = self._sum + both.sum(0), self._products + both.T @ both

    def value(self) -> float | None:
        """Return the CKA, from 0 to 1; None where the features of one side do not vary."""
        centred = self._products - torch.outer(self._sum, self._sum) / self._count
        s = self._width
        for part in (slice(None, s), slice(s, None)):
            if centred[part, part].trace() <= _CONSTANT * self._products[part, part].trace():
                return None
        own, cross, theirs = centred[:s, :s].norm(), centred[:s, s:].norm(), centred[s:, s:].norm()
        return float(cross.square() / (own * theirs))


@torch.inference_mode()
def correlate(
    students: Mapping[str, nn.Module],
    teacher: nn.Module,
    images: Sequence[Tensor],
    *,
    taps: tuple[str, str],
    teacher_inputs: Callable[[Tensor], Tensor] = lambda images: images,
) -> dict[int, dict[str, float | None]]:
    """Return the CKA of students in eval mode with their teacher, by level's stride, then by student.

    `taps` are the students' and the teacher's. Samples are the positions of all images. Levels that are not maps
    (N, C, H, W) are left out.

    Shapes: images (1, 3, H, W) as students take them; `teacher_inputs` makes of them what the teacher takes.
    """
    sums: dict[int, dict[str, LinearCKA]] = {}
    ours = {role: Tap(student, taps[0]) for role, student in students.items()}
    theirs = Tap(teacher, taps[1])
    with ExitStack() as stack, Progress("comparing features with the teacher", total=len(images)) as progress:
        for tap in (*ours.values(), theirs):
            stack.callback(tap.close)
            stack.enter_context(tap.open())
        for image in images:
            teacher(teacher_inputs(image))
            wanted = theirs.take()
            for role, student in students.items():
                student(image)
                for s, t in zip(ours[role].take(), wanted, strict=True):
                    if s.dim() == t.dim() == 4:
                        # Sides are rounded up from level to level: the stride is the nearest power of two.
                        stride = 2 ** round(math.log2(image.shape[2] / s.shape[2]))
                        pair = (each[0].flatten(1).T.cpu() for each in (s, match_sizes(t, s)))
                        sums.setdefault(stride, {}).setdefault(role, LinearCKA()).add(*pair)
            progress.advance()
    return {stride: {role: each.value() for role, each in roles.items()} for stride, roles in sums.items()}


def record_correlation(experiment: Experiment, teacher: nn.Module, *, images: int = 48) -> None:
    """Write `eval/correlation.json` for the arms of the first seed, from their saved weights, unless it is there.

    It is measured on up to `images` validation images, evenly spaced. Nothing is written where no feature is compared.
    """
    file, taps = experiment.out / "eval" / "correlation.json", _taps(experiment)
    if file.exists() or taps is None:
        return
    device = next(teacher.parameters()).device
    students: dict[str, nn.Module] = {}
    for role, folder in (("student", experiment.out), ("control", experiment.out / "control")):
        weights = folder / "weights" / "last.safetensors"
        if weights.exists():
            model = build_trained(experiment.recipe, weights, task=experiment.task)[1]
            students[role] = model.to(device).eval()
    if not students:
        return
    student = next(iter(students.values()))
    chosen = [image.to(device) for image in _spread(experiment, student, images)]
    if not chosen:
        return
    inputs = experiment.task.teacher_inputs(student, teacher)
    measured = correlate(students, teacher, chosen, taps=taps, teacher_inputs=inputs)
    if not measured:
        return
    Correlation(
        images=len(chosen),
        taps={"student": taps[0], "teacher": taps[1]},
        levels=tuple(Level(stride=stride, cka=values) for stride, values in measured.items()),
    ).save(file)


def _taps(experiment: Experiment) -> tuple[str, str] | None:
    """Return where the first feature term with a weight above 0 taps the student and the first teacher."""
    recipe = experiment.recipe.distillation
    for name, path in taps_of(recipe).items():
        term = recipe.losses[name]
        assert isinstance(term, FeatureTerm)
        return term.student, path
    return None


def _spread(experiment: Experiment, model: nn.Module, count: int) -> list[Tensor]:
    """Read images evenly spaced over the validation data, those that are broken left out."""
    dataset, images = experiment.validation, []
    step = max(1, len(dataset) // count)
    for index in range(0, len(dataset), step)[:count]:
        with suppress(DataError):
            images.append(experiment.task.view(dataset, index, model))
    return images
