"""What is read from other people: for each kind of file a sound one, and the reader that a command uses."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from scipy.io import savemat

from featherpress.budgets.auditing.budget_file import load_budget
from featherpress.compress.data.images import decode_image, decode_within, image_size
from featherpress.compress.data.sources.masks import read_mask
from featherpress.compress.data.sources.objects import open_objects
from featherpress.compress.data.sources.widerface import WiderFaces
from featherpress.compress.evaluation.saved_scores import read_coco_results, read_saved
from featherpress.compress.evaluation.widerface.files import read_ground_truth, read_predictions
from featherpress.compress.recipes import load_recipe, recipe_to_toml
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.training.checkpoints import latest_state
from featherpress.models.checkpoints import read_weights
from featherpress.models.saving import load_model, read_input
from featherpress.records import audit, comparison, deployment, evaluation, run
from featherpress.records.record import Record
from featherpress.reports.given import read_given
from featherpress.reports.runs import load_run
from featherpress.verdicts.tables import read_tables

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of file: its name in a folder, sound contents, what reads that folder, and files that lie beside it."""

    file: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    beside: dict[str, bytes] = field(default_factory=dict)


def _image(kind: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((64, 48)).convert(mode).save(stream, kind)
    return stream.getvalue()


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
    "categories": [
        {"id": 1, "name": "face", "keypoints": ["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"]}
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 15], "iscrowd": 0, "keypoints": [5, 5, 2] * 5},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1, 9, 9]]},
    ],
}
VOC = b"""<annotation><filename>a.jpg</filename><size><width>64</width><height>48</height></size>
<object><name>face</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object></annotation>"""
WIDER = b"0--Test/a.jpg\n2\n2 3 20 15 0 0 0 0 0 0\n5 5 9 9 0 0 0 0 0 0\n"
DETECTIONS = {
    "schema": "featherpress.detections/1",
    "threshold": 0.5,
    "images": [{"file": "a.jpg", "width": 64, "height": 48, "faces": [{"box": [1, 2, 9, 9], "score": 0.9}]}],
}
PROVENANCE = {"schema": "featherpress.provenance/1", "run": "x", "recipe": {"a": "1"}, "parts": {}, "machine": {}}


def _mat(names: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    savemat(stream, names, do_compression=True)
    return stream.getvalue()


def _cell(content: object) -> np.ndarray:  # type: ignore[type-arg]
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = content
    return cell


def _truth() -> dict[str, bytes]:
    boxes = np.array([[1.0, 2, 9, 9]])
    faces = {"event_list": _cell("0--Test"), "file_list": _cell(_cell("a")), "face_bbx_list": _cell(_cell(boxes))}
    lists = _mat({"gt_list": _cell(_cell(np.array([[1]])))})
    return {
        "wider_face_val.mat": _mat(faces),
        **{f"wider_{each}_val.mat": lists for each in ("easy", "medium", "hard")},
    }


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, metric="accuracy", names=np.array(["a", "b"]), values=np.array([0.0, 1.0]))
    return stream.getvalue()


def _pickle() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"module.a": torch.ones(2, 2)}}, stream)
    return stream.getvalue()


def _tensors() -> bytes:
    takes = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 64, "classes": ["a"]}
    named = {"model": "featherface_v2", "settings": '{"out_channels": 8}', "input": json.dumps(takes)}
    return to_safetensors({"a": torch.ones(2, 2), "b": torch.zeros(3)}, metadata=named)


def _load_every_record(folder: Path) -> None:
    """Read a record by the class of its schema; a wrong one is refused by all."""
    kinds = [kind for module in (audit, comparison, deployment, evaluation, run) for kind in vars(module).values()]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Record) and hasattr(kind, "SCHEMA"):
            try:
                kind.load(folder / "record.json")
            except Exception as error:
                if type(error).__name__ != "FileError":
                    raise


def _state(folder: Path) -> None:
    state = folder / "state" / "step-00000001.pt"
    state.parent.mkdir(exist_ok=True)
    (folder / "state.pt").replace(state)
    latest_state(TrainingFolder(folder), "")


def _read_images(folder: Path) -> None:
    for read in (image_size, decode_image, lambda path: decode_within(path, 1000)):
        read(folder / "a.jpg")


JPEG = _image("JPEG")
RECIPES = [recipe_to_toml(load_recipe(name)).encode() for name in ("digits", "v1_to_v2_photos")]
COMPARISON = {
    "schema": "featherpress.comparison/1", "metric": "ap", "seeds": [0], "control": {"scores": [0.5], "mean": 0.5},
    "distilled": {"scores": [0.6], "mean": 0.6}, "verdict": "undecided", "sentence": "x",
    "difference": {"mean": 0.1, "low": 0.0, "high": 0.2, "confidence": 0.95, "resamples": 100, "method": "x"},
}  # fmt: skip

TARGETS: dict[str, Target] = {
    "budget": Target(
        file="budget.toml",
        seeds=[path.read_bytes() for path in sorted((ROOT / "budgets" / "data").glob("*.toml"))],
        read=lambda folder: load_budget(folder / "budget.toml"),
    ),
    "recipe": Target(file="recipe.toml", seeds=RECIPES, read=lambda folder: load_recipe(folder / "recipe.toml")),
    "coco": Target(
        file="annotations.json",
        seeds=[_json(COCO)],
        read=lambda folder: open_objects(folder, "val")[0],
        beside={"images/a.jpg": JPEG},
    ),
    "yolo": Target(
        file="labels/val/a.txt",
        seeds=[b"0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3\n"],
        read=lambda folder: open_objects(folder, "val")[0],
        beside={"images/val/a.jpg": JPEG, "data.yaml": b"names: [face]\nval: images/val\n"},
    ),
    "voc": Target(
        file="Annotations/a.xml",
        seeds=[VOC],
        read=lambda folder: open_objects(folder, "val")[0],
        beside={"JPEGImages/a.jpg": JPEG, "ImageSets/Main/val.txt": b"a\n"},
    ),
    "widerface": Target(
        file="wider_face_split/wider_face_val_bbx_gt.txt",
        seeds=[WIDER],
        read=lambda folder: [*WiderFaces(folder, "val")][:1],
        beside={"WIDER_val/images/0--Test/a.jpg": JPEG},
    ),
    "mask": Target(
        file="mask.png",
        seeds=[_image("PNG", "L"), _image("PNG", "P")],
        read=lambda folder: read_mask(folder / "mask.png", of=folder / "a.jpg", size=(64, 48)),
        beside={"a.jpg": JPEG},
    ),
    "image": Target(
        file="a.jpg",
        seeds=[JPEG, *(_image(kind) for kind in ("PNG", "BMP", "TIFF", "WEBP")), _image("PNG", "I;16")],
        read=_read_images,
    ),
    "predictions": Target(
        file="event/a.txt", seeds=[b"event/a.jpg\n2\n1 2 3 4 0.9\n5 6 7 8 0.5\n"], read=read_predictions
    ),
    "mat": Target(
        file="wider_face_val.mat", seeds=[_truth()["wider_face_val.mat"]], read=read_ground_truth, beside=_truth()
    ),
    "saved": Target(file="saved.npz", seeds=[_npz()], read=lambda folder: read_saved(folder / "saved.npz")),
    "results": Target(
        file="results.json",
        seeds=[_json([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])],
        read=lambda folder: read_coco_results(folder / "results.json", folder / "truth.json"),
        beside={"truth.json": _json(COCO)},
    ),
    "scores": Target(
        file="scores.csv",
        seeds=[b"example,score\na,0.5\nb,0.25\n"],
        read=lambda folder: read_tables([folder / "scores.csv"]),
    ),
    "safetensors": Target(
        file="w.safetensors",
        seeds=[_tensors()],
        read=lambda folder: (read_weights(folder / "w.safetensors"), read_input(folder / "w.safetensors")),
    ),
    "model": Target(file="w.safetensors", seeds=[_tensors()], read=lambda folder: load_model(folder / "w.safetensors")),
    "pickle": Target(file="w.pt", seeds=[_pickle()], read=lambda folder: read_weights(folder / "w.pt")),
    "state": Target(file="state.pt", seeds=[_pickle()], read=_state),
    "record": Target(
        file="record.json",
        seeds=[_json(COMPARISON), _json(DETECTIONS), _json(PROVENANCE)],
        read=_load_every_record,
    ),
    "report": Target(
        file="eval/comparison.json",
        seeds=[_json(COMPARISON)],
        read=load_run,
        beside={"metrics.csv": b"step,epoch,lr,loss\n1,0,0.1,2.5\n"},
    ),
    "metrics": Target(
        file="metrics.csv",
        seeds=[b"step,epoch,lr,images_per_second,loss,val_ap\n1,0,0.1,5,2.5,\n2,0,0.1,5,2.5,0.5\n"],
        read=load_run,
        beside={"eval/comparison.json": _json(COMPARISON)},
    ),
    "given": Target(
        file="given.csv",
        seeds=[b"model,params,macs,score\nx,1000,2000,0.5\n", b"name,accuracy\nx,0.5\n"],
        read=lambda folder: read_given(folder / "given.csv"),
    ),
}

assert sys.getrecursionlimit() <= 1000 or "coverage" in sys.modules  # as a command's
