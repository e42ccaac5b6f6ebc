"""Where the numbers come from: data, protocol, machine, commands, recipe."""

import shlex
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from featherpress.records.evaluation import Data
from featherpress.reports.blocks import Block, Code, Remark, Table
from featherpress.reports.formats import DASH, duration, integer
from featherpress.reports.runs import ENVIRONMENT, EVALUATION
from featherpress.reports.sections.context import RunContext

COUNTS = ("images", "skipped", "faces", "ignored", "classes")
SPELLED = {"skipped": "skipped images", "ignored": "ignored faces"}

Stamp = TypeVar("Stamp", bound=Hashable)


def stamps(context: RunContext) -> list[Block]:
    """State the data and the protocol behind every score, once for all roles that share them."""
    run = context.run
    data = _sharing((role, each.data) for role, found in run.evaluated.items() for each in found)
    if not data:
        return []
    records = context.files(run.evaluated, EVALUATION)
    counts = {name: text for each in data for name, text in _counts(each).items()}
    rows = [
        [roles, each.name, each.split or DASH, *(_counts(each).get(name, DASH) for name in counts)]
        for each, roles in data.items()
    ]
    table = Table(
        name="data",
        title=f"Data behind every {run.metric.name}",
        header=["models", "data", "split", *counts],
        rows=rows,
        align="lll" + "r" * len(counts),
        records=records,
    )
    used = _sharing((role, each.protocol) for role, found in run.detectors.items() for each in found)
    protocols = [
        [
            *(roles, f"{p.iou:g}", p.test_scale, "yes" if p.flip else "no", f"{p.nms_iou:g}"),
            *(f"{p.score_threshold:g}", integer(p.candidates), integer(p.top_k)),
        ]
        for p, roles in used.items()
    ]
    if not protocols:
        return [context.heading("Data"), table]
    columns = ["models", "match IoU", "test scale", "mirrored too", "NMS IoU", "score threshold"]
    columns += ["candidates", "most detections"]
    title = "Protocol behind every AP"
    protocol = Table(name="protocol", title=title, header=columns, rows=protocols, align="lrllrrrr", records=records)
    return [context.heading("Data and protocol"), table, protocol]


def _counts(data: Data) -> dict[str, str]:
    """Return the counts of a set of images under their names."""
    return {SPELLED.get(name, name): integer(getattr(data, name)) for name in COUNTS if hasattr(data, name)}


def _sharing(stamps: Iterable[tuple[str, Stamp]]) -> dict[Stamp, str]:
    """Return each stamp with the roles, in words, that share it."""
    found: dict[Stamp, list[str]] = {}
    for role, stamp in dict.fromkeys(stamps):
        found.setdefault(stamp, []).append(role)
    return {stamp: ", ".join(roles) for stamp, roles in found.items()}


def environment(context: RunContext) -> list[Block]:
    """State the machine and the versions."""
    found = context.run.environment
    parts: list[Block] = [context.heading("Environment")]
    if found is None:
        return [*parts, Remark(text=f"`{ENVIRONMENT}` is missing: the machine and the versions are not known.")]
    rows = [*map(list, found.facts.items()), ["time taken", duration(found.seconds)]]
    title, header, records = "The machine and the versions", ["fact", "value"], [ENVIRONMENT]
    return [*parts, Table(name="environment", title=title, header=header, rows=rows, align="ll", records=records)]


def reproduction(context: RunContext) -> list[Block]:
    """Give the commands that make the run and this report again, and the recipe as it was resolved."""
    run = context.run
    lines = []
    if run.environment is not None and run.environment.command:
        # Its program by its name alone: where it was installed helps nobody.
        program, *arguments = run.environment.command
        lines.append(shlex.join([Path(program).name, *arguments]))
    lines.append(shlex.join(["featherpress", "report", *context.sources.asked]))
    parts: list[Block] = [context.heading("Reproduce it"), Code(text="\n".join(lines), language="sh")]
    if run.counted_only or run.in_a_loop or run.scored_only:
        return parts
    if len(lines) == 1:
        parts.append(Remark(text="The command that trained this run was not recorded."))
    if run.recipe is None:
        return [*parts, Remark(text="`recipe.toml` is missing: the settings of the run are not known.")]
    return [*parts, Code(text=run.recipe, language="toml", summary="The recipe as it was resolved")]
