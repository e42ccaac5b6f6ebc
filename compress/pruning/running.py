"""One forward of a copy, whose operators are followed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.global_state import preserve_global_state
from featherpress.budgets.counting.replicas import Twin, copy_with, meta_twin
from featherpress.budgets.counting.storage import tensors_in
from featherpress.budgets.counting.surroundings import untouched
from featherpress.budgets.counting.tensors import list_modules
from featherpress.compress.pruning.comparing import Comparer
from featherpress.compress.pruning.dispatch import Compute, Dispatch
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.surgery import set_attributes
from featherpress.compress.pruning.trace import Decisions, Subject, Trace, describe
from featherpress.compress.pruning.tracing import Tracer


@contextmanager
def guarded(subject: Subject) -> Iterator[None]:
    """Leave the model, and all that stands around it, as it was."""
    modules = list(subject.model.modules())
    depth = max(path.count(".") for path, _ in subject.model.named_modules())
    with preserve_global_state(depth) as generators, untouched(subject.model, modules, generators):
        yield


def run_traced(
    subject: Subject,
    trace: Trace,
    decisions: Decisions,
    *,
    twin: Twin = meta_twin,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    kept: Callable[[Ids], Ids] = lambda ids: ids,
    whole: Trace | None = None,
    compute: Compute | None = None,
    training: bool = False,
) -> list[Tensor]:
    """Run a copy whose tensors are made by `twin`, with other `attributes`; its labels are those of `trace.params`.

    Of a copy that is cut, `kept` tells which labels stay, and `whole` is what it is compared with. With `compute` it
    runs on values. `training` follows what a model does in training, after what it does in eval mode.

    Errors: UsageError if it cannot be copied; those of the forward.
    """
    with guarded(subject):
        memo: dict[int, Any] = {}
        replica = copy_with(subject.model, twin, memo)
        replica.train(training)
        args, kwargs = copy_with((subject.args, dict(subject.kwargs)), twin, memo)
        set_attributes(replica, attributes or {})
        originals = {id(memo[key]): key for key in trace.params}
        tracer = Tracer(trace, decisions, originals=originals, kept=kept, values=compute is not None)
        for key, axes in trace.params.items():
            tracer.give(memo[key], axes)
        comparer = Comparer(tracer, whole) if whole else None
        mode = Dispatch(
            tracer, ModuleStack(list_modules(replica)), comparer=comparer, compute=compute, training=training
        )
        if compute is not None:
            torch.set_default_dtype(torch.float64)
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` turns the generators of all devices too
        try:
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), mode:
                results = tensors_in(replica(*args, **kwargs))
        except Exception as error:
            trace.failure = (tracer.key, describe(error))
            raise
        tracer.key = ("", 0, "output", 0)
        for tensor in results:
            tracer.lock(tensor, "part of the output")
        if faults := trace.labels.take_faults():
            trace.faults.setdefault(tracer.key, []).extend(faults)
        return results
