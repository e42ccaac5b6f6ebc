"""What a run shows: student against control over seeds and images, placebos beside them, and the record of it."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featherpress.compress.data.leaks import find_leaks
from featherpress.compress.distillation.placebos import PLACEBOS
from featherpress.compress.evaluation.comparison import Compared, compare, compare_knowledge, compare_others, make_arm
from featherpress.compress.experiments.arms import Arm, arm_folder, count_steps
from featherpress.compress.experiments.experiment import Experiment
from featherpress.compress.experiments.teachers import LoadedTeacher
from featherpress.compress.recipes import Recipe
from featherpress.records.comparison import Comparison, Leak, Steps, TeacherScore
from featherpress.verdicts import Claim, Scores, gate

logger = logging.getLogger("featherpress")

TEACHER_MARGIN = 0.01
"""In the task's metric: a student no further below its teacher is called as good as it."""

BEYOND_BACKBONE = "beyond the backbone that both start from"


def record_comparison(
    experiment: Experiment,
    loaded: Sequence[LoadedTeacher],
    taught: Sequence[Any],
    predictions: Mapping[Arm, Sequence[Any]],
) -> Comparison:
    """Compare the arms that were trained, and write `eval/comparison.json`; `taught` are the teachers' predictions."""
    metric = experiment.task.metric
    scores: dict[str, Scores] = {arm: experiment.task.scores(sets) for arm, sets in predictions.items()}
    steps: dict[str, tuple[int, ...]] = {arm: _steps(experiment, arm) for arm in predictions}
    main = compare_arms(experiment, scores, steps)
    claim, least = method_claim(experiment.recipe, metric.name), experiment.task.min_teacher_score
    records = [json.loads((experiment.out / "eval" / f"{teacher.name}.json").read_text()) for teacher in loaded]
    teachers = tuple(TeacherScore(model=each["model"], score=metric.read(each)) for each in records)
    leaks = find_leaks(experiment.training, experiment.validation)
    fields = {
        "metric": metric,
        "data": records[0]["data"],
        "seeds": experiment.recipe.seeds,
        "teacher": teachers[0],
        "teachers": teachers if len(teachers) > 1 else None,
        "control": make_arm(main.baseline),
        "distilled": make_arm(main.candidate),
        "difference": main.difference,
        "verdict": main.verdict,
        "sentence": main.sentence,
        "steps": Steps(control=steps["control"], distilled=steps["student"]),
        "others": compare_others(scores, claim, steps=steps, min_score=least) or None,
        "knowledge": compare_knowledge(scores, PLACEBOS, claim, min_score=least),
        "beside_teacher": _beside_teacher(experiment, taught[0], scores["student"]),
        "changed": tuple(experiment.provenance.changed.values()) or None,
        "leak": Leak(same=len(leaks.same), near=len(leaks.near)) if leaks.same or leaks.near else None,
    }
    record = Comparison.model_validate({key: value for key, value in fields.items() if value is not None})
    record.save(experiment.out / "eval" / "comparison.json")
    logger.info("%s", record.sentence)
    logger.info("%s", record.beside_teacher)
    return record


def compare_arms(
    experiment: Experiment, scores: Mapping[str, Scores], steps: Mapping[str, tuple[int, ...]]
) -> Compared:
    """Compare student and control, without a verdict where they took different steps, or where the run changed.

    With one seed the sentence goes on with what the two files show.
    """
    claim = method_claim(experiment.recipe, experiment.task.metric.name)
    obstacle = ""
    if steps["student"] != steps["control"]:
        trained = " and ".join("/".join(map(str, sorted(set(steps[arm])))) for arm in ("student", "control"))
        obstacle = f"student and control trained {trained} steps"
    elif experiment.provenance.unequal:
        obstacle = f"the run went on although {'; '.join(experiment.provenance.unequal)}"
    student, control = scores["student"], scores["control"]
    least = experiment.task.min_teacher_score
    found = compare(baseline=control, candidate=student, claim=claim, min_score=least, obstacle=obstacle)
    if found.interval.seeds > 1 or obstacle:
        return found
    files = ("weights/last.safetensors", "control/weights/last.safetensors")
    two = compare(baseline=control, candidate=student, claim=Claim(metric=claim.metric, files=files), min_score=least)
    if two.verdict == "undecided":
        return found
    return replace(found, sentence=f"{found.sentence} {two.sentence}")


def method_claim(recipe: Recipe, metric: str, *, method: str = "distillation") -> Claim:
    """Return the claim that a run makes of its method."""
    shared = recipe.student.backbone == "teacher" and not recipe.student.run
    return Claim(metric=metric, method=method, beyond=BEYOND_BACKBONE if shared else "")


def _beside_teacher(experiment: Experiment, taught: Any, student: Scores) -> str:
    """Say whether the student is as good as its first teacher, in the words of `featherpress gate`."""
    return gate(
        student,
        experiment.task.scores([taught]),
        margin=TEACHER_MARGIN,
        metric=experiment.task.metric.name,
        names=("the student", "the teacher"),
        unit="images",
    ).sentence


def _steps(experiment: Experiment, arm: Arm) -> tuple[int, ...]:
    folders = [seed_folder(experiment.recipe, experiment.out, seed) for seed in experiment.recipe.seeds]
    return tuple(count_steps(arm_folder(folder, arm)) for folder in folders)


def seed_folder(recipe: Recipe, folder: Path, seed: int) -> Path:
    """Return where the models of a seed lie: the first one's in the folder itself."""
    return folder if seed == recipe.seeds[0] else folder / f"seed-{seed}"
