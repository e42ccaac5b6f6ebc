"""Published tables counted again: timm's benchmark table and what torchvision says of its weights.

    python benchmarks/recount.py [--jobs 2] [--kept runs/recount]

Takes about an hour on two cores, and goes on where it was stopped. Writes `docs/recount.md`, `docs/figures/recount.png`
and `docs/recount/*.csv`, which hold every row. timm's table is `$FEATHERPRESS_SHARED/data/claims/timm.csv`.
"""

import argparse
import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import timm
import torch
import torchvision

from featherpress.budgets.recount.claims import read_claims
from featherpress.budgets.recount.judging import MEANINGS, Recount, RecountRow, Verdict
from featherpress.budgets.recount.printing import recount_csv
from featherpress.budgets.recount.running import recount
from featherpress.budgets.views.layout import markdown_table

DOCS = Path(__file__).parent.parent / "docs"
SHARED = Path(os.environ.get("FEATHERPRESS_SHARED", "../shared"))
COLOURS: dict[Verdict, str] = {
    "equal": "#4c9f70",
    "convention": "#4477aa",
    "state": "#9467bd",
    "model": "#ee7733",
    "wrong": "#cc3311",
    "open": "#555555",
}

#: What torchvision's weights were trained with, where a factory's default is something else.
ARGUMENTS = ("weights_backbone", "aux_loss", "aux_logits", "image_size")

BY_HAND = """
## The wrong rows by hand

**ConvMixer** mixes positions by depthwise convolutions with `padding="same"`. fvcore traces these as
`aten::_convolution_mode`, has no handle for it, and leaves them out. Of convmixer_768_32 at 224, in patches of 7,
the maps are 32x32, and 32 layers of 768 channels and 7x7 kernels hold

    32 * 768 * 7 * 7 * 32 * 32 = 1,233,125,376 MACs

20,676,851,712 less these, with two operations for each value that one of its 65 norms reads, are 19.55 G: the
published figure.

**Sequencer** mixes positions by LSTMs, of which fvcore has no handle either. An LSTM of input size i and hidden
size h takes 4h(i + h) products a step and direction. Of sequencer2d_s all 36 of them hold 3,397,386,240 MACs: the
published 4.96 G are 8.33 G.

**Aliases.** timm builds resnext101_32x8d under the names ig_resnext101_32x16d, 32x32d and 32x48d. The figures are
right, what one gets by these names is another model. ecaresnext50t_32x4d has the figures of ecaresnext26t_32x4d:
its definition has changed since.

**RegNetY-256GF.** The row of regnety_2560 at 224, which nothing counted in the run gives, is of an earlier definition
that timm's source keeps as a comment: w0 of 640, wa of 124.47, wm of 2.04, groups of 848. Built so it has 826,140,008
parameters, the published 826.14 M, and 256,897,604,224 MACs; two operations for each of the 87,408,160 values that its
norms read make 257.07 G. The row at 384 is of today's definition.

## What we got wrong

- An LSTM was counted step by step: sequencer2d_l took 44 s. It has a closed form now.
- Differential attention (vit_d*) runs fused or unfused, and costs 4.06 or 3.83 G; nothing said which was counted.
- Figures below 0.1 G have two digits at most. They are compared at these: equal says little there.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kept", type=Path, default=Path("runs/recount"))
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    own = options.kept / "torchvision.csv"
    with own.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("model", "params", "macs", "input", *ARGUMENTS), *torchvision_rows()])
    results = []
    tables = {SHARED / "data/claims/timm.csv": "timm:create_model", own: "torchvision.models:get_model"}
    for table, factory in tables.items():
        kept = options.kept / f"{table.stem}.jsonl"
        rows = read_claims(table, [f"{name}={name}" for name in ARGUMENTS] if table == own else [])
        made = recount(rows, table=table.name, factory=factory, jobs=options.jobs, kept=kept)
        (DOCS / "recount").mkdir(exist_ok=True)
        (DOCS / "recount" / table.name).write_text(recount_csv(made), encoding="utf-8")
        results.append(made)
    draw(results[0], DOCS / "figures" / "recount.png")
    (DOCS / "recount.md").write_text(page(*results), encoding="utf-8")


def torchvision_rows() -> Iterator[tuple[object, ...]]:
    """List what torchvision says of its weights for classification and segmentation, once for each size."""
    seen = set()
    for name in torchvision.models.list_models():
        for weights in torchvision.models.get_model_weights(name):
            transform = weights.transforms()
            side = (getattr(transform, "crop_size", None) or getattr(transform, "resize_size", None) or [0])[0]
            kind = type(transform).__name__
            if kind in {"ImageClassification", "SemanticSegmentation"} and (name, side) not in seen:
                seen.add((name, side))
                masks = kind == "SemanticSegmentation"
                arguments = {
                    "weights_backbone": "none" if masks else "",
                    "aux_loss": "true" if masks and "lraspp" not in name else "",
                    "aux_logits": "false" if "googlenet" in name else "",
                    "image_size": side if name.startswith("vit_") else "",
                }
                yield name, weights.meta["num_params"], weights.meta["_ops"], side, *map(arguments.get, ARGUMENTS)


def draw(result: Recount, path: Path) -> None:
    """Draw every row's deviation from the plain count, by what explains it."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for verdict, colour in COLOURS.items():
        rows = [row for row in result.rows if row.verdict == verdict and row.macs and row.deviation is not None]
        across, up = [row.macs or 0 for row in rows], [100 * (row.deviation or 0) for row in rows]
        axes.scatter(
            across, up, s=9, color=colour, label=f"{MEANINGS[verdict]} ({len(rows):,})", alpha=0.8, linewidths=0
        )
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks([-30, -10, -3, 0, 3, 10, 30, 100, 800], ["-30", "-10", "-3", "0", "3", "10", "30", "100", "800"])
    axes.set(xlabel="MACs, counted", ylabel="published figure\nagainst the plain count (%)")
    axes.grid(alpha=0.2)
    figure.legend(fontsize=7, ncols=3, loc="outside lower center")
    figure.savefig(path, dpi=150)


def page(timm_rows: Recount, torchvision_rows: Recount) -> str:
    """Write the page."""
    head = f"""# Published figures, counted again

`python benchmarks/recount.py` counts every model of two published tables and says what became of each figure:
timm's benchmark table ({len(timm_rows.rows):,} rows; MACs to two decimals of a G) and what torchvision says of its
weights for classification and segmentation ({len(torchvision_rows.rows)} rows). timm {timm.__version__},
torchvision {torchvision.__version__}, torch {torch.__version__.partition("+")[0]}. `featherpress audit --claims`
does the same for a table of yours ([counting](counting.md)).

<img src="figures/recount.png" alt="Deviation of every published figure from the plain count" width="700">

A figure is *equal* if our plain count of core multiply-accumulates rounds to it. Else it is explained by what was
counted in the same run, in this order: norms (two operations a value for BatchNorm, five for the others), adaptive
pooling and resampling, as fvcore's defaults have it; the model after its own blocks folded themselves; what fvcore
itself gives by its defaults, run for this; an operator left out; another row. What none of these gives is open.

"""
    tally = "\n".join(markdown_table(("verdict", "timm", "torchvision"), list(_tally(timm_rows, torchvision_rows))))
    parts = [head, tally, "\n"]
    for result in (timm_rows, torchvision_rows):
        told = [row for row in result.rows if row.verdict in {"wrong", "model", "open", "failed"}]
        if told:
            heading = f"\n## {result.table}: neither equal nor another convention or state\n\n"
            parts += [heading, _rows(told), "\n"]
    reasons = "\n".join(markdown_table(("reason", "rows"), _reasons(timm_rows)))
    parts += [f"\n## {timm_rows.table}: what explains the others\n\n", reasons, "\n"]
    links = ", ".join(f"[{result.table}](recount/{result.table})" for result in (timm_rows, torchvision_rows))
    return "".join([*parts, BY_HAND, f"\nEvery row: {links}.\n"])


def _tally(*results: Recount) -> Iterator[list[str]]:
    for verdict, meaning in MEANINGS.items():
        counts = [result.summary.get(verdict, 0) for result in results]
        if any(counts):
            yield [meaning, *(f"{count:,}" for count in counts)]


def _reasons(result: Recount) -> list[list[str]]:
    told = Counter(row.reason for row in result.rows if row.verdict in {"convention", "state"})
    return [[reason, f"{count:,}"] for reason, count in told.most_common()]


def _rows(rows: Sequence[RecountRow]) -> str:
    cells = [
        [
            row.name,
            row.input,
            "" if row.macs is None else f"{row.macs / 1e9:.3f}",
            row.claimed.get("macs", ""),
            "" if row.deviation is None else f"{row.deviation:+.1%}",
            ": ".join(filter(None, (MEANINGS[row.verdict], row.reason))),
        ]
        for row in rows
    ]
    return "\n".join(markdown_table(("model", "input", "G MACs", "published", "largest deviation", "verdict"), cells))


if __name__ == "__main__":
    main()
