"""An evaluation as printed: a table by face height, and how it was measured."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from featherpress.compress.evaluation.score_listing import left_out_line
from featherpress.compress.evaluation.widerface.files import SUBSETS


def render_evaluation(record: Mapping[str, Any]) -> RenderableType:
    """Format an evaluation record for a console of any width."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("face height", "faces", "AP"):
        table.add_column(column, justify="left" if column == "face height" else "right")
    for row in record["by_height"]:
        table.add_row(f"{row['name']} px", f"{row['faces']:,}", _score(row["ap"]))
    table.add_row("all", f"{record['data']['faces']:,}", _score(record["ap"]), style="bold")
    return Group(table, *_lines(record))


def render_subsets(scores: Mapping[str, Any]) -> str:
    """Return the three numbers of WIDER FACE, a line each."""
    return "\n".join(f"{name:<6}  {_score(scores[name], 4)}" for name in SUBSETS)


def _lines(record: Mapping[str, Any]) -> list[str]:
    """Return the lines below the table: other scores, the data, the protocol and the weights."""
    data, protocol, lines = record["data"], record["protocol"], []
    if "best_f1" in record:
        lines += [_point("", record["working_point"]), _point("best F1, ", record["best_f1"])]
    if "hard" in record:
        lines.append(f"WIDER FACE:\n{render_subsets(record)}")
        if data["missing"]:
            lines.append(f"no official result: {data['missing']:,} of its images are missing")
    if "coco" in record:
        coco = record["coco"]
        lines.append(f"COCO: AP {_score(coco['ap'])}, AP50 {_score(coco['ap50'])}, AP75 {_score(coco['ap75'])}")
        lines.append(
            "AP50 differs from the AP above: it takes 101 points of the curve and the top-scoring "
            f"{coco['most_detections']} detections of an image, and forgives false alarms inside ignored faces"
        )
    if "labels" in data:
        lines.append(
            f"compared with another model's detections ({data['labels']['file']}), faces from a score of "
            f"{data['labels']['positive_threshold']}: this measures how far the two agree, not accuracy"
        )
    if "baseline" in record:
        baseline = record["baseline"]
        lines.append(f"baseline {baseline['folder']}: AP {_score(baseline['ap'])}; {baseline['sentence']}")
    lines.append(
        f"{data['images']:,} images, {data['ignored']:,} faces ignored; IoU {protocol['iou']}, scale "
        f"{protocol['test_scale']}, flip {'yes' if protocol['flip'] else 'no'}, NMS {protocol['nms_iou']}, "
        f"scores from {protocol['score_threshold']}, at most {protocol['top_k']} an image"
    )
    if said := left_out_line(data):
        lines.append(said)
    if "weights_sha256" in record:
        lines.append(f"weights {record['weights']}, sha256 {record['weights_sha256'][:12]}")
    return lines


def _point(name: str, point: Mapping[str, Any]) -> str:
    precision, recall, f1 = (_score(point[each]) for each in ("precision", "recall", "f1"))
    return f"{name}from a score of {_score(point['threshold'])}: precision {precision}, recall {recall}, F1 {f1}"


def _score(ap: float | None, digits: int = 3) -> str:
    return "-" if ap is None else f"{ap:.{digits}f}"
