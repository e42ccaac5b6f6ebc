"""Pruning models to absolute budgets: asked, got, time and the oracle's error, beside a uniform width and a peer.

    python benchmarks/pruning.py [NAME ...] [--shares 0.75 0.5 0.25] [--peer FOLDER] [--out FILE]

Each model of random weights is cut to shares of its own parameters, then of its own MACs. `uniform` is the largest
share of every axis that fits, `left` what a limit leaves over, `least` what can be reached at two channels an axis.
Torch-Pruning is asked as its readme shows, its last layer ignored, once for each ratio from 0.1 to 0.9 in steps of
0.1; of its answers within the limit the largest is shown, with its ratio. `--peer` is the folder where it is
installed (`pip install --target FOLDER --no-deps torch-pruning`); without it the column stays empty.
"""

import argparse
import importlib
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.compress import prune
from featherpress.errors import FeatherpressError, PruneError
from featherpress.models import create_model

ZOO = ("featherface_v1", "featherface_v1_ssh_plain", "featherface_v2", "retinaface_mnet025")
TORCHVISION = (
    "resnet18", "resnet50", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0", "squeezenet1_1",
    "googlenet", "densenet121", "shufflenet_v2_x1_0", "resnext50_32x4d", "regnet_y_400mf", "efficientnet_b0",
    "convnext_tiny", "lraspp_mobilenet_v3_large", "vit_b_16", "swin_t",
)  # fmt: skip
HEAD = (
    "| model | quantity | whole | asked | got | left | uniform | s | error | least | Torch-Pruning (ratio) |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)


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


def ask_peer(name: str) -> list[Answer] | str:
    """Ask Torch-Pruning at every ratio; a sentence if it fails at all of them."""
    peer = importlib.import_module("torch_pruning")
    found, failure = [], ""
    for step in range(1, 10):
        model, image = make(name)
        heads = [each for each in model.modules() if isinstance(each, nn.Linear)][-1:]
        try:
            pruner = peer.pruner.MetaPruner(
                model,
                image,
                importance=peer.importance.GroupMagnitudeImportance(),
                pruning_ratio=step / 10,
                ignored_layers=heads,
            )
            pruner.step()
            cost = count(model, image)
        except Exception as error:
            failure = failure or f"fails: {type(error).__name__}"
            if step == 1:
                break
            continue
        found.append(Answer(step / 10, cost.params, cost.macs))
    return found or failure


def best(answers: list[Answer] | str | None, quantity: str, limit: int) -> str:
    """Write the largest of the peer's answers within a limit."""
    if not isinstance(answers, list):
        return answers or ""
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
    return {}


def rows(name: str, shares: list[float], *, peer: bool) -> list[str]:
    """Prune one model to each budget."""
    model, image = make(name)
    whole = count(model, image)
    answers = ask_peer(name) if peer else None
    least = find_least(model, image)
    lines = []
    for quantity in ("params", "macs"):
        amount = getattr(whole, quantity)
        for share in shares:
            limit = int(amount * share)
            start = time.perf_counter()
            cells: list[str]
            try:
                made = prune(model, image, **{quantity: limit})
            except FeatherpressError as error:
                cells = [str(error)[:80], *[""] * 4]
            else:
                got = getattr(count(made.model, image), quantity)
                assert got <= limit
                cells = [f"{got:,}", f"{limit - got:,}", f"{made.uniform.get(quantity, 0):,}"]
                cells += [f"{time.perf_counter() - start:.1f}", f"{made.error:.0e}"]
            row = [name, quantity, f"{amount:,}", f"{limit:,}", *cells, f"{least.get(quantity, 0):,}"]
            lines.append(f"| {' | '.join([*row, best(answers, quantity, limit)])} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*TORCHVISION, *ZOO], metavar="NAME")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.75, 0.5, 0.25])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.peer:
        sys.path.append(str(given.peer))
    warnings.simplefilter("ignore")
    print("\n".join(HEAD), flush=True)
    lines = list(HEAD)
    for name in given.names:
        lines += rows(name, given.shares, peer=given.peer is not None)
        if given.out:
            given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
