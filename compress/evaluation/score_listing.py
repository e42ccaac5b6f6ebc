"""A score as printed, whatever the metric: a table by class, and what lies behind it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table


def render_score(record: Mapping[str, Any]) -> RenderableType:
    """Format a record of `featherpress.score/1`, or of faces, for a console of any width."""
    metric, data = record["metric"]["name"], record["data"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (("class", "left"), ("examples", "right"), (metric, "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    classes = record.get("by_class", ())
    for row in classes:
        table.add_row(row["name"], f"{row['examples']:,}", _score(row["score"]))
    table.add_row("all", f"{sum(row['examples'] for row in classes):,}" if classes else "", _score(record["score"]))
    lines = [", ".join(f"{name} {_score(value)}" for name, value in record.get("further", {}).items())]
    if "baseline" in record:
        baseline = record["baseline"]
        lines.append(f"baseline {baseline['folder']}: {metric} {_score(baseline['score'])}; {baseline['sentence']}")
    skipped = f", {data['skipped']:,} that cannot be read" if data.get("skipped") else ""
    lines.append(f"{data['images']:,} {data['split']} images of {data['name']}{skipped}")
    lines.append(left_out_line(data))
    lines.append(f"weights {record['weights']}, sha256 {record['weights_sha256'][:12]}")
    return Group(table, *(line for line in lines if line))


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def left_out_line(data: Mapping[str, Any]) -> str:
    """State in a line what of a data set was not used; empty where all was."""
    counted = (f"{count:,} {what}" for what, count in data.get("left_out", {}).items())
    return f"of the labels: {'; '.join(counted)}" if data.get("left_out") else ""
