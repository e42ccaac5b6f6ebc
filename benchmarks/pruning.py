"""Pruning models to absolute budgets: asked, got, time and the oracle's error, beside a uniform width and a peer.

    python benchmarks/pruning.py [NAME ...] [--shares 0.75 0.5 0.25] [--peer FOLDER] [--out FILE] [--pages]

Each model of random weights is cut to shares of its own parameters, then of its own MACs. `uniform` is the largest
share of every axis that fits, `left` what a limit leaves over, `least` what can be reached at two channels an axis.
Torch-Pruning is asked as its readme shows, its last layer ignored, once for each ratio from 0.1 to 0.9 in steps of
0.1; of its answers within the limit the largest is shown, with its ratio. `--peer` is the folder where it is
installed (`pip install --target FOLDER --no-deps torch-pruning`); without it the column stays empty.
Rows are added to a file of commas as they come, `docs/pruning.csv`, and those that it has are not made again.
`--pages` makes none: it writes `docs/pruning_table.md`, and the summary in `docs/pruning.md`, from the file.
"""

import argparse
import csv
import importlib
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.budgets.views.layout import markdown_table
from featherpress.compress import prune
from featherpress.errors import FeatherpressError, PruneError
from featherpress.models import create_model

DOCS = Path(__file__).parent.parent / "docs"
ZOO = ("featherface_v1", "featherface_v1_ssh_plain", "featherface_v2", "retinaface_mnet025")
TORCHVISION = (
    "resnet18", "resnet50", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0", "squeezenet1_1",
    "googlenet", "densenet121", "shufflenet_v2_x1_0", "resnext50_32x4d", "regnet_y_400mf", "efficientnet_b0",
    "convnext_tiny", "lraspp_mobilenet_v3_large", "vit_b_16", "swin_t",
)  # fmt: skip
#: Seconds of computing for the peer's answer at one ratio.
PATIENCE = 120
TITLE = """# Every pruning request that was measured

By `python benchmarks/pruning.py` ([pruning to an absolute budget](pruning.md) has the summary, and says how it was
measured). `whole` is what the model costs, `left` the part of the limit that is left over, `uniform` the largest share
of every axis that fits, `s` seconds of one core, `error` the oracle's, `least` two channels an axis. Torch-Pruning's
answer is the largest of nine within the limit, with its ratio.
"""
WORDS = {"params": "parameters", "macs": "MACs"}
MARKS = "<!-- by benchmarks/pruning.py: from here -->", "<!-- to here -->"


class Row(NamedTuple):
    """One request: what was asked of `quantity`, and what came back; `peer` is an amount with its ratio, or words."""

    model: str
    quantity: str
    share: float
    whole: int
    limit: int
    got: int
    uniform: int
    least: int
    seconds: float
    error: float
    peer: str

    def left(self, amount: int) -> float:
        """Return which part of the limit an amount leaves."""
        return 1 - amount / self.limit

    @property
    def peer_amount(self) -> int | None:
        """What the peer's answer costs, if it has one within the limit."""
        amount = self.peer.partition(" ")[0].replace(",", "")
        return int(amount) if amount.isdigit() else None


class Answer(NamedTuple):
    """What the peer made at one ratio."""

    ratio: float
    params: int
    macs: int


def make(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if name in ZOO:
        return create_model(name).eval(), torch.zeros(1, 3, 320, 320)
    models = importlib.import_module("torchvision.models")
    settings: dict[str, Any] = {"weights": None}
    if name == "googlenet":
        settings |= {"aux_logits": False, "init_weights": True}
    if name.startswith("lraspp"):
        settings["weights_backbone"] = None
    return models.get_model(name, **settings).eval(), torch.zeros(1, 3, 224, 224)


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Give up after so many seconds of computing."""

    def give_up(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def ask_peer(name: str) -> list[Answer] | str:
    """Ask Torch-Pruning at every ratio; in a few words what happens if it has no answer to the first."""
    found = []
    for step in range(1, 10):
        try:
            with patience(PATIENCE):
                cost = count(*cut_by_peer(name, step / 10))
        except TimeoutError:
            failure = f"no answer in {PATIENCE} s"
        except FeatherpressError:
            failure = "what it returns does not run"
        except Exception as error:
            failure = type(error).__name__
        else:
            found.append(Answer(step / 10, cost.params, cost.macs))
            continue
        if step == 1:
            return f"fails: {failure}"
    return found


def cut_by_peer(name: str, ratio: float) -> tuple[nn.Module, Tensor]:
    peer = importlib.import_module("torch_pruning")
    model, image = make(name)
    heads = [each for each in model.modules() if isinstance(each, nn.Linear)][-1:]
    peer.pruner.MetaPruner(
        model,
        image,
        importance=peer.importance.GroupMagnitudeImportance(),
        pruning_ratio=ratio,
        ignored_layers=heads,
    ).step()
    return model, image


def best(answers: list[Answer] | str, quantity: str, limit: int) -> str:
    """Write the largest of the peer's answers within a limit."""
    if isinstance(answers, str):
        return answers
    inside = [(getattr(each, quantity), each.ratio) for each in answers if getattr(each, quantity) <= limit]
    if not inside:
        return "none within"
    amount, ratio = max(inside)
    return f"{amount:,} ({ratio:.1f})"


def find_least(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Return the least parameters and MACs that can be reached without a floor."""
    try:
        prune(model, image, params=1, macs=1, floor=0)
    except PruneError as error:
        return error.least
    raise AssertionError("nothing has one parameter")


def make_rows(name: str, wanted: Sequence[tuple[str, float]], *, peer: bool) -> Iterator[Row]:
    """Prune one model to each budget."""
    model, image = make(name)
    whole = count(model, image)
    answers = ask_peer(name) if peer else ""
    least = find_least(model, image)
    for quantity, share in wanted:
        amount = getattr(whole, quantity)
        limit = int(amount * share)
        start = time.process_time()
        made = prune(model, image, **{quantity: limit})
        seconds = time.process_time() - start
        got = getattr(count(made.model, image), quantity)
        assert got <= limit
        yield Row(
            model=name,
            quantity=quantity,
            share=share,
            whole=amount,
            limit=limit,
            got=got,
            uniform=made.uniform[quantity],
            least=least[quantity],
            seconds=round(seconds, 1),
            error=float(f"{made.error:.0e}"),
            peer=best(answers, quantity, limit),
        )


def read_rows(file: Path) -> list[Row]:
    """Read the rows that are there."""
    if not file.exists():
        return []
    found = []
    with file.open(newline="") as opened:
        for row in csv.DictReader(opened):
            values: dict[str, Any] = {name: kind(row[name]) for name, kind in Row.__annotations__.items()}
            found.append(Row(**values))
    return found


def run(names: Sequence[str], shares: Sequence[float], file: Path, *, peer: bool) -> None:
    """Make the rows that are not there yet."""
    if not file.exists():
        file.write_text(",".join(Row._fields) + "\n")
    there = {row[:3] for row in read_rows(file)}
    for name in names:
        wanted = [(quantity, share) for quantity in ("params", "macs") for share in shares]
        wanted = [each for each in wanted if (name, *each) not in there]
        for row in make_rows(name, wanted, peer=peer) if wanted else ():
            with file.open("a", newline="") as opened:
                csv.writer(opened, lineterminator="\n").writerow(row)
            print(*row, flush=True)


def make_pages(file: Path = DOCS / "pruning.csv") -> dict[Path, str]:
    """Make the page of all rows, and that on pruning with its summary between the marks."""
    order = (*TORCHVISION, *ZOO)
    rows = sorted(read_rows(file), key=lambda row: (order.index(row.model), row.quantity != "params", -row.share))
    page = DOCS / "pruning.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    return {
        page: "\n".join([f"{before}{MARKS[0]}", "", *summary(rows), "", f"{MARKS[1]}{after}"]),
        DOCS / "pruning_table.md": "\n".join([TITLE, *table(rows)]) + "\n",
    }


def table(rows: Sequence[Row]) -> list[str]:
    """Lay out all rows."""
    header = ("model", "of", "whole", "asked", "got", "left", "uniform", "Torch-Pruning", "s", "error", "least")
    body = [
        [
            row.model,
            row.quantity,
            *(f"{each:,}" for each in (row.whole, row.limit, row.got)),
            f"{row.left(row.got):.2%}",
            f"{row.uniform:,}",
            row.peer,
            f"{row.seconds:.1f}",
            f"{row.error:.0e}",
            f"{row.least:,}",
        ]
        for row in rows
    ]
    return _lay_out(header, body, words=2)


def _lay_out(header: Sequence[str], body: Sequence[Sequence[str]], *, words: int) -> list[str]:
    """Lay out a table of which the first columns are words, and all others numbers."""
    first, _, *rest = markdown_table(header, body)
    return [first, "|" + "---|" * words + "---:|" * (len(header) - words), *rest]


def summary(rows: Sequence[Row]) -> list[str]:
    """Say in a few sentences and a row a model what all rows come to."""
    inside = sum(row.got <= row.limit for row in rows)
    answered = [row for row in rows if row.peer_amount is not None]
    models = list(dict.fromkeys(row.model for row in rows))
    ours = [row.left(row.got) for row in rows]
    worst = max(rows, key=lambda row: row.left(row.got))
    silent = ", ".join(name for name in models if all(row.peer_amount is None for row in rows if row.model == name))
    lines = [
        f"**{inside} of {len(rows)} requests are at or under their limit**, over {len(models)} models.",
        f"Of a limit {median(ours):.2%} is left in the median, and {max(ours):.1%} at worst ({worst.model}, "
        f"{worst.share:.0%} of its {WORDS[worst.quantity]}).",
        f"The largest error of all is {max(row.error for row in rows):.0e} of the signal.",
        f"A request takes {median(row.seconds for row in rows):.0f} s of one core in the median, and "
        f"{max(row.seconds for row in rows):.0f} s at most.",
        f"The largest uniform width leaves {median(row.left(row.uniform) for row in rows):.2%} in the median.",
        f"Torch-Pruning, the best of nine ratios, has an answer within the limit in {len(answered)} rows, and leaves "
        f"{median(row.left(row.peer_amount or 0) for row in answered):.1%} in the median; it has none for: "
        f"{silent or 'no model'}.",
    ]
    return [*lines, "", *_per_model(rows, models)]


def _peer_cell(rows: Sequence[Row]) -> str:
    """Write what the peer leaves of one model's limits in the median, and of how many, or why it has no answer."""
    left = [row.left(row.peer_amount) for row in rows if row.peer_amount is not None]
    if not left:
        return rows[0].peer
    return f"{median(left):.1%}" + (f" ({len(left)} of {len(rows)})" if len(left) < len(rows) else "")


def _per_model(rows: Sequence[Row], models: Sequence[str]) -> list[str]:
    """Lay out a row a model: medians over its requests, and the worst."""
    body = []
    for name in models:
        own = [row for row in rows if row.model == name]
        body.append(
            [
                name,
                f"{own[0].whole:,}",
                f"{own[0].least / own[0].whole:.2%}",
                f"{median(row.left(row.got) for row in own):.2%}",
                f"{max(row.left(row.got) for row in own):.2%}",
                f"{median(row.left(row.uniform) for row in own):.2%}",
                _peer_cell(own),
                f"{max(row.error for row in own):.0e}",
                f"{median(row.seconds for row in own):.0f}",
            ]
        )
    header = ("model", "parameters", "least", "left", "at worst", "uniform", "Torch-Pruning", "error", "s")
    return _lay_out(header, body, words=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*TORCHVISION, *ZOO], metavar="NAME")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.75, 0.5, 0.25])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path, default=DOCS / "pruning.csv")
    parser.add_argument("--pages", action="store_true")
    given = parser.parse_args()
    if given.pages:
        for page, text in make_pages(given.out).items():
            page.write_text(text, encoding="utf-8")
        return
    if given.peer:
        sys.path.append(str(given.peer))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    run(given.names, given.shares, given.out, peer=given.peer is not None)


if __name__ == "__main__":
    main()
