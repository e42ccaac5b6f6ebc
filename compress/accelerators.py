"""Devices and processes, by accelerate: one code path for one process and for many machines."""

from collections.abc import Sequence
from datetime import timedelta

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from featherpress.compress.recipes import ScheduleRecipe
from featherpress.errors import UsageError

__all__ = ["open_accelerator"]


def open_accelerator(schedule: ScheduleRecipe, *, images: Sequence[int]) -> Accelerator:
    """Find the device and the other processes, over which the `images` of a batch are spread, of every size of crops.

    Errors: `UsageError` where the schedule asks for what they cannot do.
    """
    cuda = torch.cuda.is_available()
    if schedule.precision == "fp16" and not cuda:
        raise UsageError("schedule.precision=fp16 needs a GPU, and there is none; use bf16 or no")
    accelerator = Accelerator(
        # Only when told so does accelerate look for other processes on a machine without a GPU.
        cpu=not cuda,
        mixed_precision=schedule.precision,
        gradient_accumulation_steps=schedule.accumulate,
        # The others wait while the first one evaluates.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
    )
    uneven = [each for each in images if each % accelerator.num_processes]
    if uneven:
        raise UsageError(
            f"a batch of {uneven[0]} cannot be spread evenly over {accelerator.num_processes} processes; "
            "choose a multiple for schedule.batch_size"
        )
    return accelerator
