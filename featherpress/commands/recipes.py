"""Recipes and their runs: found, audited, and given a folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.commands.model_names import audit_model, settings_of, shape_seen
from featherpress.errors import UsageError

if TYPE_CHECKING:
    from featherpress.compress.recipes import Recipe


def find_recipe(
    name: str,
    settings: Sequence[str] | None = None,
    *,
    cache: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    out: Path | None = None,
) -> "Recipe":
    """Load a recipe; a resumed run uses the one that it began with."""
    from featherpress.compress.recipes import load_recipe

    settings = [*(settings or []), *([f"data.cache={cache}"] if cache else [])]
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite removes it: choose one")
    recipe = load_recipe(name, settings=settings)
    saved = run_folder(recipe, out) / "recipe.toml"
    if not resume or not saved.is_file():
        return recipe
    began = load_recipe(saved)
    if settings and recipe != began:
        raise UsageError(f"a run is resumed with the recipe it began with, {saved}; leave --set out")
    return began


def run_folder(recipe: "Recipe", out: Path | None) -> Path:
    """Return the folder of a recipe's run."""
    return out or Path("runs") / recipe.name


@contextmanager
def open_logged_run(recipe: "Recipe", out: Path | None, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Open the run's folder, and keep a log in it."""
    from featherpress.compress.runtime.logs import log_into
    from featherpress.compress.runtime.run_folder import open_run

    with open_run(run_folder(recipe, out), resume=resume, overwrite=overwrite) as folder, log_into(folder / "log.txt"):
        yield folder


def audit_recipe(recipe: "Recipe", *, allow_over_budget: bool) -> dict[str, Any]:
    """Audit a recipe's models; a student over its budget does not start."""
    audits, shape = {}, shape_seen(recipe)
    for number, teacher in enumerate(recipe.all_teachers, start=1):
        role = "teacher" if number == 1 else f"teacher-{number}"
        counted = audit_model(teacher.model, budget="", shape=shape, settings=teacher.settings).to_dict()
        audits[role] = counted | {"settings": settings_of(teacher.model, teacher.settings)}
    student = audit_model(recipe.student.model, budget=recipe.budget, shape=shape, settings=recipe.student.settings)
    if student.exit_code and not allow_over_budget:
        raise UsageError(
            f"the student breaks its budget: {student.failures[0]}; add --allow-over-budget to train it anyway"
        )
    settings = settings_of(recipe.student.model, recipe.student.settings)
    return audits | {"student": student.to_dict() | {"settings": settings}}
