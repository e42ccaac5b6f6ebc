"""A complete synthetic run directory, written the way the contract says runs are."""

import csv
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
STEPS, EPOCHS = 240, 12
# Percentiles of latency as parts of its median.
PARTS = {"median": 1.0, "p10": 0.9, "p90": 1.25}

# name: parameters and MACs at 640x640, the zoo's own rows.
TEACHER = {
    "backbone": (213_072, 332_851_200),
    "backbone_attention": (11_528, 844_704),
    "bifpn": (139_076, 260_036_000),
    "pyramid_attention": (2_310, 826_752),
    "context": (112_413, 313_286_400),
    "shuffle": (0, 0),
    "heads": (7_200, 19_891_200),
}
STUDENT = {
    "backbone": (213_072, 332_851_200),
    "backbone_attention": (996, 824_992),
    "bifpn": (19_412, 33_817_600),
    "pyramid_attention": (292, 823_584),
    "context": (11_616, 30_643_200),
    "shuffle": (0, 0),
    "heads": (11_424, 30_643_200),
}
CLAIMED = {
    "backbone": (213_072, ""),
    "bifpn": (144_432, "2 cells give 113,610 and 3 give 139,076, nothing the document describes gives 144,432"),
    "backbone_attention + pyramid_attention": (22_184, "no whole hidden width gives this"),
    "total": (487_103, "follows from the rows above"),
}
BUCKETS = (("< 16", 0, 16, 146), ("16-32", 16, 32, 171), ("32-96", 32, 96, 142), ("> 96", 96, None, 41))
RECIPE = """[student]
model = "featherface_v2"

[teacher]
model = "featherface_v1"

[schedule]
epochs = 12
ramp_steps = 60
"""
TEACHER_AP = (0.812, (0.402, 0.781, 0.934, 0.962))
CONTROL_AP = (0.571, (0.101, 0.446, 0.822, 0.934))
STUDENT_AP = (0.594, (0.117, 0.481, 0.851, 0.929))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of the fixtures below, written once and copied by each test."""
    folder = tmp_path_factory.mktemp("written")
    write_run(folder / "v1-to-v2", seeds=(0, 1))
    write_run(folder / "one", seeds=(0,))
    return folder


@pytest.fixture
def run_dir(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distillation of two seeds under `runs/v1-to-v2`, named relative to the current directory."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(written / "v1-to-v2", Path("runs/v1-to-v2"))


@pytest.fixture
def one_seed(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distillation of one seed under `runs/one`."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(written / "one", Path("runs/one"))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training without a teacher under `runs/plain`."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/plain")
    write_training(run, role="model", model="featherface_v2", seed=0, ap=CONTROL_AP)
    return run


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distillation of a classifier that trained its own teacher, under `runs/shapes`."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/shapes")
    write_classifier(run)
    return run


@pytest.fixture
def task_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a distillation of two seeds on any task under `runs/NAME`."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, **fields: Any) -> Path:
        write_task(Path("runs") / name, **fields)
        return Path("runs") / name

    return write


@pytest.fixture
def edit() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Change one JSON record in place."""
    return edit_json


@pytest.fixture
def compared() -> Callable[[Path, float, float], None]:
    """Replace a run's comparison by one of three seeds with another interval."""

    def write(run: Path, low: float, high: float) -> None:
        write_json(run / "eval/comparison.json", comparison((0, 1, 2), low=low, high=high))

    return write


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures' files empty: for tests of the text."""
    monkeypatch.setattr("featherpress.reports.report.render", lambda _draw, files: [file.touch() for file in files])


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with `tests/golden/NAME`; FEATHERPRESS_REGENERATE=1 writes it instead."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / name
        if os.environ.get("FEATHERPRESS_REGENERATE"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8")

    return compare


def write_run(run: Path, *, seeds: tuple[int, ...]) -> None:
    """Write what `featherpress distill` leaves behind."""
    for index, seed in enumerate(seeds):
        folder = run if index == 0 else run / f"seed-{seed}"
        gap = 0.004 * index
        write_training(folder, role="student", model="featherface_v2", seed=seed, ap=shifted(STUDENT_AP, gap))
        write_training(
            folder / "control", role="control", model="featherface_v2", seed=seed + 50, ap=shifted(CONTROL_AP, -gap)
        )
    write_json(run / "eval/teacher.json", evaluation("featherface_v1", "teacher", 485_599, TEACHER_AP))
    write_json(run / "eval/comparison.json", comparison(seeds))
    write_json(run / "budget.json", budget())
    write_json(run / "environment.json", environment())
    write_json(run / "eval/correlation.json", correlation())
    write_gallery(run / "eval/gallery")
    (run / "recipe.toml").write_text(RECIPE, encoding="utf-8")


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write one record."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1), encoding="utf-8")


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change one record in place."""
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    write_json(file, value)


def shifted(accuracy: tuple[float, tuple[float, ...]], gap: float) -> tuple[float, tuple[float, ...]]:
    """Return APs moved by `gap`, rounded as a record rounds nothing but a fixture may."""
    return round(accuracy[0] + gap, 6), tuple(round(value + gap, 6) for value in accuracy[1])


def write_training(folder: Path, *, role: str, model: str, seed: int, ap: tuple[float, tuple[float, ...]]) -> None:
    """Write a training directory: 240 logged steps of 12 epochs, and its evaluation."""
    params = 256_812
    write_json(folder / "eval/validation.json", evaluation(model, role, params, ap))
    rng = np.random.default_rng(seed)
    terms = ["kd_feature", "kd_class", "ramp", "kd_ratio"]
    columns = ["step", "epoch", "lr", "images_per_second", "loss", "task", "class", "box", "landmark", *terms, "val_ap"]
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for index in range(STEPS):
            losses = logged_step(index, rng, distilled=role == "student")
            writer.writerow(losses)
            done = (index + 1) / STEPS
            if done * EPOCHS % 1 == 0:
                score = ap[0] * (1 - math.exp(-4 * done)) / (1 - math.exp(-4))
                writer.writerow({"step": losses["step"], "epoch": losses["epoch"], "val_ap": score})


def logged_step(index: int, rng: np.random.Generator, *, distilled: bool) -> dict[str, object]:
    """Return one row of metrics.csv: losses that fall with noise; epochs are counted from 0."""
    done = (index + 1) / STEPS
    terms = [level * (0.22 + 0.78 * math.exp(-4 * done)) * rng.uniform(0.85, 1.15) for level in (4.0, 3.0, 1.5)]
    task = sum(terms)
    row: dict[str, object] = {"step": (index + 1) * 10, "epoch": index * EPOCHS // STEPS, "lr": 0.001}
    row |= {"images_per_second": 30.0, "class": terms[0], "box": terms[1], "landmark": terms[2], "task": task}
    row["loss"] = task
    if distilled:
        ramp = min(1.0, index / 60)
        kd = [ramp * level * (0.4 + 0.6 * math.exp(-2 * done)) * rng.uniform(0.9, 1.1) for level in (1.4, 0.6)]
        ratio = ramp * 0.42 * rng.uniform(0.8, 1.2)
        row |= {"kd_feature": kd[0], "kd_class": kd[1], "ramp": ramp, "kd_ratio": ratio, "loss": task + sum(kd)}
    return row


def write_classifier(run: Path) -> None:
    """Write what `featherpress distill classifier` leaves behind: records with accuracy, none with faces."""
    data = {"name": "shapes", "split": "val", "images": 240, "classes": 6}
    big, small = ("torchvision.models:shufflenet_v2_x1_0", "torchvision.models:shufflenet_v2_x0_5")
    accuracy = {"teacher": 0.8875, "control": 0.6625, "student": 0.75}
    folders = {"teacher": run / "teacher", "control": run / "control", "student": run}
    for role, score in accuracy.items():
        folder, model, params = folders[role], big if role == "teacher" else small, 3_072 if role == "teacher" else 768
        record = {
            "schema": "featherpress.classification/1",
            "model": model,
            "role": role,
            "params": params,
            "macs": 10 * params,
            "file_bytes": 4 * params + 900,
            "data": data,
            "accuracy": score,
        }
        write_json(run / "eval/teacher.json" if role == "teacher" else folder / "eval/validation.json", record)
        folder.mkdir(parents=True, exist_ok=True)
        steps = "\n".join(f"{10 * step},{step // 4},{2 - step / 10},," for step in range(1, 13))
        (folder / "metrics.csv").write_text(f"step,epoch,task,kd_ratio,val_accuracy\n{steps}\n", encoding="utf-8")
    arms = {
        arm: {"scores": [accuracy[role]], "mean": accuracy[role], "std": None}
        for arm, role in (("control", "control"), ("distilled", "student"))
    }
    difference = {"mean": 0.0875, "low": 0.0167, "high": 0.1583}
    compared = comparison((0,)) | arms | {"metric": "accuracy", "data": data, "sentence": "Accuracy rose by 0.087."}
    write_json(run / "eval/comparison.json", compared | {"difference": compared["difference"] | difference})
    built = {"input": [1, 3, 64, 64], "settings": {"num_classes": 6}}
    audits = {
        role: audit(model, {"fc": (params, 10 * params)}, target=params, slack=0, claims={}) | built
        for role, model, params in (("teacher", big, 3_072), ("student", small, 768))
    }
    write_json(run / "budget.json", budget() | audits)
    write_json(run / "environment.json", environment())
    (run / "recipe.toml").write_text('[data]\nkind = "shapes"\n', encoding="utf-8")


def write_task(
    run: Path,
    *,
    metric: Mapping[str, str],
    classes: tuple[str, ...] = (),
    further: Mapping[str, float] | None = None,
    confused: bool = False,
    curve: bool = False,
    pictures: bool = False,
    scale: float = 1.0,
) -> None:
    """Write what a distillation on any task leaves behind: one record a role and seed, by the metric that it names."""
    scored = {"teacher": 0.9, "control": 0.7, "student": 0.75}
    data = {"name": "own", "split": "val", "images": 240}
    folders = {"teacher": [run], "control": [run / "control", run / "seed-1/control"], "student": [run, run / "seed-1"]}
    for role, seeds in folders.items():
        for seed, folder in enumerate(seeds):
            value = scale * (scored[role] + 0.02 * seed)
            record: dict[str, Any] = {
                "schema": "featherpress.score/1",
                "model": f"mine:{'big' if role == 'teacher' else 'small'}",
                "params": 3_072 if role == "teacher" else 768,
                "file_bytes": 4_000,
                "data": data,
                "metric": dict(metric),
                "score": value,
                "further": dict(further or {}),
                "by_class": [
                    {"name": name, "examples": 100 * (place + 1), "score": value - scale * 0.01 * place}
                    for place, name in enumerate(classes)
                ],
            }
            if confused:
                record["confusion"] = confusion(len(classes), scored[role])
            if curve:
                record["curve"] = {"recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.9, scored[role] - 0.3]}
            write_json(folder / f"eval/{'teacher' if role == 'teacher' else 'validation'}.json", record)
            if role != "teacher":
                steps = "\n".join(f"{10 * n},{n // 4},{2 - n / 10},,{n * value / 12}" for n in range(1, 13))
                head = f"step,epoch,task,kd_ratio,val_{metric['key']}\n"
                (folder / "metrics.csv").write_text(f"{head}{steps}\n", encoding="utf-8")
    write_json(run / "eval/comparison.json", task_comparison(metric, data, scale))
    write_json(run / "environment.json", environment())
    (run / "recipe.toml").write_text('[data]\nkind = "own"\n', encoding="utf-8")
    if pictures:
        write_pictures(run / "eval/gallery", classes)


def confusion(classes: int, right: float) -> list[list[int]]:
    """Return a matrix of which `right` lies on the diagonal, and the rest a class further on."""
    counts = np.diag([round(100 * (place + 1) * right) for place in range(classes)])
    for place in range(classes):
        counts[place, (place + 1) % classes] += 100 * (place + 1) - counts[place, place]
    table: list[list[int]] = counts.tolist()
    return table


def task_comparison(metric: Mapping[str, str], data: dict[str, Any], scale: float) -> dict[str, Any]:
    """Return the comparison of the two arms of `write_task`."""
    arms = {
        name: {"scores": [scale * low, scale * (low + 0.02)], "mean": scale * (low + 0.01), "std": scale * 0.0141}
        for name, low in (("control", 0.7), ("distilled", 0.75))
    }
    found = comparison((0, 1))
    difference = found["difference"] | {"mean": scale * 0.05, "low": scale * 0.01, "high": scale * 0.09}
    own = {"metric": dict(metric), "data": data, "teacher": {"model": "mine:big", "score": scale * 0.9}}
    return found | arms | own | {"difference": difference, "sentence": f"{metric['name']} rose."}


def write_pictures(folder: Path, classes: tuple[str, ...]) -> None:
    """Save two images with masks of bands, one a class, and say which colour is which class."""
    folder.mkdir(parents=True)
    colors = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]
    images = []
    for number in range(2):
        panels = []
        for shift, name in enumerate(("image", "truth", "teacher", "control", "student")):
            picture = Image.new("RGB", (96, 72), "#888888")
            draw = ImageDraw.Draw(picture)
            for place in range(len(classes)):
                left = 80 * place // len(classes) + 3 * shift
                if name != "image":
                    draw.rectangle([left, 0, 96, 72], fill=colors[place % len(colors)])
            file = f"{number:03d}_{name}.png"
            picture.save(folder / file)
            panels.append({"name": name, "file": file})
        images.append({"file": f"val/{number}.png", "panels": panels})
    legend = [{"name": name, "colour": colors[place % len(colors)]} for place, name in enumerate(classes)]
    write_json(folder / "pictures.json", {"schema": "featherpress.pictures/1", "images": images, "legend": legend})


def evaluation(model: str, role: str, params: int, ap: tuple[float, tuple[float, ...]]) -> dict[str, Any]:
    """Return the record of one evaluation."""
    total, parts = ap
    recall = np.linspace(0, 1, 101)
    last = min(0.98, total + 0.12)
    precision = np.where(recall <= last, 1 - (1 - total / last) * 2 * (recall / last) ** 3, 0.0).clip(0, 1)
    heights = [
        {"name": name, "low": low, "high": high, "faces": faces, "ap": value}
        for (name, low, high, faces), value in zip(BUCKETS, parts, strict=True)
    ]
    return {
        "schema": "featherpress.evaluation/1",
        "model": model,
        "role": role,
        "weights": "weights/best.safetensors",
        "params": params,
        "macs": sum(macs for _, macs in (TEACHER if role == "teacher" else STUDENT).values()),
        "file_bytes": 4 * params + 21_480,
        "data": {"name": "widerface", "split": "val", "images": 240, "skipped": 0, "faces": 500, "ignored": 40},
        "protocol": {"iou": 0.5, "test_scale": "original", "nms_iou": 0.4, "score_threshold": 0.02, "top_k": 750},
        "ap": total,
        "recall": last,
        "working_point": {"threshold": 0.5, "precision": total, "recall": total, "f1": total},
        "best_f1": {"threshold": 0.25, "precision": 0.75, "recall": last, "f1": round(1.5 * last / (0.75 + last), 6)},
        "by_height": heights,
        "curve": {"recall": recall.tolist(), "precision": precision.tolist()},
        "seconds": 12.3,
    }


def comparison(seeds: tuple[int, ...], *, low: float = 0.006, high: float = 0.047) -> dict[str, Any]:
    """Return the record of a comparison whose verdict is the one its interval allows."""
    control = [round(CONTROL_AP[0] - 0.004 * i, 6) for i in range(len(seeds))]
    distilled = [round(STUDENT_AP[0] + 0.004 * i, 6) for i in range(len(seeds))]
    arms = [
        {"scores": ap, "mean": float(np.mean(ap)), "std": float(np.std(ap, ddof=1)) if len(ap) > 1 else None}
        for ap in (control, distilled)
    ]
    mean = arms[1]["mean"] - arms[0]["mean"]
    verdict = "better" if low > 0 else "worse" if high < 0 else "not shown"
    covers, several = ["examples"], {}
    if len(seeds) > 1:
        covers, several = ["seeds", "examples"], {"v_seeds": 4e-5, "v_examples": 6e-5, "df": 5.5}
    if len(seeds) < 3:
        verdict = "undecided"
    return {
        "schema": "featherpress.comparison/1",
        "metric": "ap",
        "data": {"name": "widerface", "split": "val", "images": 240, "skipped": 0, "faces": 500, "ignored": 40},
        "seeds": list(seeds),
        "teacher": {"model": "featherface_v1", "ap": TEACHER_AP[0]},
        "control": arms[0],
        "distilled": arms[1],
        "difference": {
            "mean": mean,
            "low": low,
            "high": high,
            "confidence": 0.95,
            "resamples": 2000,
            "method": "t interval over seeds and resampled examples" if several else "paired percentile bootstrap",
            "covers": covers,
            "seeds": len(seeds),
            "examples": 240,
            **several,
        },
        "verdict": verdict,
        "sentence": f"Distillation is {verdict}: AP differs by {mean:+.3f} (95% interval {low:.3f} to {high:.3f}).",
    }


def audit(
    model: str, rows: Mapping[str, tuple[int, int]], *, target: int, slack: int, claims: Mapping[str, tuple[int, str]]
) -> dict[str, Any]:
    """Return an audit: exact targets for the components, one with slack for the total, a bound on its MACs."""
    params, macs = (sum(row[i] for row in rows.values()) for i in (0, 1))
    total = [
        check("params", params, target=target, low=target - slack, high=target + slack),
        check("macs", macs, target=None, low=None, high=950_000_000),
    ]
    exact = {name: [check("params", p, target=p, low=p, high=p)] for name, (p, _) in rows.items()}
    return {
        "schema": "featherpress.audit/1",
        "model": model,
        "input": [1, 3, 640, 640],
        "convention": "core-macs",
        "verdict": "within",
        "total": row("total", params, macs, whole=params, checks=total),
        "components": [row(name, p, m, whole=params, checks=exact[name]) for name, (p, m) in rows.items()],
        "claims": [claim(name, *said, rows) for name, said in claims.items()],
        "failures": [],
        "notes": [],
        "settings": {"out_channels": 74 if "v1" in model else 32, "bifpn_repeats": 3 if "v1" in model else 2},
    }


def row(name: str, params: int, macs: int, *, whole: int, checks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row of an audit."""
    target = checks[0]["target"]
    return {
        "name": name,
        "params": params,
        "share": params / whole,
        "macs": macs,
        "flops": 2 * macs,
        "verdict": "within",
        "target": target,
        "difference": params - target,
        "checks": checks,
    }


def check(quantity: str, actual: int, *, target: int | None, low: int | None, high: int | None) -> dict[str, Any]:
    """Return one check of an audit's row."""
    limit = {"low": low, "high": high, "target": target, "warn": None}
    return {"quantity": quantity, "actual": actual, "verdict": "within", "beyond": 0, **limit}


def claim(name: str, claimed: int, note: str, rows: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Return what a document says of the sum of some components."""
    ours = sum(rows[part][0] for part in (rows if name == "total" else name.split(" + ")))
    return {
        "component": name,
        "quantity": "params",
        "claimed": claimed,
        "ours": ours,
        "difference": ours - claimed,
        "verdict": "differs" if ours - claimed else "equal",
        "source": "architecture.md, V1 table",
        "note": note,
    }


def budget() -> dict[str, Any]:
    """Return the budget record of both models."""
    return {
        "schema": "featherpress.budget/1",
        "teacher": audit("featherface_v1", TEACHER, target=489_000, slack=13_000, claims=CLAIMED),
        "student": audit("featherface_v2", STUDENT, target=256_000, slack=2_560, claims={}),
        "adapters": {"params": 7_104},
    }


def correlation() -> dict[str, Any]:
    """Return how similar both arms' features are to the teacher's, the student's more, at three levels."""
    values = {8: (0.3931, 0.5912), 16: (0.4813, 0.7254), 32: (0.5824, 0.8101)}
    levels = [{"stride": stride, "cka": {"control": c, "student": s}} for stride, (c, s) in values.items()]
    return {"schema": "featherpress.correlation/1", "images": 24, "levels": levels}


@pytest.fixture
def bench() -> Path:
    """A benchmark of both models on two backends, in a file of its own."""
    rows = [
        {
            "model": model,
            "params": params,
            "macs": 0,
            "size": side,
            "batch": 1,
            "backend": backend,
            "latency_ms": {name: ms * part * (side / 320) ** 2 for name, part in PARTS.items()},
            "images_per_second": 1000 / ms,
            "peak_memory_bytes": 90_000_000 + side,
        }
        for backend, factor in (("eager", 1.0), ("onnxruntime fp32", 0.4))
        for side in (320, 640)
        for model, params, ms in (
            ("featherface_v1", 485_599, 30.0 * factor),
            ("featherface_v2", 256_812, 12.5 * factor),
        )
    ]
    record = {
        "schema": "featherpress.bench/1",
        "environment": {"processor": "x86_64", "threads": 2, "torch": "2.15.0"},
        "rounds": 50,
        "results": rows,
    }
    write_json(Path("bench.json"), record)
    return Path("bench.json")


def environment() -> dict[str, Any]:
    """Return the record of a machine that is the same on every machine."""
    return {
        "schema": "featherpress.environment/1",
        "featherpress": "0.1.0",
        "python": "3.12.3",
        "torch": "2.15.0",
        "torchvision": "0.29.2",
        "platform": "Linux x86_64",
        "processor": "x86_64",
        "threads": 2,
        "device": "cpu",
        "command": ["/opt/venv/bin/featherpress", "distill", "--set", "schedule.epochs=12", "--out", "runs/v1-to-v2"],
        "seconds": 3_725.4,
    }


def write_gallery(folder: Path) -> None:
    """Draw three pictures with faces and say what each model found in them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    thresholds = {"teacher": 0.5, "control": 0.3125, "student": 0.5}
    images = []
    for index, (width, height) in enumerate(((640, 427), (640, 480), (640, 360))):
        name = f"{index:03d}.jpg"
        faces = draw_faces(folder / name, width, height, rng)
        images.append({"file": name, "width": width, "height": height, **findings(faces, width, height)})
    write_json(
        folder / "gallery.json", {"schema": "featherpress.gallery/1", "thresholds": thresholds, "images": images}
    )


def draw_faces(file: Path, width: int, height: int, rng: np.random.Generator) -> list[list[float]]:
    """Save a picture of ellipses with eyes on a shaded ground; return their boxes, largest first."""
    y, x = np.mgrid[0:height, 0:width]
    ground = np.stack([90 + 80 * y / height, 110 + 60 * x / width, 140 - 60 * y / height], -1)
    image = Image.fromarray((ground + rng.normal(0, 6, ground.shape)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    boxes = []
    for size, place in zip((110, 80, 56, 34, 20), rng.permutation(5), strict=True):
        left = (place + 0.5) * width / 5 - size / 2.4
        top = rng.uniform(0.1, 0.8) * (height - size)
        box = [left, top, left + size / 1.2, top + size]
        draw.ellipse(box, fill=(224, 172, 140))
        for eye in (0.3, 0.7):
            cx, cy, r = left + eye * size / 1.2, top + 0.4 * size, size / 16
            draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=(40, 30, 30))
        boxes.append([round(v, 1) for v in box])
    image.save(file, quality=90)
    return boxes


def findings(faces: list[list[float]], width: int, height: int) -> dict[str, object]:
    """Return truth and detections: the teacher finds most, the control fewer, with a false alarm."""
    wrong = {"box": [width * 0.02, height * 0.05, width * 0.02 + 40, height * 0.05 + 46], "score": 0.61, "hit": False}

    def hits(count: int) -> list[dict[str, object]]:
        return [
            {"box": [v + 1.5 for v in box], "score": 0.95 - 0.05 * i, "hit": True}
            for i, box in enumerate(faces[:count])
        ]

    found = {"teacher": hits(4), "control": [*hits(2), wrong], "student": [*hits(3), wrong]}
    for detections in found.values():
        for detection in detections:
            detection["landmarks"] = [0.0] * 10
    truth = [{"box": box, "ignored": index == 4} for index, box in enumerate(faces)]
    return {"truth": truth, **found}
