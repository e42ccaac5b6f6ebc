"""Sizes: what evaluations and reports of few and of many take in memory, and how long reports of many take.

    python benchmarks/sizes.py [--rounds 3] [--images 300 3000] [--runs 5 50] [--records 200]

Every command is a process of its own on one thread. Memory is the most that it held, time its CPU time, imports
included: medians of the rounds, in brackets the least and the most. `evaluate` scores the V2 that is included on one
drawn picture with its labels, hard-linked under many names; `report` writes up copies of one run, or audits that differ
in the model's name.
"""

import argparse
import json
import os
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# How the tests write runs and audits.
WRITERS = ROOT / "tests" / "reports" / "conftest.py"


class Cost(NamedTuple):
    """What a process took: the most memory that it held, in MB, and CPU time in seconds."""

    memory: float
    seconds: float


def measure(words: Sequence[str | Path]) -> Cost:
    """Run a command to its end.

    A process begins with the peak of the one that starts it: what needs much memory here is another process's.
    """
    command = [sys.executable, "-m", "featherpress.cli", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words[0]} ended with {process.returncode}")
    return Cost(usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def draw(folder: Path, side: int = 160) -> None:
    """Draw one picture with faces, and write the lines of its labels beside it."""
    from PIL import Image

    from featherpress.compress.data import SyntheticFaces

    sample = SyntheticFaces(length=6, seed=1, size=(side, side))[5]
    Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / "picture.jpg")
    boxes = [map(round, (x, y, right - x, bottom - y)) for x, y, right, bottom in sample.objects.boxes.tolist()]
    lines = [" ".join(map(str, [*box, 0, 0, 0, 0, 0, 0])) for box in boxes]
    (folder / "faces.txt").write_text("\n".join([str(len(lines)), *lines]) + "\n", encoding="utf-8")


def prepare_images(folder: Path, count: int) -> list[str | Path]:
    """Link the drawn picture under so many names, in WIDER FACE's layout, and return the command."""
    subprocess.run([sys.executable, __file__, "--draw", str(folder)], check=True)  # noqa: S603
    data, faces = folder / "images", (folder / "faces.txt").read_text(encoding="utf-8")
    images, labels = data / "WIDER_val" / "images" / "0--Many", data / "wider_face_split"
    images.mkdir(parents=True)
    labels.mkdir()
    for number in range(count):
        (images / f"{number}.jpg").hardlink_to(folder / "picture.jpg")
    listed = "".join(f"0--Many/{number}.jpg\n{faces}" for number in range(count))
    (labels / "wider_face_val_bbx_gt.txt").write_text(listed, encoding="utf-8")
    return ["evaluate", "--data", data, "--json"]


def prepare_runs(folder: Path, count: int) -> list[str | Path]:
    """Write a run of one seed with all its records, copy it, and return the command."""
    runs = [folder / f"run{number}" for number in range(count)]
    runpy.run_path(str(WRITERS))["write_run"](runs[0], seeds=(0,))
    for run in runs[1:]:
        shutil.copytree(runs[0], run)
    return ["report", *runs, "--out", folder / "report"]


def prepare_audits(folder: Path, count: int) -> list[str | Path]:
    """Write so many audits, and return the command."""
    audit = runpy.run_path(str(WRITERS))["budget"]()["student"]
    files = [folder / f"audit{number}.json" for number in range(count)]
    for number, file in enumerate(files):
        file.write_text(json.dumps(audit | {"model": f"net{number}"}), encoding="utf-8")
    return ["report", *files, "--out", folder / "report"]


def tell(name: str, costs: Sequence[Cost]) -> None:
    """Print a command's medians, with the least and the most."""
    memory, seconds = zip(*costs, strict=True)
    print(
        f"{name:<24}{statistics.median(memory):>7.0f} MB ({min(memory):.0f} to {max(memory):.0f})"
        f"{statistics.median(seconds):>8.1f} s ({min(seconds):.1f} to {max(seconds):.1f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="*", default=[300, 3000])
    parser.add_argument("--runs", type=int, nargs="*", default=[5, 50])
    parser.add_argument("--records", type=int, nargs="*", default=[200])
    parser.add_argument("--draw", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        return draw(options.draw)
    kinds: dict[str, tuple[Callable[[Path, int], list[str | Path]], list[int]]] = {
        "evaluate, images": (prepare_images, options.images),
        "report, runs": (prepare_runs, options.runs),
        "report, audits": (prepare_audits, options.records),
    }
    for kind, (prepare, counts) in kinds.items():
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                words = prepare(Path(folder), count)
                tell(f"{kind}: {count:,}", [measure(words) for _ in range(options.rounds)])
    return None


if __name__ == "__main__":
    main()
