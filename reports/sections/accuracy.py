"""What the models find: AP by face height, the verdict on distillation, curves and pictures."""

import statistics
from functools import partial

from featherpress.reports.blocks import Block, Paragraph, Remark, Table, bold
from featherpress.reports.figures import ap_by_height, draw_gallery, precision_recall
from featherpress.reports.figures.gallery import pictures_shown
from featherpress.reports.figures.style import PAGE
from featherpress.reports.formats import ap, change, integer
from featherpress.reports.records import Comparison, Evaluation
from featherpress.reports.runs import Run
from featherpress.reports.scores import score, scores
from featherpress.reports.sections.chapters import Chapter

__all__ = ["accuracy", "curves", "distillation", "gallery", "interval_sentence"]

FILES = {
    "teacher": "eval/teacher.json",
    "control": "control/eval/validation.json",
    "student": "eval/validation.json",
    "model": "eval/validation.json",
}


def accuracy(chapter: Chapter) -> list[Block]:
    """Give AP over all faces and by face height."""
    run = chapter.run
    evaluated = _evaluated(run)
    missing = [f"`{FILES[role]}`" for role in run.roles if role not in evaluated]
    parts: list[Block] = [chapter.heading("Accuracy")]
    if evaluated:
        parts += [_accuracy_table(evaluated), Paragraph(text=_recall(evaluated))]
    if missing:
        parts.append(Remark(text=f"Missing, so without numbers here: {', '.join(missing)}."))
    return parts + _doubts(evaluated)


def curves(chapter: Chapter) -> list[Block]:
    """Draw precision against recall, then AP by face height."""
    run = chapter.run
    evaluated = _evaluated(run)
    if not evaluated:
        return []
    iou = next(iter(evaluated.values()))[0].protocol.iou
    several = max(len(found) for found in evaluated.values()) > 1
    parts: list[Block] = [chapter.heading("Precision, recall and face height")]
    drawn = {role: tuple(e for e in found if e.curve_recall) for role, found in evaluated.items()}
    if any(drawn.values()):
        caption = f"Precision against recall at IoU {iou:g}, over all faces."
        parts.append(
            chapter.figure(
                "precision_recall",
                partial(precision_recall, {role: found for role, found in drawn.items() if found}),
                alt="Precision against recall",
                caption=f"{caption} Bold: mean over seeds; thin: each seed." if several else caption,
            )
        )
    caption = f"AP at IoU {iou:g}, over all faces and by face height."
    parts.append(
        chapter.figure(
            "ap_by_height",
            partial(ap_by_height, evaluated),
            alt="Bars of AP by face height",
            caption=f"{caption} Bars and numbers: mean over seeds; dots: each seed." if several else caption,
        )
    )
    return parts


def _evaluated(run: Run) -> dict[str, tuple[Evaluation, ...]]:
    """Return the evaluations of every role that has one, a seed each."""
    return {role: run.evaluations(role) for role in run.roles if run.evaluations(role)}


def _accuracy_table(evaluated: dict[str, tuple[Evaluation, ...]]) -> Table:
    reference = next(iter(evaluated.values()))[0]
    names: list[tuple[str, str | None, int]] = [("all", None, reference.data.faces)]
    names += [(f"{b.name} px", b.name, b.faces) for b in reference.buckets]
    rows = [
        [text, integer(faces), *(score(scores(found, name)) for found in evaluated.values())]
        for text, name, faces in names
    ]
    header = ["face height", "faces", *(f"{role} AP" for role in evaluated)]
    return Table(
        name="accuracy",
        title="AP over all faces and by face height",
        header=header,
        rows=[bold(rows[0]), *rows[1:]],
        align="lr" + "r" * len(evaluated),
        pinned="first",
    )


def _recall(evaluated: dict[str, tuple[Evaluation, ...]]) -> str:
    reference = next(iter(evaluated.values()))[0]
    recalls = []
    for role, found in evaluated.items():
        known = [e.recall for e in found if e.recall is not None]
        recalls.append(f"{role} {score(known)}")
    text = f"Recall of all detections scored over {reference.protocol.score_threshold:g}: {', '.join(recalls)}."
    if max(len(found) for found in evaluated.values()) > 1:
        text += " Where there are several seeds: mean \N{PLUS-MINUS SIGN} standard deviation of the sample."
    if any(b.faces == 0 for b in reference.buckets):
        text += " A dash means that no face has this height."
    return text


def _doubts(evaluated: dict[str, tuple[Evaluation, ...]]) -> list[Block]:
    """Return warnings where the numbers do not belong side by side."""
    found = [e for seeds in evaluated.values() for e in seeds]
    doubts: list[Block] = []
    if not found:
        return doubts
    if len({e.data for e in found}) > 1 or len({e.protocol for e in found}) > 1:
        doubts.append(
            Remark(
                text="These models were not evaluated on the same data by the same protocol: see the stamps below.",
                kind="warning",
            )
        )
    reference = found[0]
    counted = sum(b.faces for b in reference.buckets)
    if counted != reference.data.faces:
        doubts.append(Remark(text=f"The heights hold {integer(counted)} of {integer(reference.data.faces)} faces."))
    return doubts


def distillation(chapter: Chapter) -> list[Block]:
    """Say whether distillation helped, with everything the answer rests on."""
    run = chapter.run
    if not run.distilled:
        return []
    parts: list[Block] = [chapter.heading("Did distillation help?")]
    if run.comparison is None:
        text = "`eval/comparison.json` is missing: without a control trained alike, nothing is claimed."
        return [*parts, Remark(text=text)]
    comparison = run.comparison
    parts += [_seed_table(comparison), Paragraph(text=interval_sentence(comparison))]
    if len(comparison.seeds) == 1:
        parts.append(
            Remark(
                text="One seed only: the interval covers the choice of images, not how much another seed would change. "
                "Train more seeds before relying on it.",
                kind="warning",
            )
        )
    return parts


def _seed_table(comparison: Comparison) -> Table:
    control, distilled = comparison.control, comparison.distilled
    rows = [
        ["control", *(ap(value) for value in control.ap), ap(control.mean), ap(control.std)],
        ["distilled", *(ap(value) for value in distilled.ap), ap(distilled.mean), ap(distilled.std)],
    ]
    gaps = [after - before for before, after in zip(control.ap, distilled.ap, strict=True)]
    deviation = statistics.stdev(gaps) if len(gaps) > 1 else None
    difference = ["difference", *(change(gap) for gap in gaps), change(distilled.mean - control.mean), ap(deviation)]
    header = ["AP, all faces", *(f"seed {seed}" for seed in comparison.seeds), "mean", "std over seeds"]
    return Table(
        name="seeds",
        title="AP of control and distilled student, seed by seed",
        header=header,
        rows=[*rows, bold(difference)],
        align="l" + "r" * (len(gaps) + 2),
        pinned="last",
    )


def interval_sentence(comparison: Comparison) -> str:
    """Return the interval of the difference and what it allows to say, decided on the exact limits."""
    found = comparison.difference
    meaning = {
        "better": "lies above 0: the student is **better** with distillation",
        "worse": "lies below 0: the student is **worse** with distillation",
        "not shown": "holds 0: that distillation changes the AP is **not shown**",
    }[found.verdict]
    text = (
        f"Difference in AP, distilled less control: {change(found.mean)}. Its {100 * found.confidence:g} % interval, "
        f"[{change(found.low)}, {change(found.high)}], {meaning}. "
        f"Method: {found.method}, {integer(found.resamples)} resamples."
    )
    if len(comparison.seeds) > 1:
        return f"{text} The interval covers the choice of images; the standard deviation covers the seeds."
    return text


def gallery(chapter: Chapter) -> list[Block]:
    """Show real detections, model beside model."""
    run = chapter.run
    parts: list[Block] = [chapter.heading("Detections")]
    if run.gallery is None or not run.gallery.pictures:
        return [*parts, Remark(text="`eval/gallery/` is missing: there is no picture to look at.")]
    found = [e for role in run.roles for e in run.evaluations(role)]
    iou = found[0].protocol.iou if found else 0.5
    shown, held = len(pictures_shown(run.gallery)), len(run.gallery.pictures)
    caption = (
        f"Detections scored {run.gallery.threshold:g} or more, matched at IoU {iou:g}. "
        + (f"All {held} pictures" if shown == held else f"The first {shown} of {held} pictures")
        + " in `eval/gallery/`."
    )
    draw = partial(draw_gallery, run.gallery, iou=iou)
    return [*parts, chapter.figure("gallery", draw, alt="Hits, misses and false alarms", caption=caption, width=PAGE)]
