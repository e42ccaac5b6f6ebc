"""How good the models are: as wholes, and of face detectors by face height, with curves and pictures."""

from functools import partial

from featherpress.errors import FeatherpressError
from featherpress.records.evaluation import (
    AnyEvaluation,
    ClassifierEvaluation,
    DetectorEvaluation,
    TaskEvaluation,
    WorkingPoint,
)
from featherpress.reports.blocks import Block, Paragraph, Remark, Table, bold
from featherpress.reports.figures.accuracy import ap_by_height, precision_recall
from featherpress.reports.figures.gallery import draw_gallery, pictures_shown
from featherpress.reports.figures.style import PAGE
from featherpress.reports.formats import change, fraction, integer, interval, percent
from featherpress.reports.metrics import further_scores, mean_score, score, scores, title, with_unit
from featherpress.reports.runs import EVALUATION, GALLERY, place, several
from featherpress.reports.sections.context import RunContext
from featherpress.reports.sections.decision import CONFIDENCE, TOLERANCE
from featherpress.verdicts import MIN_EXAMPLES, paired_interval

_POINT = ("threshold", "precision", "recall", "f1")
SEVERAL = " Where there are several seeds: mean \N{PLUS-MINUS SIGN} standard deviation of the sample."


def accuracy(context: RunContext) -> list[Block]:
    """Give what the models score: of face detectors by face height, of others with all that was measured."""
    run = context.run
    missing = [f"`{place(role, EVALUATION)}`" for role in run.roles if role not in run.evaluated]
    parts: list[Block] = [context.heading("Accuracy")]
    if run.evaluated:
        parts += _by_height(context) if run.detectors else _by_role(context)
    if missing:
        parts.append(Remark(text=f"Missing, so without numbers here: {', '.join(missing)}."))
    return parts + _doubts([each for seeds in run.evaluated.values() for each in seeds])


def differences(context: RunContext) -> list[Block]:
    """Put an interval on the difference of each evaluation to the first, where values per image lie beside both."""
    run = context.run
    (one, [first]), *others = run.evaluated.items()
    rows, why, fewest = [], [], MIN_EXAMPLES
    for name, [other] in others:
        try:
            if other.data != first.data:
                raise FeatherpressError("they are of other data")
            base = context.sources.read_scores([first.file], None)
            side = context.sources.read_scores([other.file], base.examples)
            found = paired_interval(candidate=side.scores, baseline=base.scores, confidence=CONFIDENCE)
            if abs(found.difference - ((other.score or 0) - (first.score or 0))) > TOLERANCE:
                raise FeatherpressError("what lies beside the records is of other scores")
            rows.append([name, change(found.difference), interval(found.low, found.high), integer(found.examples)])
            fewest = min(fewest, found.examples)
        except FeatherpressError as error:
            why.append(Remark(text=f"No interval of the difference of {name} and {one}: {str(error).rstrip('.')}."))
    if not rows:
        return [*why]
    if fewest < MIN_EXAMPLES:
        why.append(Remark(text=f"Fewer than {MIN_EXAMPLES} images decide nothing."))
    table = Table(
        name="differences",
        title=f"{title(run.metric)} less that of {one}, image by image; an interval that holds 0 shows no difference",
        header=["evaluation", "difference", f"its {percent(CONFIDENCE)} interval", "images"],
        rows=rows,
        align="lrrr",
        records=context.files(run.evaluated, EVALUATION),
    )
    return [table, *why]


def curves(context: RunContext) -> list[Block]:
    """Draw precision against recall of face detectors, then AP by face height."""
    evaluated = context.run.detectors
    if not evaluated:
        return []
    iou = next(iter(evaluated.values()))[0].protocol.iou
    parts: list[Block] = [context.heading("Precision, recall and face height")]
    lines = {
        role: [(each.curve.recall, each.curve.precision) for each in found if each.curve.recall]
        for role, found in evaluated.items()
    }
    drawn = {role: found for role, found in lines.items() if found}
    means = {role: mean_score(scores(found)) for role, found in evaluated.items()}
    lines_are, bars_are = "", ""
    if several(evaluated.values()):
        lines_are = " Bold: mean over seeds; thin: each seed."
        bars_are = " Bars and numbers: mean over seeds; dots: each seed."
    if drawn:
        parts.append(
            context.figure(
                "precision_recall",
                partial(precision_recall, drawn, means, iou=iou),
                alt="Precision against recall",
                caption=f"Precision against recall at IoU {iou:g}, over all faces.{lines_are}",
                records=context.files(drawn, EVALUATION),
            )
        )
    parts.append(
        context.figure(
            "ap_by_height",
            partial(ap_by_height, evaluated),
            alt="Bars of AP by face height",
            caption=f"AP at IoU {iou:g}, over all faces and by face height. No bar has an interval: one of few faces "
            f"rests on little.{bars_are}",
            records=context.files(evaluated, EVALUATION),
        )
    )
    return parts


def _by_height(context: RunContext) -> list[Block]:
    evaluated = context.run.detectors
    reference = next(iter(evaluated.values()))[0]
    names: list[tuple[str, str | None, int]] = [("all", None, reference.data.faces)]
    names += [(f"{b.name} px", b.name, b.faces) for b in reference.by_height]
    rows = [
        [text, integer(faces), *(score(scores(found, name)) for found in evaluated.values())]
        for text, name, faces in names
    ]
    table = Table(
        name="accuracy",
        title=f"AP (0 to 1) at IoU {reference.protocol.iou:g}, over all faces and by face height",
        header=["face height", "faces", *(f"{role} AP" for role in evaluated)],
        rows=[bold(rows[0]), *rows[1:]],
        align="lr" + "r" * len(evaluated),
        records=context.files(evaluated, EVALUATION),
        pinned="first",
    )
    recalls = (
        f"{role} {score([e.recall for e in found if e.recall is not None])}" for role, found in evaluated.items()
    )
    text = f"Recall of all detections scored over {reference.protocol.score_threshold:g}: {', '.join(recalls)}."
    if several(evaluated.values()):
        text += SEVERAL
    if not context.run.same_data:
        text += f" The faces are those of {next(iter(evaluated))}."
    if any(b.faces == 0 for b in reference.by_height):
        text += " A dash means that no face has this height."
    return [table, Paragraph(text=text), *_working_points(context)]


def _working_points(context: RunContext) -> list[Block]:
    """Give precision, recall and F1 of detections from a score on: the one that was asked for, and the best."""
    known: dict[str, list[tuple[WorkingPoint, WorkingPoint]]] = {
        role: [(each.working_point, each.best_f1) for each in found if each.working_point and each.best_f1]
        for role, found in context.run.detectors.items()
    }
    rows = [
        [
            role,
            name,
            *(score([value for each in points if (value := getattr(each, key)) is not None]) for key in _POINT),
        ]
        for role, found in known.items()
        for name, points in zip(("as asked", "best F1"), zip(*found, strict=True), strict=bool(found))
    ]
    if not rows:
        return []
    return [
        Table(
            name="working_points",
            title="Detections from a score on: the share that are faces, the share of faces found, and F1",
            header=["model", "detections", "from a score of", "precision", "recall", "F1"],
            rows=rows,
            align="llrrrr",
            records=context.files(known, EVALUATION),
        )
    ]


def _by_role(context: RunContext) -> list[Block]:
    run = context.run
    evaluated, name = run.evaluated, with_unit(run.metric)
    further = [*dict.fromkeys(name for found in run.of_tasks.values() for each in found for name in each.further)]
    table = Table(
        name="accuracy",
        title=title(run.metric)
        + ("" if run.scored_only else " on validation images")
        + (", and other scores" if further else ""),
        header=["role", "model", "parameters", name, *further],
        rows=[
            [
                role,
                f"`{found[0].model}`",
                integer(found[0].params),
                *map(score, (scores(found), *(further_scores(found, each) for each in further))),
            ]
            for role, found in evaluated.items()
        ],
        align="llr" + "r" * (1 + len(further)),
        records=context.files(evaluated, EVALUATION),
    )
    text = _measured(next(iter(evaluated.values()))[0]) if run.same_data else f"More {run.metric.name} is better."
    return [table, Paragraph(text=text + SEVERAL if several(evaluated.values()) else text)]


def _measured(evaluation: AnyEvaluation) -> str:
    """Return on what a score was measured, and of accuracy what guessing gives."""
    data = evaluation.data
    if isinstance(evaluation, ClassifierEvaluation):
        classes = evaluation.data.classes
        return (
            f"Accuracy is the share of {integer(data.images)} images of which the right one of {integer(classes)} "
            f"classes is named; guessing gives {fraction(1 / classes)} where all are as frequent."
        )
    classes = len(evaluation.by_class) if isinstance(evaluation, TaskEvaluation) else 0
    return (
        f"Measured on {integer(data.images)} images ({data.place})"
        + (f" of {integer(classes)} classes" if classes else "")
        + f"; more {evaluation.metric.name} is better."
    )


def _doubts(found: list[AnyEvaluation]) -> list[Block]:
    """Return warnings where the numbers do not belong side by side."""
    doubts: list[Block] = []
    detectors = [each for each in found if isinstance(each, DetectorEvaluation)]
    if len({e.data for e in found}) > 1 or len({e.protocol for e in detectors}) > 1:
        text = "These models were not evaluated on the same data by the same protocol: see the stamps below."
        doubts.append(Remark(text=text, kind="warning"))
    if detectors:
        faces, counted = detectors[0].data.faces, sum(b.faces for b in detectors[0].by_height)
        if counted != faces:
            doubts.append(Remark(text=f"The heights hold {integer(counted)} of {integer(faces)} faces."))
    return doubts


def gallery(context: RunContext) -> list[Block]:
    """Show real detections, model beside model."""
    run = context.run
    if not run.finds_faces:
        return []
    parts: list[Block] = [context.heading("Detections")]
    if run.gallery is None or not run.gallery.images:
        return [*parts, Remark(text="`eval/gallery/` is missing: there is no picture to look at.")]
    iou = next((found[0].protocol.iou for found in run.detectors.values()), 0.5)
    shown, held = len(pictures_shown(run.gallery)), len(run.gallery.images)
    scored = ", ".join(f"{fraction(least)} ({role})" for role, least in run.gallery.thresholds.items())
    caption = (
        f"Detections from the score of each model's best F1 on, {scored}, matched at IoU {iou:g}. "
        + (f"All {held} pictures" if shown == held else f"The first {shown} of {held} pictures")
        + " that the run saved."
    )
    draw = partial(draw_gallery, run.gallery, iou=iou)
    alt, records = "Hits, misses and false alarms", [GALLERY]
    return [*parts, context.figure("gallery", draw, alt=alt, caption=caption, records=records, width=PAGE)]
