"""A run's student on its held-out training images, root by root, beside what it started from and its teacher.

    python benchmarks/holdout.py runs/v1_to_v2_crowds [--start FILE]

AP over all valid faces and by height, and the differences to the start and to the teacher with their intervals over the
images: claims about two files. The start is the recipe's `student.weights` unless a file is given.
"""

import argparse
from pathlib import Path

from featherpress.compress.data.subsets import origin
from featherpress.compress.evaluation.comparison import compare
from featherpress.compress.evaluation.detections import DetectionSet
from featherpress.compress.evaluation.metrics.average_precision import average_precision_by_height, match
from featherpress.compress.evaluation.saved_scores import matched_scores
from featherpress.compress.experiments.build import find_weights
from featherpress.compress.recipes import load_recipe
from featherpress.compress.tasks import task_of
from featherpress.models import load_weights
from featherpress.verdicts import Claim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--start", type=Path)
    options = parser.parse_args()
    recipe = load_recipe(options.run / "recipe.toml")
    task = task_of(recipe)
    images = task.open("holdout")
    model = task.build(recipe.student.model, recipe.student.settings).eval()
    load_weights(model, options.start or find_weights(recipe.student))
    found: dict[str, DetectionSet] = {"start": task.evaluate(model, images, label="the start").predictions}
    found["student"] = DetectionSet.load(options.run / "eval" / "holdout.npz")
    found["teacher"] = DetectionSet.load(options.run / "eval" / "teacher-holdout.npz")
    roots: dict[Path, list[int]] = {}
    for row in range(len(images)):
        roots.setdefault(origin(images, row)[0].images, []).append(row)
    for root, rows in roots.items():
        sides = {}
        for name, each in found.items():
            detections, truths = [each.detections[row] for row in rows], [each.truths[row] for row in rows]
            sides[name] = matched_scores([match(detections, truths)])
            heights = "  ".join(
                f"{bucket.name} ({bucket.faces}) {'-' if bucket.ap is None else format(bucket.ap, '.3f')}"
                for bucket in average_precision_by_height(detections, truths)
            )
            print(f"{root}, {len(rows)} images: {name} {sides[name].observed()[0]:.3f}  {heights}")
        for other in ("start", "teacher"):
            claim = Claim(files=("student", other))
            print(compare(baseline=sides[other], candidate=sides["student"], claim=claim).sentence)


if __name__ == "__main__":
    main()
