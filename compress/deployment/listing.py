"""Exports and benchmarks as printed: tables that fit a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from featherpress.records.deployment import Bench


def render_export(record: Mapping[str, Any]) -> RenderableType:
    """Lay an export's record out: a row a file, then what was checked and scored."""
    table = _table({"file": "left", "precision": "left", "bytes": "right", "largest difference": "right"})
    for entry in record["files"]:
        largest = _largest(entry.get("parity"))
        table.add_row(entry["file"], entry["precision"], f"{entry['bytes']:,}", largest)
    dynamic = ", ".join(record["input"]["dynamic"]) or "nothing"
    lines = [
        f"{record['model']}: {record['params']:,} parameters; free: {dynamic}; outputs: {', '.join(record['outputs'])}"
    ]
    if record["weights"] is None:
        lines.append("without --weights: they are random, unless the factory loads some")
    checked = [each["parity"] for each in record["files"] if "parity" in each]
    if checked:
        shapes = ", ".join("x".join(map(str, row["shape"])) for row in checked[0]["checked"])
        lines.append(f"checked against torch at {shapes}: {checked[0]['measure']}, {checked[0]['tolerance']:g} allowed")
    lines += [_suppressed(entry) for entry in record["files"] if "suppression" in entry]
    lines += [_quantized(entry) for entry in record["files"] if "calibration" in entry]
    return Group(table, *lines, *_scores(record.get("evaluation")))


def _suppressed(entry: Mapping[str, Any]) -> str:
    """Return what was compared of the suppression in a file."""
    compared = entry["suppression"]
    kept = ", ".join(f"{row['faces']} faces from {row['threshold']:.2g} on" for row in compared["kept"])
    shape = "x".join(map(str, compared["shape"]))
    return f"{entry['file']}: keeps the same faces as {compared['with']}, at {shape}: {kept}"


def _quantized(entry: Mapping[str, Any]) -> str:
    """Return how a file was quantised to eight bits."""
    images, kept = entry["calibration_images"], entry["kept_in_float"]
    how = (
        f"activations by {entry['calibration']} of {images} images" if images else "weights alone, activations in float"
    )
    return f"int8: {how}; {kept} convolutions kept in float{_planned(entry.get('plan') or {})}"


def _planned(plan: Mapping[str, Any]) -> str:
    """Return which convolutions are in eight bits, and how the time that was measured chose them."""
    if plan.get("by") != "auto":
        return ""
    tried = "; ".join(f"{each['time']:.2f} {each['kind']}" for each in plan["tried"])
    chosen = f"in eight bits are: {plan['kind']}"
    if plan["kind"] == "weights alone":
        chosen = "nothing good enough is faster here, so that weights alone are in eight bits, for the size"
    chosen += f"; {plan['time']:.2f} of float's time"
    return f"\n{chosen}; tried, least processor time on one thread over float's: {tried}"


def _largest(parity: Mapping[str, Any] | None) -> str:
    if parity is None:
        return "-"
    return f"{max(max(row['difference'].values()) for row in parity['checked']):.1e}"


def _scores(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return []
    data = evaluation["data"]
    before, after = evaluation["float32"]["score"], evaluation["int8"]["score"]
    name, where = evaluation["metric"]["name"], f"{data['images']:,} images of {data['name']}"
    if "faces" in data:
        name, where = "AP at IoU 0.5", f"{data['faces']:,} faces in {where}"
    if before is None or after is None:
        return [f"nothing is labelled in {where}, so there is no {name}"]
    gate = [evaluation["gate"]] if evaluation.get("gate") else []
    return [f"{name}: {before:.4f} float32, {after:.4f} int8 ({after - before:+.4f}), {where}", *gate]


def render_bench(record: Mapping[str, Any]) -> RenderableType:
    """Lay a benchmark's record out: a row a model, size and backend, then how it was measured."""
    columns = {"model": "left", "size": "right", "backend": "left", "ms": "right", "p10-p90": "right"}
    table = _table(columns | {"images/s": "right", "memory": "right"})
    for row in record["results"]:
        latency, memory = row["latency_ms"], row["peak_memory_bytes"]
        table.add_row(
            row["model"],
            str(row["size"]),
            row["backend"],
            f"{latency['median']:.1f}",
            f"{latency['p10']:.1f}-{latency['p90']:.1f}",
            f"{row['images_per_second']:.1f}",
            "-" if memory is None else f"{memory / 2**20:.0f} MiB",
        )
    environment = record["environment"]
    threads, rounds = record["threads"], record["rounds"]
    how = (
        f"batch {record['batch']}; {rounds} interleaved rounds after {record['warm_up']} to warm up; "
        f"{threads} {'thread' if threads == 1 else 'threads'}; torch {environment['torch']}, {environment['processor']}"
    )
    lines = [how, "memory: resident memory of a child process above what its libraries take, at its peak"]
    lines += [said] if (said := Bench.model_validate(record).planned) else []
    lines += [f"{each['backend']}: left out, {each['reason']}" for each in record["left_out"]]
    return Group(table, *lines)


def _table(columns: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in columns.items():
        table.add_column(name, justify=side, overflow="fold")
    return table
