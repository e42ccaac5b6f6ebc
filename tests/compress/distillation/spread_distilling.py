"""Distil in several ways into a file for each process: by itself one process, or started once for each of several.

python tests/compress/distillation/spread_distilling.py OUT
RANK=0 WORLD_SIZE=2 python tests/compress/distillation/spread_distilling.py OUT
RANK=1 WORLD_SIZE=2 python tests/compress/distillation/spread_distilling.py OUT

With DEVICE=cuda each process has a GPU of its own.
"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.terms import Features, Logits

STEPS, BATCH = 3, 16
SHARDS = torch.__version__ >= "2.8" or os.environ.get("DEVICE") == "cuda"  # older ones shard on GPUs alone
WORLD, RANK = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
DEVICE = torch.device(os.environ.get("DEVICE", "cpu"))
TERMS = {
    "class": Logits("kl"),
    "pattern": Features("pkd", student="two", teacher="two"),
    "values": Features("fitnets", student="one", teacher="one"),
}


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).relu()).relu().mean(dim=(2, 3)))  # type: ignore[no-any-return]


def batches(step: int, parts: int) -> list[tuple[Tensor, Tensor]]:
    """Return this process's share of each micro-batch."""
    x = torch.randn(BATCH, 3, 6, 6, generator=torch.Generator().manual_seed(step)).to(DEVICE)
    y = torch.arange(BATCH, device=DEVICE) % 5
    return [(a.chunk(WORLD)[RANK], b.chunk(WORLD)[RANK]) for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True)]


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(way: str, parts: int, *, balance: float | None = None) -> dict[str, Any]:
    """Return the weights after three steps with a teacher; each process would draw other adapters."""
    torch.manual_seed(0)
    student, teacher = Net(4).to(DEVICE), Net(6)
    model: Any = student
    if way == "sharded" and WORLD > 1:
        fully_shard(student.two)
        fully_shard(student)
    elif WORLD > 1:
        model = DistributedDataParallel(student)
    around = model if parts == 1 else student
    kd = Distiller(around, teacher, TERMS, example=batches(0, 1)[0][0], seed=RANK, balance=balance)
    weights = [*student.parameters(), *kd.parameters()]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for step in range(STEPS):
        micro = batches(step, parts)
        for number, (x, y) in enumerate(micro, start=1):
            waiting = number < parts and isinstance(model, DistributedDataParallel)
            with model.no_sync() if waiting else nullcontext():
                with kd.step(x) as taken:
                    out = (student if way == "unwrapped" else model)(x)
                task = F.cross_entropy(out, y)
                ((task + taken.loss(out, task=task, labels=y)) / parts).backward()
        optimizer.step()
        checks = kd.verify(optimizer)
        optimizer.zero_grad()
    return {
        "student": {name: whole(value).clone() for name, value in student.state_dict().items()},
        "adapters": kd.state_dict()["adapters"],
        "kinds": sorted({type(weight).__name__ for weight in weights[: -len(list(kd.parameters()))]}),
        "checks": checks,
    }


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    if DEVICE.type == "cuda":
        torch.cuda.set_device(RANK)
    if WORLD > 1:
        backend = "nccl" if DEVICE.type == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{out}/meeting", rank=RANK, world_size=WORLD)
    found = {
        "parallel": train("parallel", 1),
        "accumulated": train("parallel", 4),
        "balanced": train("parallel", 1, balance=0.4),
        "sharded": train("sharded", 1) if SHARDS else {},
        "unwrapped": train("unwrapped", 1),
    }
    torch.save(found, out / f"{RANK}.pt")
    if WORLD > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
