"""The files that a recipe needs, and which of them are missing."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from featherpress.compress.recipes.files import SHARED_DEFAULT, SHARED_VARIABLE, expand_path
from featherpress.compress.recipes.kinds import find_task
from featherpress.compress.recipes.schema import Recipe, StudentRecipe, TeacherRecipe
from featherpress.errors import FileError

_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A file or folder that a recipe needs: the recipe's key, the text given there, and the resolved path."""

    key: str
    text: str
    path: Path
    is_folder: bool = False

    @property
    def missing(self) -> bool:
        """Whether the file or folder does not exist."""
        return not (self.path.is_dir() if self.is_folder else self.path.is_file())

    @property
    def state(self) -> str:
        """Whether it is `found`, `missing`, a file that is `empty`, or `unreadable`."""
        if self.missing:
            return "missing"
        if not os.access(self.path, os.R_OK):
            return "unreadable"
        return "found" if self.is_folder or self.path.stat().st_size else "empty"

    @property
    def variable(self) -> str:
        """The environment variable that the path begins with; empty without one."""
        found = _VARIABLE.match(self.text)
        return found[1] if found else ""

    @property
    def folder(self) -> Path:
        """The folder that the variable names."""
        return expand_path(f"${self.variable}") if self.variable else Path()


def list_needs(
    recipe: Recipe, *, arms: Sequence[str] = ("student", "control"), without_teachers: bool = False
) -> list[Need]:
    """List what a recipe needs to train these arms, in the order in which it is read."""
    needs = [*find_task(recipe.data.kind).needs(recipe.data)]
    student = recipe.student
    if recipe.data.unlabelled and not without_teachers:
        needs += [
            Need(key="data.unlabelled.root", text=text, path=expand_path(text), is_folder=True)
            for text in recipe.data.unlabelled.roots
        ]
    for number, teacher in enumerate(() if without_teachers else recipe.all_teachers):
        needs += _of_weights("teacher.weights" if recipe.teacher else f"teachers[{number}].weights", teacher)
    if student.weights != "teacher":
        needs += _of_weights("student.weights", student)
    if student.pruned:
        needs.append(Need(key="student.pruned", text=student.pruned, path=expand_path(student.pruned)))
    if student.backbone not in {"", "teacher"}:
        needs.append(Need(key="student.backbone", text=student.backbone, path=expand_path(student.backbone)))
    if student.run:
        folders = {"student": "", "control": "control"} if recipe.control and not without_teachers else {"student": ""}
        needs += [
            Need(key="student.run", text=student.run, path=_run_weights(expand_path(student.run) / folder))
            for arm, folder in folders.items()
            if arm in arms
        ]
    return needs


def require_needs(
    recipe: Recipe, *, arms: Sequence[str] = ("student", "control"), without_teachers: bool = False
) -> None:
    """Refuse a recipe whose files are missing; `list_needs` returns which it needs.

    Missing images under a path without a variable are left to the data set, whose error says more.

    Errors: `FileError` that names the variable, or the key, under which they were looked for.
    """
    needs = list_needs(recipe, arms=arms, without_teachers=without_teachers)
    missing = [need for need in needs if need.missing and (need.variable or need.key != "data.root")]
    if not missing:
        return
    first = missing[0]
    if not first.variable:
        raise FileError(f"{recipe.name}: {first.key} needs {first.path}, which does not exist; set another with --set")
    alike = [need for need in missing if need.variable == first.variable]
    by_key = {key: list(needs) for key, needs in groupby(alike, key=lambda need: need.key)}
    listed = [path for needs in by_key.values() for path in _shortest(needs)]
    raise FileError(
        f"{recipe.name} needs {' and '.join(listed)} in the folder that {first.variable} names, found nothing there "
        f"({describe_variable(first)}); set it, or {' and '.join(by_key)} with --set; --dry-run lists every file"
    )


def _shortest(needs: Sequence[Need]) -> list[str]:
    """Return what is missing below the variable's folder; a folder that is missing altogether stands for its files."""
    common = Path(os.path.commonpath([need.path for need in needs]))
    paths = [need.path for need in needs] if common.exists() else [common]
    return [os.path.relpath(path, needs[0].folder) for path in paths]


def describe_variable(need: Need) -> str:
    """Describe the value of a need's variable."""
    value = os.environ.get(need.variable)
    if value is not None:
        return f"{need.variable} is {value!r}"
    taken = f": {SHARED_DEFAULT} is taken" if need.variable == SHARED_VARIABLE else ""
    return f"{need.variable} is not set{taken}"


def _run_weights(folder: Path) -> Path:
    return folder / "weights" / "last.safetensors"


def _of_weights(key: str, model: StudentRecipe | TeacherRecipe) -> list[Need]:
    if model.weights in {"", "shipped"}:
        return []
    return [Need(key=key, text=model.weights, path=expand_path(model.weights))]
