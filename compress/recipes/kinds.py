"""The registry of tasks by the kind of their data: the package's own, those of other packages, and anyone's."""

import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from featherpress.errors import UsageError
from featherpress.extras import load_entry_points
from featherpress.models.factories import import_factory
from featherpress.validation import suggest

TaskType = TypeVar("TaskType", bound=type)

ENTRY_POINTS = "featherpress.tasks"
"""The group of entry points by which other packages bring tasks: each names a module that registers them."""

_OWN = {
    "widerface": "detection.task",
    "coco": "objects.task",
    "synthetic": "detection.task",
    "shapes": "classification.shapes",
    "digits": "classification.digits",
    "folder": "classification.folder",
    "masks": "segmentation.task",
}
_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_REGISTER: dict[str, Any] = {}


def register_task(*kinds: str) -> Callable[[TaskType], TaskType]:
    """Register a `Task` under the kinds of data, `[data] kind` in a recipe, that it is for.

    Errors: `UsageError` for a kind that another task has.
    """

    def add(task: TaskType) -> TaskType:
        for kind in kinds:
            owner = _REGISTER.setdefault(kind, task)
            if (owner.__module__, owner.__qualname__) != (task.__module__, task.__qualname__):
                raise UsageError(f"data of kind {kind!r} has a task already, {owner.__module__}.{owner.__qualname__}")
            _REGISTER[kind] = task
        return task

    return add


def list_kinds() -> list[str]:
    """Return the kinds of data that have a task, sorted."""
    _load_others()
    return sorted({*_OWN, *_REGISTER})


def find_suited_task(data: Any, model: str) -> Any:
    """Return the task for a recipe's data that suits its student.

    Errors: as `find_task`.
    """
    task = find_task(data.kind)
    return task.suited(data, model) if hasattr(task, "suited") else task


def find_task(kind: str) -> Any:
    """Return the task for a kind of data: a registered one, or the class that `package.module:MyTask` names.

    Errors: `UsageError` that suggests the nearest kind, or says why the class cannot be had.
    """
    if kind in _OWN:
        import_module(f"featherpress.compress.tasks.{_OWN[kind]}")
    else:
        _load_others()
    if kind in _REGISTER:
        return _REGISTER[kind]
    if _DOTTED.fullmatch(kind):
        return _import_task(kind)
    raise UsageError(
        f"no task is for data of kind {kind!r}; {suggest(kind, list_kinds())}, or write a task of your own as "
        "`package.module:MyTask`"
    )


def _import_task(name: str) -> Any:
    found = import_factory(name)
    if not hasattr(found, "Data"):
        raise UsageError(f"{name} is not a task: it has no `Data`, the model of its `[data]` table")
    return found


@cache
def _load_others() -> None:
    load_entry_points(ENTRY_POINTS, "tasks")
