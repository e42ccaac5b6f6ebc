"""Records from their files: None for one that is not there, `FileError` for one that is broken."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from featherpress.errors import FileError
from featherpress.reports.reading import Fields, read_json
from featherpress.reports.records import (
    ACCURACY,
    AP,
    Arm,
    Audit,
    Box,
    Bucket,
    Budget,
    Check,
    Claim,
    ClassData,
    ClassifierEvaluation,
    Comparison,
    Component,
    DetectorEvaluation,
    Difference,
    Environment,
    Evaluation,
    FaceData,
    Found,
    Gallery,
    Metric,
    Metrics,
    Picture,
    Protocol,
    Truth,
)

# What a record may have rounded away before it contradicts itself.
TOLERANCE = 5e-4
METRICS = {metric.key: metric for metric in (AP, ACCURACY)}


def read_budget(file: Path) -> Budget | None:
    """Read budget.json."""
    fields = read_json(file, "budget")
    if fields is None:
        return None
    adapters = fields.optional("adapters", fields.child)
    return Budget(
        teacher=_audit(fields.child("teacher")) if fields.values.get("teacher") is not None else None,
        student=_audit(fields.child("student")),
        adapters=adapters.integer("params") if adapters is not None else None,
    )


def read_audit(file: Path) -> Audit | None:
    """Read what `featherpress audit NAME --json` printed."""
    fields = read_json(file, "audit")
    return None if fields is None else _audit(fields)


def read_settings(file: Path) -> tuple[str, Mapping[str, str]] | None:
    """Read a model's name and settings from what `featherpress models show NAME --json` printed."""
    fields = read_json(file, "model")
    return None if fields is None else (fields.text("name"), _settings(fields))


def _settings(fields: Fields) -> dict[str, str]:
    """Return what a model was built from, a word or a number each; empty where it was not recorded."""
    found = fields.optional("settings", fields.child)
    return {key: _word(value) for key, value in found.values.items()} if found is not None else {}


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_word, value)) if isinstance(value, list) else str(value)


def _audit(fields: Fields) -> Audit:
    total = _component(fields.child("total"), name="total")
    components = tuple(_component(row, name=row.text("name")) for row in fields.children("components"))
    for unit, whole, parts in (
        ("params", total.params, sum(c.params for c in components)),
        ("macs", total.macs, sum(c.macs for c in components)),
    ):
        if whole != parts:
            raise FileError(
                f"{fields.file}: expected the components' {unit} at `{fields.place}` to sum to the total {whole:,}, "
                f"got {parts:,}; count the model again."
            )
    return Audit(
        model=fields.text("model"),
        inputs=_shapes(fields),
        convention=fields.optional("convention", fields.text) or "",
        verdict=fields.text("verdict"),
        failures=fields.optional("failures", fields.texts) or (),
        total=total,
        components=components,
        claims=tuple(_claim(row) for row in fields.optional("claims", fields.children) or ()),
        settings=_settings(fields),
        file=fields.file,
    )


def _component(fields: Fields, *, name: str) -> Component:
    return Component(
        name=name,
        params=fields.integer("params"),
        macs=fields.integer("macs"),
        checks=tuple(_check(row) for row in fields.optional("checks", fields.children) or ()),
    )


def _check(fields: Fields) -> Check:
    return Check(
        quantity=fields.text("quantity"),
        actual=fields.integer("actual"),
        target=fields.optional("target", fields.integer),
        low=fields.optional("low", fields.integer),
        high=fields.optional("high", fields.integer),
        verdict=fields.text("verdict"),
    )


def _shapes(fields: Fields) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all inputs; a model of one input has its shape written without a list around it."""
    value = fields.values.get("input")
    if isinstance(value, list) and value and isinstance(value[0], list):
        shapes = Fields(
            values={str(i): shape for i, shape in enumerate(value)}, file=fields.file, place=f"{fields.place}.input"
        )
        return tuple(shapes.integers(index) for index in shapes.values)
    return (fields.integers("input"),)


def _claim(fields: Fields) -> Claim:
    return Claim(
        component=fields.text("component"),
        quantity=fields.optional("quantity", fields.text) or "params",
        claimed=fields.integer("claimed"),
        measured=fields.integer("ours"),
        why=fields.optional("note", fields.text) or "",
        source=fields.optional("source", fields.text) or "",
    )


def read_evaluation(file: Path) -> Evaluation | None:
    """Read eval/validation.json or eval/teacher.json, of a detector or of a classifier."""
    fields = read_json(file, "evaluation", "classification")
    if fields is None:
        return None
    return _detector(fields) if fields.kind == "evaluation" else _classifier(fields)


class _Subject(TypedDict):
    """What every evaluation says of the model it is of."""

    model: str
    role: str
    params: int
    macs: int | None
    file_bytes: int | None


def _subject(fields: Fields) -> _Subject:
    return _Subject(
        model=fields.text("model"),
        role=fields.text("role"),
        params=fields.integer("params"),
        macs=fields.optional("macs", fields.integer),
        file_bytes=fields.optional("file_bytes", fields.integer),
    )


def _classifier(fields: Fields) -> ClassifierEvaluation:
    data = fields.child("data")
    return ClassifierEvaluation(
        **_subject(fields),
        data=ClassData(
            name=data.text("name"),
            split=data.text("split"),
            images=data.integer("images"),
            classes=data.integer("classes"),
        ),
        score=fields.number("accuracy"),
    )


def _detector(fields: Fields) -> DetectorEvaluation:
    curve = fields.child("curve")
    recall, precision = curve.numbers("recall"), curve.numbers("precision")
    if len(recall) != len(precision):
        raise FileError(
            f"{fields.file}: expected as many precisions as recalls in `curve`, got {len(precision)} and {len(recall)}."
        )
    return DetectorEvaluation(
        **_subject(fields),
        data=_data(fields.child("data")),
        protocol=_protocol(fields.child("protocol")),
        score=fields.optional("ap", fields.number),
        recall=fields.optional("recall", fields.number),
        buckets=tuple(
            Bucket(name=row.text("name"), faces=row.integer("faces"), ap=row.optional("ap", row.number))
            for row in fields.children("by_height")
        ),
        curve_recall=recall,
        curve_precision=precision,
    )


def _data(fields: Fields) -> FaceData:
    return FaceData(
        name=fields.text("name"),
        split=fields.text("split"),
        images=fields.integer("images"),
        skipped=fields.integer("skipped"),
        faces=fields.integer("faces"),
        ignored=fields.integer("ignored"),
    )


def _protocol(fields: Fields) -> Protocol:
    return Protocol(
        iou=fields.number("iou"),
        test_scale=fields.text("test_scale"),
        nms_iou=fields.number("nms_iou"),
        score_threshold=fields.number("score_threshold"),
        top_k=fields.integer("top_k"),
    )


def read_comparison(file: Path) -> Comparison | None:
    """Read eval/comparison.json.

    Errors: `FileError` also when its verdict is not what its own interval allows.
    """
    fields = read_json(file, "comparison")
    if fields is None:
        return None
    seeds, metric = fields.integers("seeds"), METRICS.get(fields.text("metric"))
    if metric is None:
        raise FileError(f"{file}: expected the metric {' or '.join(METRICS)}, got {fields.text('metric')!r}.")
    comparison = Comparison(
        metric=metric,
        seeds=seeds,
        control=_arm(fields.child("control"), metric, seeds=len(seeds)),
        distilled=_arm(fields.child("distilled"), metric, seeds=len(seeds)),
        difference=_difference(fields.child("difference")),
        sentence=fields.text("sentence"),
    )
    verdict, allowed = fields.text("verdict"), comparison.difference.verdict
    if verdict != allowed:
        raise FileError(f"{file}: expected the verdict {allowed!r} from its interval, got {verdict!r}; compare again.")
    return comparison


def _arm(fields: Fields, metric: Metric, *, seeds: int) -> Arm:
    scores = fields.numbers(metric.key, seeds)
    arm = Arm(scores=scores, mean=fields.number("mean"), std=fields.optional("std", fields.number))
    mean = math.fsum(scores) / len(scores) if scores else math.nan
    if not abs(mean - arm.mean) <= TOLERANCE:
        raise FileError(f"{fields.file}: expected `{fields.place}.mean` to be {mean:.6f}, got {arm.mean:.6f}.")
    return arm


def _difference(fields: Fields) -> Difference:
    return Difference(
        mean=fields.number("mean"),
        low=fields.number("low"),
        high=fields.number("high"),
        confidence=fields.number("confidence"),
        resamples=fields.integer("resamples"),
        method=fields.text("method"),
    )


def read_environment(file: Path) -> Environment | None:
    """Read environment.json; facts are kept whatever their names."""
    fields = read_json(file, "environment")
    if fields is None:
        return None
    apart = ("schema", "command", "seconds")
    return Environment(
        facts={key: str(value) for key, value in fields.values.items() if key not in apart and value is not None},
        command=fields.optional("command", fields.texts) or (),
        seconds=fields.optional("seconds", fields.number),
    )


def read_gallery(file: Path) -> Gallery | None:
    """Read eval/gallery/gallery.json; the pictures lie beside it."""
    fields = read_json(file, "gallery")
    if fields is None:
        return None
    return Gallery(
        threshold=fields.number("threshold"),
        pictures=tuple(_picture(row) for row in fields.children("images")),
    )


def _picture(fields: Fields) -> Picture:
    roles = [role for role in ("teacher", "control", "student") if fields.values.get(role) is not None]
    if not roles:
        raise FileError(
            f"{fields.file}: expected what teacher, control or student found in `{fields.place}`, got none."
        )
    return Picture(
        file=fields.file.parent / fields.text("file"),
        width=fields.integer("width"),
        height=fields.integer("height"),
        truth=tuple(Truth(box=_box(row), ignored=row.flag("ignored")) for row in fields.children("truth")),
        found={
            role: tuple(
                Found(box=_box(row), score=row.number("score"), hit=row.flag("hit")) for row in fields.children(role)
            )
            for role in roles
        },
    )


def _box(fields: Fields) -> Box:
    x1, y1, x2, y2 = fields.numbers("box", 4)
    return x1, y1, x2, y2


def read_metrics(file: Path) -> Metrics | None:
    """Read metrics.csv; rows of one step, such as its losses and its score, become one, where the last value counts.

    Units: `epoch` is counted from 1 in the result, from 0 in the file.
    """
    if not file.exists():
        return None
    needed = ["step", "epoch", "task"]
    try:
        frame = pd.read_csv(file).rename(columns={f"val_{key}": "score" for key in METRICS})
        missing = [name for name in needed if name not in frame.columns]
        if "score" not in frame.columns:
            missing.append(" or ".join(f"val_{key}" for key in METRICS))
        if missing:
            raise FileError(
                f"{file}: expected a table of a training's steps, got no column {' and no '.join(missing)}."
            )
        frame = frame.astype(np.float64)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FileError(f"{file}: expected a table of numbers, got something else ({error}).") from error
    # A run that was killed can leave a last row half written.
    frame = frame.dropna(subset=["step", "epoch"]).dropna(subset=["task", "score"], how="all")
    frame = frame.groupby("step", as_index=False).last()
    frame["epoch"] += 1
    if frame.empty:
        return None
    return Metrics(columns={str(name): frame[name].to_numpy(dtype=np.float64) for name in frame.columns})
