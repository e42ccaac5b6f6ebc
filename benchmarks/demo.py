"""The demo, five times over: does its verdict hold with another teacher, other pictures and other starts?

    python benchmarks/demo.py [--out runs/demo_again] [--repetitions 5]

Each repetition is the shipped recipe with seeds and pictures of its own, a teacher trained anew among them, on one
thread as in the demo. Ended ones are kept, and one that was interrupted goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path


def run(folder: Path, number: int) -> None:
    """Run one repetition, unless it has ended."""
    if (folder / "eval" / "comparison.json").exists():
        return
    settings = [f"seeds=[{', '.join(str(3 * number + each) for each in range(3))}]", f"data.seed={number + 1}"]
    told = [part for each in settings for part in ("--set", each)]
    on = ["--resume"] if (folder / "recipe.toml").exists() else []
    command = [sys.executable, "-m", "featherpress.cli", "distill", "demo", "--out", str(folder), *told, *on]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603 - our own command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo_again"))
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    print("| pictures, seeds | V1 | V2 with V1 | V2 alone | difference | 95% interval | verdict |")
    print("|---|---|---|---|---|---|---|")
    for number in range(options.repetitions):
        folder = options.out / str(number)
        run(folder, number)
        found = json.loads((folder / "eval" / "comparison.json").read_text(encoding="utf-8"))
        difference = found["difference"]
        print(
            f"| {number + 1}, {3 * number} to {3 * number + 2} | {found['teacher']['score']:.3f} | "
            f"{found['distilled']['mean']:.3f} | {found['control']['mean']:.3f} | {difference['mean']:+.3f} | "
            f"{difference['low']:.3f} to {difference['high']:.3f} | {found['verdict']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
