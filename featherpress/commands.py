"""What several commands share: finding what a name means, and opening what a run needs.

Only this module and the command line know all four parts. What is heavy is imported by the function that needs it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.errors import CountError, FeatherpressError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from featherpress.budgets import Audit, Cost, CrossCheck
    from featherpress.compress.deployment.exporting import Int8Request
    from featherpress.compress.deployment.latency import Candidate
    from featherpress.compress.evaluation.detections import FloatArray
    from featherpress.compress.preflight import Finding
    from featherpress.compress.recipes import Recipe
    from featherpress.models import Detector
    from featherpress.models.listing import Listed

__all__ = [
    "DEMO",
    "ask_for_int8",
    "audit_recipe",
    "audit_target",
    "cross_check_target",
    "draw_curves",
    "empty_images",
    "find_factory",
    "find_recipe",
    "fly",
    "list_candidates",
    "list_model",
    "open_detector",
    "open_logged_run",
    "plain_console",
    "refuse_overwriting",
    "run_demo",
    "run_distillation",
    "require_empty",
    "say",
    "say_usage",
    "weights_or_shipped",
]

#: Whose shipped weights are taken where no model is named.
DEFAULT_DETECTOR = "featherface_v2"

#: What `fit` turns in a model of the zoo that has it.
USUAL_KNOBS = ("out_channels=8:128:2", "bifpn_repeats=1:4")

DEMO = (
    "1. The audit of V1. Every component is counted on a copy without data, checked against the budget file that comes "
    "with the package, and put beside what the model's document says; where that cannot be right, the reason is given.",
    "2. The audit of V2, the model that V1 is to be distilled into.",
    "3. V1 is trained on synthetic faces, then distilled into V2. The same V2 is trained without a teacher too, from "
    "the same weights on the same crops: only against this control does a gain mean something. This takes minutes.",
    "4. Did it help? Each validation image is drawn again and again to see how far the difference depends on them. The "
    "run is far too short to say what distillation can do; it shows how the question is answered.",
)


def say(console: "Console", text: str) -> None:
    """Print a paragraph that stands out."""
    console.print(f"\n{text}\n", style="bold", markup=False, highlight=False)


def say_usage(error: Any) -> None:
    """Say in one sentence which words of a command line make no sense, or show the help that was asked for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    message = " ".join(error.format_message().split()).rstrip(".")
    path = error.ctx.command_path if error.ctx else "featherpress"
    sys.stderr.write(f"featherpress: {message[:1].lower()}{message[1:]}; see `{path} --help`\n")


def list_model(name: str, side: int) -> "tuple[Listed, Cost | None]":
    """Build and count a model of the zoo for a list; one that cannot be counted is listed without MACs."""
    from featherpress.budgets import count
    from featherpress.models import create_model, find_model, fuse
    from featherpress.models.listing import Listed, strides_of

    model = create_model(name)
    params, fused = (sum(weight.numel() for weight in each.parameters()) for each in (model, fuse(model)))
    try:
        cost = count(model, empty_images(1, 3, side, side))
    except FeatherpressError:
        cost = None
    macs = cost.macs if cost else None
    row = Listed(entry=find_model(name), params=params, macs=macs, strides=strides_of(model), fused=fused)
    return row, cost


def audit_target(
    target: str,
    *,
    budget: str,
    side: int | None = None,
    strict_claims: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> "Audit":
    """Count a target at a size, or at its budget's, and check it.

    The shipped budget of a zoo model is found by its name, unless `settings` make it another model.
    """
    from featherpress.budgets import audit as run_audit
    from featherpress.budgets import list_budgets, load_budget
    from featherpress.models.targets import load_target

    model = load_target(target, settings)
    name = budget or (target if target in list_budgets() and not settings else "")
    limits = load_budget(name) if name else None
    side = side or (None if limits else 640)
    inputs = empty_images(1, 3, side, side) if side else None
    return run_audit(model, limits, name=target, example_inputs=inputs, strict_claims=strict_claims)


def find_factory(target: str) -> tuple[Callable[..., Any], list[str]]:
    """Find the function that builds a target, and the knobs to turn where none are given."""
    if ":" in target:
        from featherpress.models.targets import import_factory

        return import_factory(target), []
    from featherpress.models import create_model, find_model

    entry = find_model(target)
    return partial(create_model, target), [knob for knob in USUAL_KNOBS if knob.partition("=")[0] in entry.settings]


def cross_check_target(target: str, result: "Audit") -> "CrossCheck":
    """Count a target with the other counters too, at the size it was audited at."""
    from featherpress.budgets import cross_check
    from featherpress.models.targets import load_target

    inputs = [empty_images(*shape) for shape in result.cost.inputs]
    return cross_check(load_target(target), *inputs)


def audit_recipe(recipe: "Recipe", *, allow_over_budget: bool) -> dict[str, Any]:
    """Audit a recipe's models; a student over its budget does not start."""
    # A classifier is counted at the size that it sees, a detector at the usual one.
    side = None if recipe.data.task == "detection" else recipe.data.image_size
    audits = {}
    for number, teacher in enumerate(recipe.tutors, start=1):
        role = "teacher" if number == 1 else f"teacher-{number}"
        counted = audit_target(teacher.model, budget="", side=side, settings=teacher.settings).to_dict()
        audits[role] = counted | {"settings": settings_of(teacher.model, teacher.settings)}
    student = audit_target(recipe.student.model, budget=recipe.budget, side=side, settings=recipe.student.settings)
    if student.exit_code and not allow_over_budget:
        raise UsageError(
            f"the student breaks its budget: {student.failures[0]}; add --allow-over-budget to train it all the same"
        )
    settings = settings_of(recipe.student.model, recipe.student.settings)
    return audits | {"student": student.to_dict() | {"settings": settings}}


def settings_of(target: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a target is built from: its preset's settings, where it has one, under those that were given."""
    if ":" in target:
        return dict(settings)
    from featherpress.models import find_model

    return {**find_model(target).settings, **settings}


def find_recipe(name: str, settings: list[str] | None, *, resume: bool, overwrite: bool, out: Path | None) -> "Recipe":
    """Load a recipe; a run that is resumed goes on with its own."""
    from featherpress.compress.recipes import load_recipe

    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite removes it: choose one")
    recipe = load_recipe(name, settings=settings or ())
    saved = run_folder(recipe, out) / "recipe.toml"
    if not resume or not saved.is_file():
        return recipe
    began = load_recipe(saved)
    if settings and recipe != began:
        raise UsageError(f"a run is resumed with the recipe it began with, {saved}; leave --set out")
    return began


def run_folder(recipe: "Recipe", out: Path | None) -> Path:
    """Say where a recipe's run goes."""
    return out or Path("runs") / recipe.name


@contextmanager
def open_logged_run(recipe: "Recipe", out: Path | None, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Open the run's folder, and keep a log in it."""
    from featherpress.compress.logs import log_into
    from featherpress.compress.runs import open_run

    with open_run(run_folder(recipe, out), resume=resume, overwrite=overwrite) as folder, log_into(folder / "log.txt"):
        yield folder


def open_detector(weights: Path, model: str) -> "Detector":
    """Build a detector with a file's weights, ready to look at images on what there is."""
    from featherpress.compress.building import default_device
    from featherpress.models import load_detector

    return load_detector(weights, name=model).to(default_device()).eval()


def weights_or_shipped(weights: Path | None, model: str) -> Path:
    """Return the file of the weights that were named, or of the model's that come with the package."""
    from featherpress.models import find_model, shipped_weights

    if weights is not None:
        return weights
    entry = find_model(model or DEFAULT_DETECTOR)
    try:
        return shipped_weights(entry.name)
    except UsageError as error:
        raise UsageError(f"without --weights the shipped ones are taken, but {error}") from error


def ask_for_int8(data: Path | None, *, limit: int, images: int) -> "Int8Request":
    """Open the images to calibrate on and to score on: a folder's splits train and val, or synthetic faces."""
    from featherpress.compress.data import SyntheticFaces
    from featherpress.compress.deployment.exporting import Int8Request

    if data is None:
        calibration = SyntheticFaces(length=images, seed=0)
        validation = SyntheticFaces(length=limit or 200, seed=1_000_003)
        about = {"name": "synthetic faces", "split": "val"}
        return Int8Request(calibration=calibration, validation=validation, about=about, images=images)
    from featherpress.compress.evaluation.scoring import open_labelled

    return Int8Request(
        calibration=open_labelled(data, split="train", limit=images),
        validation=open_labelled(data, split="val", limit=limit),
        about={"name": data.name, "split": "val"},
        images=images,
    )


def list_candidates(targets: Sequence[str], sizes: Sequence[int]) -> "list[Candidate]":
    """Count every model at every size; MACs that cannot be counted are left open."""
    from featherpress.compress.deployment.latency import Candidate
    from featherpress.models.targets import load_target

    def cost(target: str, size: int) -> tuple[int, int | None]:
        try:
            counted = audit_target(target, budget="", side=size).cost
        except CountError:
            return sum(weight.numel() for weight in load_target(target).parameters()), None
        return counted.params, counted.macs

    return [Candidate(target=target, costs={size: cost(target, size) for size in sizes}) for target in targets]


def require_empty(folder: Path | None) -> None:
    """Refuse a folder for results that holds something: old files among new ones would be taken for results."""
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder; name a new one with --out")


def draw_curves(out: Path, curves: "Mapping[str, tuple[FloatArray, FloatArray]]", scores: Mapping[str, Any]) -> None:
    """Draw precision over recall into `precision_recall.png`; `scores` has the AP of each curve by name."""
    from featherpress.reports.figures import save
    from featherpress.reports.figures.curves import precision_recall_curves

    out.mkdir(parents=True, exist_ok=True)
    save(precision_recall_curves(curves, scores), out / "precision_recall.png")


def fly(recipe: "Recipe", *, allow_over_budget: bool) -> "list[Finding]":
    """Run the preflight; a student over its budget is a finding too."""
    from featherpress.compress.preflight import Finding, preflight

    try:
        audit_recipe(recipe, allow_over_budget=allow_over_budget)
    except UsageError as error:
        budget = Finding(check="budget", passed=False, sentence=str(error))
    else:
        within = "the student is within its budget" if recipe.budget else "the recipe names no budget"
        budget = Finding(check="budget", passed=True, sentence=within)
    return [budget, *preflight(recipe)]


def run_demo(out: Path, *, overwrite: bool) -> Path:
    """Audit both models, distil on synthetic faces, and report, with a word before each; return the report."""
    import json

    from featherpress.budgets import rendering
    from featherpress.compress import experiments
    from featherpress.reports import write_report

    console = plain_console()
    recipe = find_recipe("demo", None, resume=False, overwrite=overwrite, out=None)
    for name, text in zip(("featherface_v1", "featherface_v2"), DEMO[:2], strict=True):
        say(console, text)
        console.print(rendering.render_table(audit_target(name, budget="")))
    say(console, DEMO[2])
    audits = audit_recipe(recipe, allow_over_budget=False)
    with open_logged_run(recipe, out, resume=False, overwrite=overwrite) as folder:
        experiments.distill(recipe, folder, audits=audits)
    comparison = json.loads((out / "eval" / "comparison.json").read_text(encoding="utf-8"))
    say(console, DEMO[3])
    console.print(comparison["sentence"], markup=False)
    return write_report([folder])


def run_distillation(
    recipe: "Recipe",
    out: Path | None,
    *,
    arms: Sequence[str],
    ablate: bool,
    resume: bool,
    overwrite: bool,
    checked: bool,
    allow_over_budget: bool,
) -> tuple[Path, str]:
    """Check a recipe, fly it if it is to be `checked`, run it; return the folder, and the ablation's table if any."""
    from featherpress.compress import ablation, experiments
    from featherpress.compress.preflight import require_sound
    from featherpress.compress.runs import check_folder

    check_folder(run_folder(recipe, out), resume=resume, overwrite=overwrite)
    audits = audit_recipe(recipe, allow_over_budget=allow_over_budget)

    if ablate:
        if len(arms) < 2:
            raise UsageError("--ablate compares with the control, so that it trains both: leave --arm out")
        ablation.variants(recipe)
    if not resume:
        experiments.check(recipe)
        if checked and "student" in arms:
            require_sound(recipe)
    with open_logged_run(recipe, out, resume=resume, overwrite=overwrite) as folder:
        if ablate:
            return folder, ablation.ablate(recipe, folder, audits=audits)
        chosen: tuple[experiments.Arm, ...] = ("student", "control")
        chosen = tuple(arm for arm in chosen if arm in arms)
        experiments.distill(recipe, folder, audits=audits, arms=chosen)
        return folder, ""


def refuse_overwriting(targets: Sequence[Path], images: Sequence[Path]) -> None:
    """Refuse to draw over an image that was given, or over another drawing."""
    given = {path.resolve() for path in images}
    for number, target in enumerate(targets):
        if target.resolve() in given:
            raise UsageError(f"drawing into {target} would overwrite an image you gave; choose another --out")
        if target in targets[:number]:
            raise UsageError(f"two images would be drawn into {target}; give them in two calls with different --out")


def plain_console() -> "Console":
    """Print plain text: names of modules and files are nobody's markup."""
    from rich.console import Console

    return Console(markup=False)


def empty_images(*shape: int) -> "Tensor":
    """Make zeros of any size without taking memory for them."""
    import torch

    return torch.zeros(1).expand(*shape)
