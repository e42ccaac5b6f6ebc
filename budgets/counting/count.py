"""The counter: one forward of a copy without memory, every operator answered for.

It sees operators below autograd and below every decomposition, so that `F.conv2d`, `nn.Conv2d`, a subclass of it and
a weight handed to another function all arrive as the same operator.
"""

from collections.abc import Iterator, Mapping
from contextvars import copy_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.budgets.counting.attribution import Unlendable
from featherpress.budgets.counting.costs import ROOT, Cost, format_shapes
from featherpress.budgets.counting.exported import module_of
from featherpress.budgets.counting.formulas import FORMULAS, Formula
from featherpress.budgets.counting.forward import Subject, run_forward
from featherpress.budgets.counting.global_state import preserve_global_state
from featherpress.budgets.counting.meta_kernels import CLASSES
from featherpress.budgets.counting.places import look
from featherpress.budgets.counting.probes import verify
from featherpress.budgets.counting.storage import tensors_in
from featherpress.budgets.counting.summary import summarise
from featherpress.budgets.counting.surroundings import Surroundings, untouched
from featherpress.budgets.counting.tensors import Tree, list_modules, list_tensors
from featherpress.budgets.counting.values import NoAnswer
from featherpress.budgets.counting.wrappers import unwrap
from featherpress.errors import CountError, UsageError

METHODS = ("meta", "fake", "real")
#: How PyTorch says that a tensor has no values.
_VALUELESS = (
    "called on meta tensors", "no data!", "convert meta device", "data-dependent", "datadependent",
    "dynamicoutputshape", "values that meta tensors do not have",
)  # fmt: skip


def count(
    model: nn.Module,
    *example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    formulas: Mapping[str, Formula] | None = None,
) -> Cost:
    """Count a model's parameters, and the multiply-accumulates of one forward in eval mode.

    The model is copied, never touched. The copy runs on meta tensors; where an operator cannot, on fake tensors, and
    at last for real on the CPU. `formulas` adds to the table: {"library::operator": formula(args, result) -> MACs}.
    An exported program counts as its module.

    Errors: CountError for an operator that nothing answers for, when the amount of core work depends on values, or when
    work is done that no operator does; UsageError if the model cannot be copied or fails on these inputs.
    """
    if type(model).__module__ == "torch.export.exported_program":
        model = module_of(model)
    tree = _tree(model := unwrap(model) if isinstance(model, nn.Module) else model)
    inputs = (example_inputs, dict(kwargs or {}))
    code = look([module for _, module in tree])
    subject = Subject(tree=tree, inputs=inputs, table={**FORMULAS, **(formulas or {})}, takes=code.takes)
    failure: BaseException | None = None
    for method in METHODS[code.asks and _has_values(subject) :]:
        # Fake tensors have no more values than those on meta, but know the device of what is held.
        if method != "meta" and (not _has_values(subject) or (method == "fake" and _wants_values(failure))):
            continue
        if method == "real":
            _require_memory(subject, failure)
        try:
            return _count_by(method, subject)
        except CountError:
            raise
        except (Exception, SystemExit) as error:
            failure = error
    raise _failed(subject, failure) from failure


def _held(subject: Subject) -> Iterator[Tensor]:
    """List all tensors of a model and its inputs, one that several modules hold as often."""
    for _, module in subject.tree:
        yield from (held for held in (*module._parameters.values(), *module._buffers.values()) if held is not None)
    yield from tensors_in(subject.inputs)


def _has_values(subject: Subject) -> bool:
    return not any(tensor.is_meta for tensor in _held(subject))


def _require_memory(subject: Subject, failure: BaseException | None) -> None:
    """Refuse a real run whose copy would not fit into memory."""
    held = {id(tensor): tensor for tensor in _held(subject) if type(tensor) in CLASSES}.values()
    needed = sum(tensor.nbytes for tensor in held if tensor.layout is torch.strided)
    free = _free_memory()
    if free is not None and needed > free:
        raise UsageError(
            f"{subject.name} asks for values ({_first_line(failure)}), and a real run that has them needs "
            f"{needed / 1e9:,.1f} GB for a copy of its weights and inputs alone, with {free / 1e9:,.1f} GB free: feed "
            "it a smaller input, make it smaller, or count the part that needs none"
        )


def _free_memory() -> int | None:
    """Return the bytes that may be had without swapping, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)


def _count_by(method: str, subject: Subject) -> Cost:
    """Run one step of the ladder; a model that cannot be lent layers of is copied as a whole."""
    try:
        return _count_in(method, subject, trusting=method == "meta")
    except Unlendable:
        return _count_in(method, subject, trusting=False)


def _count_in(method: str, subject: Subject, *, trusting: bool) -> Cost:
    depth = max(path.count(".") for path, _ in subject.tree)
    # Tensors without memory can wait for the garbage collector.
    with (
        preserve_global_state(depth, collect=method == "real") as generators,
        untouched(subject.model, [module for _, module in subject.tree], generators, trusting=trusting) as surroundings,
    ):
        # What the forward sets in a context ends with it.
        return copy_context().run(_counted, method, subject, surroundings)


def _counted(method: str, subject: Subject, surroundings: Surroundings) -> Cost:
    """Count, and let go of every tensor."""
    if method == "meta" and surroundings.code.asks and _has_values(subject):
        raise RuntimeError("a function that the model holds goes by the device of tensors")
    rows = list_tensors(subject.tree)
    run = run_forward(subject, method, rows, surroundings)
    verify(subject, run, rows, surroundings)
    return summarise(subject, rows, run.mode)


def _failed(subject: Subject, failure: BaseException | None) -> Exception:
    """Say why no step of the ladder held."""
    if isinstance(failure, UsageError):
        return failure
    if isinstance(failure, NoAnswer):
        return CountError(str(failure))
    if _wants_values(failure) and not _has_values(subject):
        return UsageError(
            f"{subject.name} reads values ({_first_line(failure)}), and its weights or inputs are on the meta device, "
            "where they have none: build them on the CPU"
        )
    shapes = format_shapes(subject.shapes) or "(none)"
    return UsageError(f"{subject.name} fails on inputs {shapes}: {_first_line(failure)}")


def _wants_values(failure: BaseException | None) -> bool:
    """Return whether a forward failed for want of values, which only a real run has."""
    text = f"{type(failure).__name__} {failure}".lower()
    return isinstance(failure, NoAnswer | UsageError) or any(word in text for word in _VALUELESS)


def _tree(model: nn.Module) -> Tree:
    """List all modules under all their names."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a torch.nn.Module to count, got {type(model).__name__}")
    tree = list_modules(model)
    scripted = {kind for kind in {type(module) for _, module in tree} if issubclass(kind, torch.jit.ScriptModule)}
    for path, module in tree if scripted else ():
        if type(module) in scripted:
            raise UsageError(
                f"{path or ROOT} of {type(model).__name__} is a scripted or traced module, whose operators are hidden: "
                "count the module that it was made from"
            )
    return tree


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
