"""`evaluate` and `detect`: a trained model on images with labels, and on any."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featherpress.commands.model_names import open_detector, threshold_of, weights_or_shipped
from featherpress.commands.places import require_empty, require_place
from featherpress.commands.printing import echo, print_json, show
from featherpress.commands.scoring import evaluate_by_recipe
from featherpress.errors import UsageError
from featherpress.escaping import visible
from featherpress.extras import require_extra
from featherpress.files import hash_file, resolve
from featherpress.options import (
    BatchOption,
    FlipOption,
    JsonOption,
    LongSideOption,
    NmsOption,
    SetOption,
    WeightsOption,
)

if TYPE_CHECKING:
    from featherpress.compress.evaluation.detections import FloatArray


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model of the zoo, not needed where the weights say it; or a classifier, package.module:factory."
        ),
    ] = "",
    weights: WeightsOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Images with labels in WIDER FACE's layout or COCO's format; or a folder for each class.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which split of the data: val or train.")] = "val",
    category: Annotated[
        str,
        typer.Option(metavar="NAME", help="Which of COCO's categories the faces are; the only one, or `face`."),
    ] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="Only the first N images; 0: all.")] = 0,
    long_side: LongSideOption = 0,
    flip: FlipOption = False,
    batch: BatchOption = 1,
    threshold: Annotated[
        float,
        typer.Option(metavar="SCORE", min=0, max=1, help="Leave out detections below this score; AP wants a low one."),
    ] = 0.02,
    at: Annotated[
        float | None,
        typer.Option(metavar="SCORE", min=0, max=1, help="Print precision, recall and F1 from this score on; 0.5."),
    ] = None,
    nms: NmsOption = 0.4,
    no_coco: Annotated[bool, typer.Option("--no-coco", help="Leave COCO's AP out.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Score these text predictions, a folder or .tar.gz, in place of a model."),
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="WIDER FACE's .mat files: score by its own protocol.")
    ] = None,
    present_only: Annotated[
        bool,
        typer.Option("--present-only", help="With --ground-truth: score those of its images that are there."),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Photographs without labels: take `detect --json` output as labels."),
    ] = None,
    positive_threshold: Annotated[
        float,
        typer.Option(metavar="SCORE", min=0, max=1, help="With --labels: faces from this score, the rest ignored."),
    ] = 0.6,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The --out of another evaluation: put an interval on the difference."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder for record, detections, text files, figure.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="Score --weights of its student on its data, whatever the task.")
    ] = "",
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model by AP, overall and by face height, and by COCO's; or by WIDER FACE's protocol; or by accuracy.

    With --recipe, by its task's metric on its data, in total and by class: MODEL is `student` then, or `teacher`.

    AP is the whole area under precision over recall at IoU 0.5. COCO's AP50 differs: it takes 101 points of the curve
    and the top-scoring 100 detections of an image, and forgives false alarms inside faces to ignore.

    Examples:
    ```
    featherpress evaluate --data wider/
    featherpress evaluate --weights last.safetensors --data wider/ --flip
    featherpress evaluate --data wider/ --ground-truth mat/ --out results/
    featherpress evaluate --predictions out/ --ground-truth mat/
    featherpress evaluate --weights v2.safetensors --data wider/ --baseline old/
    featherpress evaluate my.models:net --weights w.safetensors --data insects/
    featherpress evaluate --recipe street_scenes --weights last.safetensors
    ```
    """
    require_empty(out)
    if recipe or changes:
        of_faces = {"--data": data, "--predictions": predictions, "--ground-truth": ground_truth, "--labels": labels}
        _refuse_beside_recipe(recipe, of_faces)
        evaluate_by_recipe(
            recipe, changes, weights, role=model, split=split, limit=limit, baseline=baseline, out=out, as_json=as_json
        )
        return
    if out is not None:
        require_extra("report", "the figure in --out")
    if ":" in model:
        _refuse_for_classifier(model, {"--flip": flip, "--long-side": long_side, "--category": category})
        _refuse_for_classifier(
            model, {"--labels": labels, "--ground-truth": ground_truth, "--predictions": predictions}
        )
        _refuse_for_classifier(model, {"--baseline": baseline})
        _evaluate_classes(model, weights, data, split=split, limit=limit, out=out, as_json=as_json)
        return
    if predictions is not None or (ground_truth is not None and not (model or weights or data)):
        if model or weights or data:
            raise UsageError("evaluate scores either a model on --data or --predictions, not both")
        asked = {
            "--limit": limit,
            "--present-only": present_only,
            "--labels": labels,
            "--baseline": baseline,
            "--long-side": long_side,
            "--flip": flip,
        }
        for option in (option for option, value in asked.items() if value):
            raise UsageError(f"{option} goes with --data: --predictions are scored as they are, on every image")
        _evaluate_predictions(predictions, ground_truth, out=out, as_json=as_json)
        return
    if data is None:
        raise UsageError("evaluate needs --data to look at, or --predictions and --ground-truth to compare")
    if not no_coco:
        require_extra("train", "COCO's AP (--no-coco leaves it out)")

    from featherpress.compress.evaluation import scoring
    from featherpress.compress.evaluation.detector.listing import render_evaluation
    from featherpress.compress.evaluation.detector.settings import THRESHOLD, DetectionSettings

    at = max(threshold, THRESHOLD) if at is None else at
    if at < threshold:
        raise UsageError(f"--at {at:g} is below --threshold {threshold:g}, which leaves its detections out")
    protocol = DetectionSettings(long_side=long_side, flip=flip, score_threshold=threshold, nms_iou=nms)
    trained = weights_or_shipped(weights, model)
    _require_no_classifier(trained, model)
    detector = open_detector(trained, model)
    dataset = scoring.open_labelled(
        data,
        split=split,
        category=category,
        ground_truth=ground_truth,
        present_only=present_only,
        labels=labels,
        positive_threshold=positive_threshold,
        limit=limit,
    )
    about = scoring.describe_weights(trained, detector, name=model)
    where = {"name": data.name} if labels else {"name": data.name, "split": split}
    scored, curves = scoring.score_model(
        detector, dataset, settings=protocol, about=about, data=where, batch=batch, at=at, coco=not no_coco
    )
    if baseline is not None:
        scored.record["baseline"] = scoring.compare_with(scored, baseline)
    if out is not None:
        scoring.save_scored(scored, out)
        _draw_curves(out, curves, {"all faces": scored.record["ap"]} | scored.record)
    show(scored.record, as_json, lambda: render_evaluation(scored.record))


def detect(
    images: Annotated[list[Path], typer.Argument(help="Image files, folders, or patterns in quotes.")],
    weights: WeightsOption = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="The weights' model, when their file does not say.")] = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE", min=0, max=1, help="Leave out detections below this; the model card's best F1, or 0.5."
        ),
    ] = None,
    nms: NmsOption = 0.4,
    long_side: LongSideOption = 0,
    flip: FlipOption = False,
    tile: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Run large images in tiles of this side; 0: the whole image at once."),
    ] = 0,
    overlap: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Pixels that neighbouring tiles share; a quarter of a tile."),
    ] = None,
    batch: BatchOption = 1,
    recursive: Annotated[bool, typer.Option("--recursive", help="Search folders in folders too.")] = False,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the drawn images go.")] = Path("detections"),
    as_json: JsonOption = False,
) -> None:
    """Find faces in images and draw boxes, landmarks and scores; with --json, print them instead.

    Exit code: 2 if an image could not be read; the others are done all the same.

    Examples:
    ```
    featherpress detect photo.jpg
    featherpress detect album/ --recursive --json
    featherpress detect crowd.jpg --tile 1024 --weights last.safetensors
    ```
    """
    from featherpress.compress.evaluation.detector.predict import (
        detect_photographs,
        drawing_paths,
        find_photographs,
        keep_apart,
        record_faces,
    )
    from featherpress.compress.evaluation.detector.render import save_drawing
    from featherpress.compress.evaluation.detector.settings import DetectionSettings
    from featherpress.compress.evaluation.detector.tiling import Tiling
    from featherpress.models import fuse
    from featherpress.models.creation import origin_of
    from featherpress.records.run import DetectedFaces

    if overlap is not None and not tile:
        raise UsageError("--overlap goes with --tile")
    chosen = weights_or_shipped(weights, model)
    tiling = Tiling(size=tile, overlap=tile // 4 if overlap is None else overlap) if tile else None
    require_place(None if as_json else out, folder=True)
    passed_over: list[Path] = []
    photographs = find_photographs(images, recursive=recursive, leave_out=out, passed_over=passed_over)
    targets = drawing_paths(photographs, out)
    if not as_json:
        _refuse_overwriting(targets, [each.path for each in photographs])
        targets = keep_apart(photographs, targets)
    opened = open_detector(chosen, model)
    origin, detector = origin_of(opened), fuse(opened)
    if threshold is None:
        threshold = threshold_of(chosen)
    settings = DetectionSettings(long_side=long_side, flip=flip, score_threshold=threshold, nms_iou=nms)
    rows = {}
    for number, image, faces in detect_photographs(
        detector, photographs, settings=settings, tiling=tiling, batch=batch
    ):
        rows[number] = record_faces(photographs[number], image, faces)
        if not as_json:
            save_drawing(image, faces, targets[number], of=photographs[number].path)
            count = f"{len(faces)} {'face' if len(faces) == 1 else 'faces'}"
            seen = rows[number].searched_at
            scaled = f" at the {seen[0]} x {seen[1]} pixels that were searched" if seen else ""
            echo(visible(f"{photographs[number].path}: {count}, drawn in {targets[number]}{scaled}"))
    if as_json:
        record = DetectedFaces(
            model=model or (origin.name if origin else type(opened).__name__),
            weights=chosen.name,
            weights_sha256=hash_file(chosen),
            threshold=threshold,
            protocol=settings.to_dict(),
            tile=tile,
            overlap=tiling.overlap if tiling else 0,
            skipped=len(photographs) - len(rows),
            passed_over=tuple(map(str, passed_over)),
            images=tuple(rows[number] for number in sorted(rows)),
        )
        print_json(record.to_dict())
    raise typer.Exit(2 if len(rows) < len(photographs) else 0)


def _require_no_classifier(weights: Path, model: str) -> None:
    """Refuse weights that say they are of a model of one's own: a file's word alone imports nothing."""
    from featherpress.models.saving import read_input

    said = read_input(weights)
    if not model and said is not None and ":" in said.target:
        raise UsageError(f"{weights} says that it is of the classifier {said.target}; name it too")


def _refuse_beside_recipe(recipe: str, given: "Mapping[str, object]") -> None:
    if not recipe:
        raise UsageError("--set changes a recipe: name it with --recipe")
    for option in (option for option, value in given.items() if value):
        raise UsageError(f"{option} does not go with --recipe, whose data are scored; --set data.root=... changes it")


def _refuse_for_classifier(model: str, given: Mapping[str, object]) -> None:
    for option in (option for option, value in given.items() if value):
        raise UsageError(f"{option} is for detectors of faces; {model} is scored by accuracy")


def _evaluate_classes(
    model: str, weights: Path | None, data: Path | None, *, split: str, limit: int, out: Path | None, as_json: bool
) -> None:
    if weights is None or data is None:
        raise UsageError(f"{model} is a classifier of one's own: evaluate needs its --weights, and --data")
    from featherpress.compress.tasks.classification.evaluating import evaluate_folder, render_classes
    from featherpress.files import write_json

    scored = evaluate_folder(model, weights, data, split=split, limit=limit, settings={})
    if out is not None:
        from featherpress.compress.evaluation.scoring import DETECTIONS
        from featherpress.records.evaluation import SCORED
        from featherpress.reports.figures.accuracy import confusion_matrix
        from featherpress.reports.figures.style import save

        write_json(out / SCORED, scored.record)
        scored.predictions.save(out / DETECTIONS)
        if "confusion" in scored.record:
            names = [each["name"] for each in scored.record["by_class"]]
            save(confusion_matrix(names, scored.record["confusion"]), out / "confusion.png")
    show(scored.record, as_json, lambda: render_classes(scored.record))


def _evaluate_predictions(
    predictions: Path | None, ground_truth: Path | None, *, out: Path | None, as_json: bool
) -> None:
    if predictions is None or ground_truth is None:
        raise UsageError("--predictions and --ground-truth go together")
    from featherpress.compress.evaluation import evaluate_widerface
    from featherpress.compress.evaluation.detector.listing import render_subsets
    from featherpress.records.evaluation import SCORED, SubsetScores

    result = evaluate_widerface(predictions, ground_truth)
    scores = SubsetScores.model_validate(result.to_dict())
    record = scores.to_dict()
    if out is not None:
        scores.save(out / SCORED)
        _draw_curves(out, result.curves, record)
    if as_json:
        print_json(record)
    else:
        echo(render_subsets(record))


def _draw_curves(out: Path, curves: "Mapping[str, tuple[FloatArray, FloatArray]]", scores: Mapping[str, Any]) -> None:
    """Draw precision over recall into `precision_recall.png`; `scores` has the AP of each curve by name."""
    from featherpress.compress.evaluation.metrics.average_precision import IOU
    from featherpress.reports.figures.accuracy import precision_recall
    from featherpress.reports.figures.style import save

    out.mkdir(parents=True, exist_ok=True)
    figure = precision_recall({name: [curve] for name, curve in curves.items()}, scores, iou=IOU)
    save(figure, out / "precision_recall.png")


def _refuse_overwriting(targets: Sequence[Path], images: Sequence[Path]) -> None:
    """Refuse to draw over an image that was given, or over another drawing."""
    given = {resolve(path) for path in images}
    for number, target in enumerate(targets):
        if resolve(target) in given:
            raise UsageError(f"drawing into {target} would overwrite an image you gave; choose another --out")
        if target in targets[:number]:
            raise UsageError(f"two images would be drawn into {target}; give them in two calls with different --out")
