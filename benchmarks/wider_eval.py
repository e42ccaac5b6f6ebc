"""How much faster the vectorised WIDER FACE evaluation is than the plain loop over thresholds.

Both read the same files first; the loop is the oracle of the tests. The whole evaluation is timed, from the
files to the three numbers, and the scoring alone. Run: `python benchmarks/wider_eval.py`, with
FEATHERPRESS_SHARED naming the folder that holds `data/wider_eval`.
"""

import os
import runpy
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from featherpress.compress.evaluation.widerface.files import read_ground_truth, read_predictions
from featherpress.compress.evaluation.widerface.protocol import evaluate_widerface

ROOT = Path(__file__).resolve().parent.parent
Result = TypeVar("Result")


def timed(function: Callable[[], Result]) -> tuple[Result, float]:
    start = perf_counter()
    result = function()
    return result, perf_counter() - start


def main() -> None:
    folder = Path(os.environ.get("FEATHERPRESS_SHARED", ROOT / ".." / "shared")) / "data" / "wider_eval"
    oracle = runpy.run_path(str(ROOT / "tests" / "compress" / "evaluation" / "oracle.py"))
    source, truth = folder / "predictions_a.tar.gz", folder / "ground_truth"

    (predictions, images), reading = timed(lambda: (read_predictions(source), read_ground_truth(truth)))
    fast, fast_seconds = timed(lambda: evaluate_widerface(predictions, images).to_dict())
    slow, slow_seconds = timed(lambda: oracle["evaluate"](predictions, images))

    print(f"{len(images):,} images, reading {reading:.2f} s")
    print(f"plain loop {slow_seconds:8.2f} s   vectorised {fast_seconds:8.2f} s")
    print(f"scoring alone:     {slow_seconds / fast_seconds:6.1f} times faster")
    print(f"reading included:  {(reading + slow_seconds) / (reading + fast_seconds):6.1f} times faster")
    print(f"largest difference of the three: {max(abs(fast[key] - slow[key]) for key in slow):.1e}")


if __name__ == "__main__":
    main()
