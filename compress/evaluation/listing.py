"""An evaluation for people: a table by face height, and how it was measured."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

__all__ = ["render_evaluation"]


def render_evaluation(record: Mapping[str, Any]) -> RenderableType:
    """Lay an evaluation record out for a console of any width."""
    data, protocol = record["data"], record["protocol"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("face height", "faces", "AP"):
        table.add_column(column, justify="left" if column == "face height" else "right")
    for row in record["by_height"]:
        table.add_row(f"{row['name']} px", f"{row['faces']:,}", _score(row["ap"]))
    table.add_row("all", f"{data['faces']:,}", _score(record["ap"]), style="bold")
    protocol_line = (
        f"{data['images']:,} images, {data['ignored']:,} faces ignored; IoU {protocol['iou']}, scale "
        f"{protocol['test_scale']}, NMS {protocol['nms_iou']}, scores from {protocol['score_threshold']}"
    )
    return Group(table, protocol_line)


def _score(ap: float | None) -> str:
    return "-" if ap is None else f"{ap:.3f}"
