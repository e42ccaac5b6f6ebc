"""An exported detector in the runtimes of small detectors: whether each loads it, computes the same, and how fast.

    python benchmarks/runtimes.py [--int8 [--int8-plan all]] [--peers FOLDER] [--python PYTHON]

V2 is exported for one image of 640 x 640. The runtimes are those of the interpreter PYTHON, into which `pip install
onnxruntime opencv-python-headless openvino ncnn pnnx` may put them; one that is not there is left out with the reason.
All run in one process, by turns, on one thread; a row has the least processor time of all rounds over that of
onnxruntime's float file. What carries over to another machine is the ratio.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE, OUTPUTS = 640, ("boxes", "logits", "landmarks")
Run = Callable[[], list[Any]]


def run_onnxruntime(file: Path, images: Any) -> tuple[str, Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    fixed = [side if isinstance(side, int) else whole for side, whole in zip(given.shape, images.shape, strict=True)]
    fitting = np.resize(images, fixed)
    return onnxruntime.__version__, lambda: session.run(None, {given.name: fitting})


def run_opencv(file: Path, images: Any) -> tuple[str, Run]:
    import cv2

    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromONNX(str(file))

    def run() -> list[Any]:
        net.setInput(images)
        return list(net.forward(list(OUTPUTS)))

    return cv2.__version__, run


def run_openvino(file: Path, images: Any) -> tuple[str, Run]:
    import openvino

    # In float32, as a processor with bfloat16 would take that.
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.compile_model(str(file), "CPU", settings)
    return openvino.__version__.split("-")[0], lambda: list(model(images).values())


def run_ncnn(file: Path, images: Any) -> tuple[str, Run]:
    import ncnn

    folder = file.with_suffix("")
    folder.mkdir(exist_ok=True)
    shutil.copy(file, folder / "net.onnx")
    pnnx = shutil.which("pnnx") or str(Path(sys.executable).with_name("pnnx"))
    shape = ",".join(map(str, images.shape))
    made = subprocess.run(  # noqa: S603 (as named here)
        [pnnx, "net.onnx", f"inputshape=[{shape}]", "fp16=0"], cwd=folder, capture_output=True, check=True
    )
    if not (folder / "net.ncnn.param").is_file():
        raise RuntimeError(made.stderr.decode()[-200:])
    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_fp16_arithmetic, net.opt.use_fp16_storage = 1, False, False
    net.load_param(str(folder / "net.ncnn.param"))
    net.load_model(str(folder / "net.ncnn.bin"))

    def run() -> list[Any]:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(images[0]))
        return [np.array(extractor.extract(f"out{number}")[1]) for number in range(len(OUTPUTS))]

    return f"{ncnn.__version__}, through pnnx", run


RUNTIMES = {"onnxruntime": run_onnxruntime, "OpenCV": run_opencv, "OpenVINO": run_openvino, "ncnn": run_ncnn}


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Load every file of a folder in every runtime that it is for, and run all by turns."""
    images, rows, works = np.load(folder / "images.npy"), [], {}
    expected = [each for _, each in sorted(np.load(folder / "expected.npz").items())]
    for name, load in RUNTIMES.items():
        for file in sorted(folder.glob("*.onnx")) if name != "ncnn" else [folder / "float32.onnx"]:
            if file.name not in {"float32.onnx", "int8.onnx"} and name != "onnxruntime":
                continue
            row: dict[str, Any] = {"runtime": name, "file": file.stem}
            try:
                row["version"], run = load(file, images)
                outputs = run()
                if file.name == "float32.onnx":
                    row["difference"] = max(map(difference, outputs, expected))
            except Exception as error:  # each package raises its own
                row["reason"] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            else:
                works[len(rows)] = run
            rows.append(row)
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for place, run in works.items():
            began = time.process_time()
            run()
            best[place] = min(best[place], time.process_time() - began)
    for place, seconds in best.items():
        rows[place]["ms"] = 1000 * seconds
    return {"rows": rows}


def difference(ours: Any, theirs: Any) -> float:
    ours = ours.reshape(theirs.shape).astype(np.float64)
    scale = np.maximum(1, np.abs(theirs).max(axis=-1, keepdims=True))
    return float((np.abs(ours - theirs) / scale).max())


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out in Markdown."""
    whole = next((row["ms"] for row in rows if row["file"] == "float32" and "ms" in row), float("nan"))
    lines = [
        "| runtime | file | largest difference from torch | time over onnxruntime's float file |",
        "|---|---|---:|---:|",
    ]
    for row in rows:
        name = f"{row['runtime']} {row.get('version', '')}".strip()
        if "reason" in row:
            lines.append(f"| {name} | {row['file']} | left out: {row['reason']} | |")
            continue
        far = f"{row['difference']:.1e}" if "difference" in row else ""
        lines.append(f"| {name} | {row['file']} | {far} | {row['ms'] / whole:.2f} |")
    return "\n".join(lines)


def write_files(folder: Path, options: argparse.Namespace) -> None:
    """Export V2, draw its input, and compute what torch gives."""
    import torch

    from featherpress.compress.deployment.parity import example_images
    from featherpress.models import load_detector, shipped_weights

    weights = options.weights or shipped_weights("featherface_v2")
    command = ["export", "--weights", str(weights), "--input", str(SIDE), "--out", str(folder / "float32.onnx")]
    more = (
        ["--int8", "--int8-plan", options.int8_plan, *(["--data", str(options.data)] if options.data else [])]
        if options.int8
        else []
    )
    run = [sys.executable, "-c", "import sys; from featherpress.cli import main; sys.exit(main())"]
    subprocess.run([*run, *command, *more], check=True, stdout=sys.stderr)  # noqa: S603 (the programs are named here)
    if options.int8:
        (folder / "float32.int8.onnx").rename(folder / "int8.onnx")
    images = example_images((1, 3, SIDE, SIDE))
    with torch.inference_mode():
        outputs = load_detector(weights).eval()(images)
    np.save(folder / "images.npy", images.numpy())
    np.savez(folder / "expected.npz", **{f"{place}": each.numpy() for place, each in enumerate(outputs)})
    for peer in sorted(options.peers.glob("*.onnx")) if options.peers else ():
        shutil.copyfile(peer, folder / peer.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", type=Path, help="labelled images for --int8; drawn faces unless given")
    parser.add_argument("--int8", action="store_true", help="the file in eight bits too")
    parser.add_argument("--int8-plan", default="auto", metavar="auto|all|FILE", help="which convolutions --int8 is of")
    parser.add_argument("--peers", type=Path, help="a folder of other detectors' ONNX files, for onnxruntime alone")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the runtimes")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.rounds)))
        return
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), options)
        command = [options.python, __file__, "--measure", name, "--rounds", str(options.rounds)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 (the programs are named here)
        print(table(json.loads(done.stdout.splitlines()[-1])["rows"]))


if __name__ == "__main__":
    main()
