"""Fuzz every reader of other people's files.

    python -m tests.fuzz [--cases 10000] [--seed 0] [TARGET ...]

Prints what was answered by no sentence; exit code 1 where there is any.
"""

import argparse
import sys

from .running import run
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], default=[])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    count = 0
    for count, failure in enumerate(run(asked.cases, asked.seed, asked.targets), start=1):  # noqa: B007
        print(f"{failure.target}, seed {failure.seed}, case {failure.case}:\n{failure.what}\n", flush=True)
    print(f"{asked.cases} files read, {count} answered by no sentence")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
