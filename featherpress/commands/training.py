"""`train`, `distill` and `preflight`: running recipes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from featherpress.commands.places import require_place
from featherpress.commands.printing import echo, print_closing
from featherpress.commands.recipes import (
    FIRST_RECIPE,
    audit_recipe,
    find_recipe,
    open_logged_run,
    print_dry_run,
    run_folder,
    student_auditor,
)
from featherpress.errors import UsageError
from featherpress.extras import require_extra
from featherpress.options import (
    CacheOption,
    ChangedOption,
    DryRunOption,
    JsonOption,
    LeakOption,
    OutOption,
    OverBudgetOption,
    OverwriteOption,
    ResumeOption,
    SetOption,
)

if TYPE_CHECKING:
    from featherpress.compress.experiments.arms import Arm
    from featherpress.compress.experiments.experiment import Told
    from featherpress.compress.recipes import Recipe


def _print_recipe_schema(wanted: bool) -> None:
    if wanted:
        from featherpress.compress.recipes import recipe_schema

        echo(recipe_schema(), nl=False)
        raise typer.Exit


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    settings: SetOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    allow_changed: ChangedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    allow_over_budget: OverBudgetOption = False,
    allow_leak: LeakOption = False,
    cache: CacheOption = None,
) -> None:
    """Train a recipe's student alone, without a teacher.

    Examples:
    ```
    featherpress train my.toml --dry-run
    featherpress train my.toml --set schedule.epochs=3 --out runs/short
    ```
    """
    require_extra("train", "training")
    loaded = find_recipe(recipe, settings, cache=cache, resume=resume, overwrite=overwrite, out=out)
    if dry_run:
        return print_dry_run(loaded, ("student",), without_teachers=True)
    from featherpress.compress.experiments.distill import check, describe_left_out, train
    from featherpress.compress.recipes.required_files import require_needs

    require_needs(loaded, without_teachers=True)
    audits = audit_recipe(loaded, allow_over_budget=allow_over_budget)
    counted = describe_left_out(loaded) if resume else check(loaded, without_teachers=True, allow_leak=allow_leak)
    with open_logged_run(loaded, out, resume=resume, overwrite=overwrite) as folder:
        train(loaded, folder, **_told(loaded, audits, settings, allow_changed=allow_changed))
    last = f"trained: {folder}; `featherpress report {folder}` writes it up"
    print_closing(*counted, last)
    return None


def distill(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, or the name of a shipped one.", show_default=FIRST_RECIPE)
    ] = "",
    settings: SetOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    allow_changed: ChangedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    allow_over_budget: OverBudgetOption = False,
    allow_leak: LeakOption = False,
    cache: CacheOption = None,
    arm: Annotated[
        Literal["both", "student", "control"],
        typer.Option(metavar="ARM", help="Train the `student`, the `control` (it without a teacher), or `both`."),
    ] = "both",
    ablate: Annotated[
        Literal["losses"] | None,
        typer.Option(metavar="WHAT", help="`losses`: then train with each loss alone, and with each left out."),
    ] = None,
    no_preflight: Annotated[
        bool, typer.Option("--no-preflight", help="Skip the few steps that check the recipe first.")
    ] = False,
    _schema: Annotated[
        bool, typer.Option("--schema", callback=_print_recipe_schema, is_eager=True, help="Print recipes' JSON Schema.")
    ] = False,
) -> None:
    """Distil a teacher into a student, train the control too, and report whether the gain is real.

    Examples:
    ```
    featherpress distill v1_to_v2 --dry-run
    featherpress distill v1_to_v2 --out runs/v1_to_v2
    featherpress distill v1_to_v2 --out runs/v1_to_v2 --resume
    featherpress distill demo --ablate losses
    ```
    """
    require_extra("train", "training")
    loaded = find_recipe(recipe, settings, cache=cache, resume=resume, overwrite=overwrite, out=out)
    arms: Sequence[Arm] = ("student", "control") if arm == "both" else (arm,)
    if dry_run:
        return print_dry_run(loaded, _list_models(loaded, arms, ablate=ablate is not None))
    if ablate and len(arms) < 2:
        raise UsageError("--ablate compares with the control, so that it trains both: leave --arm out")
    from featherpress.compress.experiments.ablation import ablate_losses
    from featherpress.compress.experiments.distill import distill

    folder = run_folder(loaded, out)
    audits, closing = prepare_distillation(
        loaded,
        folder,
        arms=arms,
        ablate=ablate is not None,
        resume=resume,
        overwrite=overwrite,
        allow_over_budget=allow_over_budget,
        allow_leak=allow_leak,
        no_preflight=no_preflight,
    )
    with open_logged_run(loaded, out, resume=resume, overwrite=overwrite):
        told = _told(loaded, audits, settings, allow_changed=allow_changed)
        if ablate:
            closing = [ablate_losses(loaded, folder, **told), *closing]
        else:
            distill(loaded, folder, arms=arms, **told)
    print_closing(*closing, f"distilled: {folder}; `featherpress report {folder}` writes it up")
    return None


def _told(
    recipe: "Recipe", audits: Mapping[str, Any], settings: Sequence[str] | None, *, allow_changed: bool
) -> "Told":
    return {
        "audits": audits,
        "audit": student_auditor(recipe),
        "settings": settings or (),
        "allow_changed": allow_changed,
    }


def prepare_distillation(
    recipe: "Recipe",
    out: Path,
    *,
    arms: "Sequence[Arm]" = ("student", "control"),
    ablate: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    allow_over_budget: bool = False,
    allow_leak: bool = False,
    leaks: bool = True,
    no_preflight: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Check a recipe that is to be distilled into a folder; return its audits, and what is said at the end.

    No image is looked for in both splits without `leaks`.
    Errors: those of a run, before anything is written, where they can be known by then.
    """
    from featherpress.compress.experiments.ablation import variants
    from featherpress.compress.experiments.distill import check, describe_left_out
    from featherpress.compress.experiments.preflight import require_sound
    from featherpress.compress.recipes.required_files import require_needs
    from featherpress.compress.runtime.run_folder import check_folder

    check_folder(out, resume=resume, overwrite=overwrite)
    require_place(out, folder=True)
    require_needs(recipe, arms=arms)
    audits = audit_recipe(recipe, allow_over_budget=allow_over_budget)
    if ablate:
        variants(recipe)
    closing = describe_left_out(recipe) if resume else check(recipe, allow_leak=allow_leak, leaks=leaks)
    if not (resume or no_preflight) and "student" in arms:
        require_sound(recipe)
    return audits, closing


def preflight(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    settings: SetOption = None,
    allow_over_budget: OverBudgetOption = False,
    as_json: JsonOption = False,
) -> None:
    """Distil for a few steps, and check for mistakes that ruin distillations.

    Exit code: 0 if all is well, 1 if a check failed.

    Examples:
    ```
    featherpress preflight v1_to_v2
    ```
    """
    require_extra("train", "a preflight")
    loaded = find_recipe(recipe, settings)
    from featherpress.compress.experiments import preflight
    from featherpress.compress.recipes.required_files import require_needs

    require_needs(loaded)
    preflight.check_data(loaded)
    passed, sentence = True, "the student is within its budget" if loaded.budget else "the recipe names no budget"
    try:
        audit_recipe(loaded, allow_over_budget=allow_over_budget)
    except UsageError as error:
        passed, sentence = False, str(error)
    budget = preflight.Finding(check="budget", passed=passed, sentence=sentence)
    findings = [budget, *preflight.preflight(loaded)]
    record = {"schema": "featherpress.preflight/1", "findings": [asdict(each) for each in findings]}
    print_closing(*([json.dumps(record, indent=2)] if as_json else map(str, findings)))
    raise typer.Exit(int(not all(each.passed for each in findings)))


def _list_models(recipe: "Recipe", arms: "Sequence[Arm]", *, ablate: bool) -> list[str]:
    """List what is trained for every seed; an ablation always trains the control."""
    from featherpress.compress.experiments.ablation import variants
    from featherpress.compress.experiments.arms import list_arms

    return [*arms, *variants(recipe)] if ablate else list(list_arms(recipe, arms))
