"""What a forward can change in the whole program, put back after it."""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils import _python_dispatch

from featherpress.budgets.counting.generators import Generators
from featherpress.budgets.counting.snapshots import reset

#: What a module that is followed calls besides its forward.
CALLS = 4
_NAMED = ("cudnn_benchmark", "cudnn_deterministic", "cudnn_enabled", "mkldnn_enabled")
_SDP = ("flash", "math", "mem_efficient", "cudnn")
#: Switches of PyTorch that a forward can turn.
_SWITCHES: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    (torch.is_warn_always_enabled, torch.set_warn_always),
    (partial(torch.is_autocast_enabled, "cpu"), partial(torch.set_autocast_enabled, "cpu")),
    (partial(torch.get_autocast_dtype, "cpu"), partial(torch.set_autocast_dtype, "cpu")),
    (torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled),
    (torch._C._is_view_replay_enabled, torch._C._set_view_replay_enabled),
    (
        torch._C._get_deterministic_fill_uninitialized_memory,
        torch._C._set_deterministic_fill_uninitialized_memory,
    ),
    *((getattr(torch._C, f"_get_{name}"), getattr(torch._C, f"_set_{name}")) for name in _NAMED),
    *((getattr(torch._C, f"_get_{name}_sdp_enabled"), getattr(torch._C, f"_set_sdp_use_{name}")) for name in _SDP),
)


@contextmanager
def preserve_global_state(depth: int = 0, *, collect: bool = True) -> Iterator[Generators]:
    """Put back random states, PyTorch's switches and its stacks of modes; attention runs in parts meanwhile.

    What it gives is the generators. `depth` is how deep modules are nested: calls may go as much deeper. Unless told
    to, Python collects no garbage.
    """
    before = [get() for get, _ in _SWITCHES]
    generators = Generators()
    modes = torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()
    flags = {name: held for name, held in vars(_python_dispatch).items() if name.startswith("_is_in_")}
    level, environment = forward_ad._current_level, dict(os.environ._data)  # type: ignore[attr-defined]
    logged = [(each, each.level) for each in logging.root.manager.loggerDict.values() if type(each) is logging.Logger]
    logged, disabled = [(logging.root, logging.root.level), *logged], logging.root.manager.disable
    limit, collects = sys.getrecursionlimit(), gc.isenabled()
    if not collect:
        gc.disable()
    torch.backends.mha.set_fastpath_enabled(False)
    for name in _SDP:  # on meta tensors there is only the one of parts
        getattr(torch._C, f"_set_sdp_use_{name}")(name == "math")
    # It logs a traceback for a model that cannot run, of which we make a sentence.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    silent = logger.disabled
    # Compiled modules run as they were written; compiling is loaded only by a program that compiles.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    try:
        with warnings.catch_warnings(), eager:
            # What a forward has to say about speed or deprecation is for the run that the user starts.
            warnings.simplefilter("ignore")
            logger.disabled = True
            sys.setrecursionlimit(limit + CALLS * depth)
            yield generators
    finally:
        (gc.enable if collects else gc.disable)()
        sys.setrecursionlimit(limit)
        _leave_modes(*modes)
        while forward_ad._current_level > level:
            forward_ad.exit_dual_level()  # type: ignore[no-untyped-call]
        if os.environ._data != environment:  # type: ignore[attr-defined]
            held = {os.environ.decodekey(name): os.environ.decodevalue(value) for name, value in environment.items()}
            reset(os.environ, held, os.environ.__setitem__, os.environ.__delitem__)
        for each, was in logged:
            if each.level != was:
                each.setLevel(was)
        if logging.root.manager.disable != disabled:
            logging.disable(disabled)
        vars(_python_dispatch).update(flags)
        logger.disabled = silent
        for (get, turn), was in zip(_SWITCHES, before, strict=True):
            if get() != was:
                turn(was)
        generators.put_back()


def _leave_modes(dispatch: int, function: int) -> None:
    """Take off what is still on: a mode that failed to leave, or one that the forward entered."""
    while torch._C._len_torch_dispatch_stack() > dispatch:
        torch._C._pop_torch_dispatch_stack(None)
    while torch._C._len_torch_function_stack() > function:
        torch._C._pop_torch_function_stack()
