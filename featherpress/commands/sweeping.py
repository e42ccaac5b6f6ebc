"""`sweep`: a student for each of several budgets, distilled alike: what each budget costs in accuracy."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from featherpress.commands.places import require_place
from featherpress.commands.printing import plain_console, print_closing
from featherpress.commands.recipes import audit_recipe, find_recipe, open_logged_run, student_auditor
from featherpress.commands.training import prepare_distillation
from featherpress.errors import UsageError
from featherpress.extras import require_extra
from featherpress.options import (
    CacheOption,
    ChangedOption,
    KnobOption,
    LeakOption,
    OverwriteOption,
    ResumeOption,
    SetOption,
)

if TYPE_CHECKING:
    from featherpress.commands.sweep_plan import Student
    from featherpress.compress.recipes import Recipe
    from featherpress.records.sweep import Sweep


def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    params: Annotated[
        str, typer.Option(metavar="N,N,...", help="Budgets in parameters, as 128K,192K,256K: a student for each.")
    ] = "",
    macs: Annotated[str, typer.Option(metavar="N,N,...", help="Or budgets in MACs, as 50M,100M.")] = "",
    by: Annotated[
        Literal["fit", "prune"] | None,
        typer.Option(
            metavar="HOW",
            help="How students are made: `fit`, by a model's knobs, where it has some; else `prune`, out of its "
            "trained weights.",
        ),
    ] = None,
    knob: KnobOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The sweep's folder; `runs/NAME-sweep` unless given.")
    ] = None,
    resume: ResumeOption = False,
    allow_changed: ChangedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print each student, and how long all would take; train nothing.")
    ] = False,
    allow_leak: LeakOption = False,
    cache: CacheOption = None,
    no_preflight: Annotated[
        bool, typer.Option("--no-preflight", help="Skip the few steps that check the recipe first.")
    ] = False,
) -> None:
    """Distil a student within each of several budgets, and say what each costs in accuracy.

    Teachers are trained once. The folder of each budget is a run of its own. With --resume further budgets may be
    given; those that are done have to be what they were.

    Examples:
    ```
    featherpress sweep v1_to_v2 --params 232K,256K,400K --dry-run
    featherpress sweep mine.toml --macs 50M,100M --knob width=4:64
    featherpress sweep mine.toml --out runs/curve --resume
    ```
    """
    require_extra("train", "a sweep")
    from featherpress.commands.sweep_plan import describe_plan, plan_students, read_request

    loaded = find_recipe(recipe, settings, cache=cache, resume=False, overwrite=overwrite)
    folder = out or Path("runs") / f"{loaded.name}-sweep"
    if resume:
        from featherpress.compress.experiments.provenance import sweep_to_resume

        given = [*(settings or ()), *([f"data.cache={cache}"] if cache else [])]
        loaded = sweep_to_resume(recipe, folder, given, allow_changed=allow_changed)
    if not loaded.all_teachers:
        raise UsageError(f"the recipe {loaded.name} has no teacher, and a sweep distils each of its students")
    request = read_request(loaded, folder, params=params, macs=macs, by=by, knobs=knob, resume=resume)
    students = plan_students(loaded, request, ahead=dry_run)
    if dry_run:
        plain_console().print(describe_plan(loaded, request, students))
        return
    from featherpress.compress.experiments.provenance import lay_over
    from featherpress.compress.runtime.run_folder import check_folder

    check_folder(folder, resume=resume, overwrite=overwrite)
    require_place(folder, folder=True)
    _check_all(students, allow_leak=allow_leak)
    with open_logged_run(loaded, folder, resume=resume, overwrite=overwrite):
        request = request.model_copy(update={"settings": tuple(lay_over(request.settings, settings or ()))})
        done = _run(loaded, folder, request, students, allow_changed=allow_changed, no_preflight=no_preflight)
    print_closing(*done, f"swept: {folder}; `featherpress report {folder}` writes it up")


def _check_all(students: "Sequence[Student]", *, allow_leak: bool) -> None:
    """Find out before the first training whether each student can be trained."""
    from featherpress.compress.experiments.distill import check
    from featherpress.compress.recipes.required_files import require_needs

    for number, each in enumerate(students):
        require_needs(each.recipe)
        audit_recipe(each.recipe, allow_over_budget=False)
        check(each.recipe, allow_leak=allow_leak, leaks=number == 0)


def _run(
    recipe: "Recipe",
    out: Path,
    sweep: "Sweep",
    students: "Sequence[Student]",
    *,
    allow_changed: bool,
    no_preflight: bool,
) -> list[str]:
    """Distil every student, and keep the record after each; return what is to be said.

    Those that are done are not trained again, but held against what they began as.
    """
    from featherpress.compress.experiments.distill import distill
    from featherpress.compress.experiments.sweep import (
        add_point,
        budget_folder,
        has_teachers,
        measure_point,
        share_teachers,
    )
    from featherpress.compress.recipes import recipe_to_toml
    from featherpress.compress.runtime.ranks import is_leader
    from featherpress.compress.runtime.run_folder import is_begun
    from featherpress.files import write_text
    from featherpress.records.sweep import SWEEP

    def keep() -> None:
        write_text(out / "recipe.toml", recipe_to_toml(recipe))
        sweep.save(out / SWEEP)

    if is_leader() and not (out / SWEEP).is_file():
        keep()
    folders = [budget_folder(out, sweep.quantity, each.budget) for each in students]
    trained = next((folder for folder in folders if has_teachers(folder)), folders[0])
    closing: list[str] = []
    # The one whose teachers the others share comes first.
    for folder, each in sorted(zip(folders, students, strict=True), key=lambda pair: pair[0] != trained):
        own = each.recipe if folder == trained else share_teachers(each.recipe, trained)
        begun = is_begun(folder)
        # All budgets have the same images, which were looked through at the start.
        audits, closing = prepare_distillation(own, folder, resume=begun, leaks=False, no_preflight=no_preflight)
        with open_logged_run(own, folder, resume=begun, overwrite=False):
            distill(
                own,
                folder,
                audits=audits,
                audit=student_auditor(own),
                settings=sweep.settings,
                allow_changed=allow_changed,
            )
        if not is_leader():
            continue
        point = measure_point(
            folder, name=folder.name, budget=each.budget, made_by=sweep.made_by, settings=each.settings
        )
        sweep = add_point(sweep, each.recipe, folder, point)
        keep()
    return closing
