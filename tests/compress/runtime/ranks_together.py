"""Two processes look at folders together; the first comes late, and the second is killed. Prints what each saw.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python tests/compress/runtime/ranks_together.py OUT
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from featherpress.commands.recipes import open_logged_run
from featherpress.compress.recipes import load_recipe
from featherpress.compress.runtime.distributed import average_gradients, gather_processes
from featherpress.compress.runtime.ranks import is_leader, rank
from featherpress.compress.runtime.run_folder import check_folder, open_run
from featherpress.errors import TrainingError, UsageError


def main(out: Path) -> None:
    said: dict[str, object] = {}
    if is_leader():
        time.sleep(1)
    with open_run(out / "fresh") as folder:
        said["fresh"] = folder.is_dir()
    for name in ("filled", "filled/control"):
        try:
            check_folder(out / name, resume=False, overwrite=False)
        except UsageError as error:
            said[name] = str(error).replace(str(out), "OUT")
    weights = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    weights[0].grad = torch.full((2,), 2.0 + rank())
    if is_leader():
        weights[1].grad = torch.ones(2)
    average_gradients(weights)
    said["gradients"] = [None if weight.grad is None else weight.grad.tolist() for weight in weights]
    try:
        with open_logged_run(load_recipe("digits"), out / "going", resume=False, overwrite=False):
            if not is_leader():
                print(json.dumps(said), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1)
            gather_processes(torch.ones(1))
    except TrainingError as error:
        said["lost"] = str(error)
    print(json.dumps(said), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
