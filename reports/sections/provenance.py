"""Where the numbers come from: data, protocol, machine, commands, recipe."""

import shlex
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

from featherpress.reports.blocks import Block, Code, Fold, Remark, Table
from featherpress.reports.formats import duration, integer
from featherpress.reports.records import Environment, Evaluation
from featherpress.reports.runs import Run
from featherpress.reports.sections.chapters import Chapter

__all__ = ["environment", "reproduction", "stamps"]

Stamp = TypeVar("Stamp", bound=Hashable)


def stamps(chapter: Chapter) -> list[Block]:
    """State the data and the protocol behind every AP, once for all roles that share them."""
    run = chapter.run
    data = _by_stamp(run, lambda e: e.data)
    if not data:
        return []
    rows = [
        [roles, d.name, d.split, integer(d.images), integer(d.skipped), integer(d.faces), integer(d.ignored)]
        for d, roles in data.items()
    ]
    header = ["models", "data", "split", "images", "skipped images", "faces", "ignored faces"]
    protocols = [
        [roles, f"{p.iou:g}", p.test_scale, f"{p.nms_iou:g}", f"{p.score_threshold:g}", integer(p.top_k)]
        for p, roles in _by_stamp(run, lambda e: e.protocol).items()
    ]
    columns = ["models", "match IoU", "test scale", "NMS IoU", "score threshold", "most detections"]
    return [
        chapter.heading("Data and protocol"),
        Table(name="data", title="Data behind every AP", header=header, rows=rows, align="lllrrrr"),
        Table(name="protocol", title="Protocol behind every AP", header=columns, rows=protocols, align="lrlrrr"),
    ]


def _by_stamp(run: Run, stamp: Callable[[Evaluation], Stamp]) -> dict[Stamp, str]:
    """Return the roles, in words, that share each stamp."""
    found: dict[Stamp, list[str]] = {}
    for role in run.roles:
        for evaluation in run.evaluations(role):
            roles = found.setdefault(stamp(evaluation), [])
            if role not in roles:
                roles.append(role)
    return {value: ", ".join(roles) for value, roles in found.items()}


def environment(chapter: Chapter) -> list[Block]:
    """State the machine and the versions."""
    found = chapter.run.environment
    parts: list[Block] = [chapter.heading("Environment")]
    if found is None:
        return [*parts, Remark(text="`environment.json` is missing: the machine and the versions are not known.")]
    rows = [[name, value] for name, value in found.facts.items()]
    if found.seconds is not None:
        rows.append(["time taken", duration(found.seconds)])
    return [
        *parts,
        Table(name="environment", title="The machine and the versions", header=["", "value"], rows=rows, align="ll"),
    ]


def reproduction(chapter: Chapter) -> list[Block]:
    """Give the commands that make the run and this report again, and the recipe as it was resolved."""
    run = chapter.run
    lines = []
    if run.environment is not None and run.environment.command:
        lines.append(_command(run.environment))
    lines.append(shlex.join(["featherpress", "report", *(str(path) for path in chapter.inputs.named(run))]))
    parts: list[Block] = [chapter.heading("Reproduce it"), Code(text="\n".join(lines), language="sh")]
    if len(lines) == 1:
        parts.append(Remark(text="The command that trained this run was not recorded."))
    if run.recipe is None:
        return [*parts, Remark(text="`recipe.toml` is missing: the settings of the run are not known.")]
    recipe = Code(text=run.recipe, language="toml")
    return [*parts, Fold(summary="The recipe as it was resolved", code=recipe)]


def _command(found: Environment) -> str:
    """Return the recorded command, its program by its name alone: where it was installed helps nobody."""
    program, *arguments = found.command
    return shlex.join([Path(program).name, *arguments])
