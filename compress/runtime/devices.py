"""Devices and processes, by accelerate: one code path for one process and for many machines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from featherpress.compress.runtime.distributed import open_processes
from featherpress.compress.runtime.ranks import local_rank
from featherpress.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_accelerator(*, precision: str, accumulate: int, images: Sequence[int]) -> "Accelerator":
    """Find the device and the other processes, over which the `images` of a batch are spread, of every size of crops.

    Errors: `UsageError` where the schedule asks for what they cannot do.
    """
    # A detector asks for its device too, and needs nothing of this.
    from accelerate import Accelerator  # noqa: PLC0415

    open_processes()

    cuda = torch.cuda.is_available()
    if precision == "fp16" and not cuda:
        raise UsageError("schedule.precision=fp16 needs a GPU, and there is none; use bf16 or no")
    accelerator = Accelerator(
        # Only when told so does accelerate look for other processes on a machine without a GPU.
        cpu=not cuda,
        mixed_precision=precision,
        gradient_accumulation_steps=accumulate,
    )
    uneven = [each for each in images if each % accelerator.num_processes]
    if uneven:
        raise UsageError(
            f"a batch of {uneven[0]} cannot be spread evenly over {accelerator.num_processes} processes; "
            "choose a multiple for schedule.batch_size"
        )
    return accelerator


def default_device() -> torch.device:
    """Return the GPU where there is one; of several processes on a machine, each has its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Asked before accelerate has chosen one, so by the rule that it chooses by.
    local = local_rank()
    return torch.device("cuda") if local is None else torch.device("cuda", local % torch.cuda.device_count())
