"""Ablation of losses: each alone, each left out, all and none, compared with one control."""

import copy
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from featherpress.compress.evaluation.comparison import compare, make_arm
from featherpress.compress.experiments.arms import arm_trainer, keep_terms
from featherpress.compress.experiments.conclusion import method_claim, seed_folder
from featherpress.compress.experiments.distill import distill
from featherpress.compress.experiments.experiment import HOLDOUT, Experiment, Told, kept_audits
from featherpress.compress.experiments.teachers import prepare_teachers, require_unchanged
from featherpress.compress.recipes import Recipe
from featherpress.compress.runtime.ranks import is_leader
from featherpress.errors import UsageError
from featherpress.escaping import escape_markdown
from featherpress.files import write_json, write_text
from featherpress.verdicts import adjusted_verdicts

logger = logging.getLogger("featherpress")

ADJUSTED = "Verdicts are adjusted for the number of rows, by Holm."
_HEADINGS = ("losses", "score", "std", "difference", "low", "high", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One set of losses: its mean score over seeds, and the difference to the control with its interval.

    `p` and the verdict are adjusted for the number of rows.
    """

    losses: str
    score: float
    std: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: str = ""

    def cells(self) -> list[str]:
        """Return the row's cells as text."""
        numbers = [f"{self.score:.3f}", "" if self.std is None else f"{self.std:.3f}"]
        bounds = ["" if value is None else f"{value:+.4f}" for value in (self.difference, self.low, self.high)]
        return [self.losses, *numbers, *bounds, self.verdict]


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipes to compare by name: each term alone, and each term left out.

    Errors: `UsageError` for fewer than two terms with a weight above 0.
    """
    names = [name for name, term in recipe.distillation.losses.items() if term.weight]
    if len(names) < 2:
        raise UsageError(f"an ablation needs two losses or more with a weight above 0; {recipe.name} has {len(names)}")
    alone = {f"only {name}": keep_terms(recipe, {name}) for name in names}
    # Of two, each left out is the other alone.
    left_out = {f"without {name}": keep_terms(recipe, set(names) - {name}) for name in names if len(names) > 2}
    return alone | left_out


def ablate_losses(recipe: Recipe, out: Path, **told: Unpack[Told]) -> str:
    """Run the whole distillation with its control, then every variant in `ablation/`, and compare all with the control.

    An ablation is used to choose losses. It is therefore scored on the held-out training images if there are any, and
    else on the validation images. Models that are trained already are kept. The table is saved as
    `ablation/ablation.json` and `.md`, and returned for a terminal.
    """
    chosen = variants(recipe)
    recipe = recipe.model_copy(update={"control": True})
    distill(recipe, out, **told)
    told["audits"] = kept_audits(out)
    experiment = Experiment(recipe, out, **told)
    experiment.begin("distill")
    loaded = prepare_teachers(experiment)
    folders = {name: out / "ablation" / name.replace(" ", "-") for name in chosen}
    for seed in recipe.seeds:
        # All variants of a seed share its crops and the teachers' outputs on them.
        crops, cache = experiment.crops(seed), out / "ablation" / f"cache-{seed}"
        for name, variant in chosen.items():
            own = copy.copy(experiment)
            own.recipe = variant
            logger.info("ablation: %s", name)
            folder = seed_folder(recipe, folders[name], seed)
            trainer = arm_trainer(own, "student", folder, seed=seed, crops=crops, loaded=loaded, cache=cache)
            own.conclude(trainer, trainer.run(), name=recipe.student.model)
        if is_leader():
            shutil.rmtree(cache, ignore_errors=True)
    require_unchanged(loaded)
    if not is_leader():
        return ""
    experiment.forget_images()
    predictions = {"none": _read(experiment, out, "control"), "all": _read(experiment, out)}
    predictions |= {name: _read(experiment, folder) for name, folder in folders.items()}
    rows = _rows(experiment, predictions)
    metric = experiment.task.metric
    write_json(
        out / "ablation" / "ablation.json",
        {
            "schema": "featherpress.ablation/1",
            "metric": metric.key,
            "seeds": list(recipe.seeds),
            "split": HOLDOUT if recipe.data.holdout else "val",
            "images": len(predictions["none"][0].names),
            "adjusted": "holm",
            "rows": [asdict(row) for row in rows],
        },
    )
    write_text(out / "ablation" / "ablation.md", ablation_markdown(rows, metric=metric.name) + f"\n{ADJUSTED}\n")
    return "\n".join([*ablation_lines(rows, metric=metric.name), ADJUSTED])


def ablation_lines(rows: list[Row], *, metric: str) -> list[str]:
    """Lay the table out in columns for a terminal."""
    table = [_headings(metric), *(row.cells() for row in rows)]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(_HEADINGS))]

    def line(cells: list[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        last = rest.pop()
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest), last[0]]).rstrip()

    return [line(cells) for cells in table]


def ablation_markdown(rows: list[Row], *, metric: str) -> str:
    """Lay the table out as Markdown."""
    rule = ["---", *["---:"] * (len(_HEADINGS) - 2), "---"]
    return "".join(
        f"| {' | '.join(map(escape_markdown, cells))} |\n"
        for cells in (_headings(metric), rule, *(row.cells() for row in rows))
    )


def _headings(metric: str) -> list[str]:
    return [metric if name == "score" else name for name in _HEADINGS]


def _read(experiment: Experiment, folder: Path, arm: str = "") -> list[Any]:
    """Read the predictions of all seeds on the images that the ablation is scored on."""
    record = f"{HOLDOUT if experiment.recipe.data.holdout else 'validation'}.npz"
    return [
        experiment.task.load(seed_folder(experiment.recipe, folder, seed) / arm / "eval" / record)
        for seed in experiment.recipe.seeds
    ]


def _rows(experiment: Experiment, predictions: Mapping[str, list[Any]]) -> list[Row]:
    """Compare every set of losses with the control, verdicts adjusted for how many there are."""
    task, control = experiment.task, experiment.task.scores(predictions["none"])
    found = {
        name: compare(
            baseline=control,
            candidate=task.scores(sets),
            claim=method_claim(experiment.recipe, task.metric.name, method=name),
            min_score=task.min_teacher_score,
        )
        for name, sets in predictions.items()
        if name != "none"
    }
    adjusted = adjusted_verdicts({name: (each.verdict, each.interval.p) for name, each in found.items()})
    first = make_arm(next(iter(found.values())).baseline)
    rows = [Row(losses="none", score=first.mean, std=first.std, verdict="the control")]
    for name, each in found.items():
        arm, (verdict, p) = make_arm(each.candidate), adjusted[name]
        rows.append(
            Row(
                losses=name,
                score=arm.mean,
                std=arm.std,
                difference=each.interval.difference,
                low=each.interval.low,
                high=each.interval.high,
                p=p,
                verdict=verdict,
            )
        )
    return rows
