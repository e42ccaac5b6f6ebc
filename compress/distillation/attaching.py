"""What a Distiller checks and builds before anything is trained: models, terms, names of outputs, adapters."""

import itertools
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from featherpress.compress.distillation.adapters import Adapters, build_adapters, describe
from featherpress.compress.distillation.teachers import Outputs
from featherpress.compress.distillation.terms import Features, Logits, Term
from featherpress.errors import UsageError

logger = logging.getLogger("featherpress")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside what parallel training and compilation wrap around it.

    Errors: `UsageError` for DataParallel, whose copies of the model have no hooks.
    """
    while True:
        if isinstance(model, nn.DataParallel):
            raise UsageError("DataParallel runs copies of the model, which no hook sees; use DistributedDataParallel")
        inner = getattr(model, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            model = inner
        elif isinstance(model, DistributedDataParallel):
            model = model.module
        else:
            return model


def refuse_compiled(wrapped: nn.Module) -> None:
    """Refuse a compiled student where code compiled for its class is there already, which sees no new hooks.

    Errors: `UsageError`.
    """
    if _ran_compiled(wrapped):
        raise UsageError(
            "the student, or another model of its class, has run compiled already, and compiled code does not see new "
            "hooks; make the Distiller before the first compiled call, or call torch.compiler.reset() first"
        )


def compiled_teacher(name: str, model: nn.Module, terms: Mapping[str, Term]) -> nn.Module | None:
    """Return what `torch.compile` gave, to run in steps; None where there is none, or where it would not see hooks."""
    tapped = any(isinstance(term, Features) and term.is_about(name) for term in terms.values())
    is_compiled = isinstance(getattr(model, "_orig_mod", None), nn.Module)
    return model if is_compiled and not (tapped and _ran_compiled(model)) else None


def _ran_compiled(model: nn.Module) -> bool:
    """Whether a model is compiled, and code of its class was compiled already."""
    compiled = _compiled_call(model)
    if compiled is None:
        return False
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list  # noqa: PLC0415 (slow to import)

    functions = (type(unwrap(model)).forward, getattr(compiled, "_torchdynamo_orig_callable", None))
    codes = [getattr(function, "__code__", None) for function in functions]
    return any(code is not None and _debug_get_cache_entry_list(code) for code in codes)


def _compiled_call(model: nn.Module) -> Callable[..., Any] | None:
    """Return what runs in place of a model that is compiled."""
    if isinstance(getattr(model, "_orig_mod", None), nn.Module):
        return model.forward
    if isinstance(model, DistributedDataParallel):
        return model._compiled_call_impl or _compiled_call(model.module)
    return model._compiled_call_impl


def check_settings(
    models: Mapping[str, nn.Module], *, order: str, ramp: float, stop: float, balance: float | None, teacher_inputs: Any
) -> None:
    """Refuse what no training could run by.

    Errors: `UsageError`.
    """
    if order not in ("mean", "sequential"):
        raise UsageError(f"`order` is mean or sequential, got {order!r}")
    for name, value in (("ramp", ramp), ("stop", stop)):
        if not 0 <= value <= 1:
            raise UsageError(f"`{name}` is a fraction of the training, from 0 to 1, got {value}")
    if balance is not None and not 0 < balance < float("inf"):
        raise UsageError(f"`balance` is a share above 0 of the task's gradient, got {balance}")
    unknown = sorted(set(teacher_inputs) - set(models)) if isinstance(teacher_inputs, Mapping) else []
    if unknown:
        raise UsageError(f"`teacher_inputs` has {unknown[0]!r}; the teachers are {', '.join(models)}")


def kept_terms(terms: Mapping[str, Term], models: Mapping[str, nn.Module], placebo: str) -> dict[str, Term]:
    """Return the terms that weigh something; smoothing knows nothing but classes.

    Errors: `UsageError` for no terms, for none between logits to be smoothed, and for one about an unknown teacher.
    """
    if placebo not in ("", "student", "shuffled", "smoothing"):
        raise UsageError(f"a placebo is shuffled or smoothing, got {placebo!r}")
    if not terms:
        raise UsageError("expected a term, got none")
    if not isinstance(terms, Mapping):
        raise UsageError(f'terms have names: {{"class": Logits("kl")}}, got {type(terms).__name__}')
    for name, term in terms.items():
        if not isinstance(term, Logits | Features):
            raise UsageError(f"{name}: expected Logits(...) or Features(...), got {term!r}")
        if term.of is not None and term.of not in models:
            raise UsageError(f"{name}: no teacher is named {term.of!r}; there are {', '.join(models)}")
    kept = {name: term for name, term in terms.items() if term.weight}
    if placebo == "smoothing":
        kept = {name: term for name, term in kept.items() if isinstance(term, Logits) and term.output == "logits"}
        if not kept:
            raise UsageError("smoothing needs a loss between logits with a weight above 0, found none")
    return kept


def teacher_shares(models: Mapping[str, nn.Module], weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return the teachers' weights, which sum to 1.

    Errors: `UsageError` for other names, and for weights that are not positive or not finite.
    """
    if not models:
        raise UsageError("expected a teacher, got none")
    given = dict.fromkeys(models, 1.0) if weights is None else weights
    if set(given) != set(models) or not all(0 < weight < float("inf") for weight in given.values()):
        raise UsageError(f"expected finite `teacher_weights` above 0 for {', '.join(models)}, got {dict(given)}")
    return {name: given[name] / sum(given.values()) for name in models}


def naming(output: Callable[[Any], Any] | None, terms: Mapping[str, Term]) -> Callable[[Any], Outputs]:
    """Return the function that names what a model returns; without terms on outputs nothing is named."""
    if output is None and not any(isinstance(term, Logits) for term in terms.values()):
        return lambda raw: {}

    def name(raw: Any) -> Outputs:
        found = _guess(raw) if output is None else output(raw)
        return {"logits": found} if isinstance(found, Tensor) else found

    return name


def _guess(raw: Any) -> Any:
    if isinstance(raw, Tensor):
        return raw
    found = raw.get("logits") if isinstance(raw, Mapping) else getattr(raw, "logits", None)
    if isinstance(found, Tensor):
        return found
    raise UsageError(f"the model returns {type(raw).__name__}; say with `output` how logits come out of it")


def refuse_shared(student: nn.Module, teachers: Mapping[str, nn.Module]) -> None:
    """Refuse a teacher that has a module or a weight of the student's.

    Errors: `UsageError`.
    """
    ours = set(map(id, student.modules())) | set(map(id, student.parameters()))
    for name, teacher in teachers.items():
        theirs = itertools.chain(teacher.modules(), teacher.parameters())
        if any(id(each) in ours for each in theirs):
            raise UsageError(f"the student and {name} share modules or weights; copy the teacher (copy.deepcopy)")


def over_batch(terms: Mapping[str, Term]) -> list[str]:
    """Say which terms are another loss when a batch comes in parts."""
    return [
        f"{name}: {term.entry.name} compares over a whole batch, so that accumulated parts of one give another loss"
        for name, term in terms.items()
        if term.entry.over_batch
    ]


def has_times(term: Term) -> bool:
    """Whether a term is on at some times of a training only."""
    return bool(term.start or term.ramp or term.stop)


def adapter_name(number: int, name: str) -> str:
    """Return a name of a submodule for any name of a term, which may be a method's, or have a dot."""
    return f"kd_{number}_{name.replace('%', '%25').replace('.', '%2E')}"


def build_term_adapters(
    name: str, term: Features, ours: list[tuple[int, ...]], theirs: list[tuple[int, ...]]
) -> Adapters:
    """Build the adapters of a term.

    Errors: `UsageError` for levels that cannot be compared, by this loss or at all.
    """
    if term.entry.maps and any(len(shape) != 4 for shape in ours):
        raise UsageError(
            f"{name}: {term.entry.name} compares positions, but {term.student!r} gives {ours[0]}; use pkd or fitnets"
        )
    weighs = all(weight >= 0 for weight in term.levels) and 0 < sum(term.levels) < float("inf")
    if term.levels and (len(term.levels) != len(ours) or not weighs):
        raise UsageError(
            f"{name}: `levels` has {len(term.levels)} weights, expected {len(ours)}, one for each level of "
            f"{term.student!r}, 0 or more and finite, not all 0"
        )
    adapters = build_adapters(ours, theirs, name=name, kind=term.adapter_kind)
    if term.entry.check:
        for pair in zip(ours, theirs, strict=True):
            term.entry.check(*pair)
    for level, pair in enumerate(zip(ours, theirs, strict=True), start=1):
        logger.debug("%s: level %d: %s", name, level, describe(*pair))
    return adapters


def check_outputs(name: str, term: Logits, ours: Outputs, theirs: Outputs) -> None:
    """Refuse outputs that are not there, and those that cannot be compared.

    Errors: `UsageError` with both shapes.
    """
    for whose, outputs in (("the student", ours), ("the teacher", theirs)):
        if term.output not in outputs:
            raise UsageError(f"{name}: {whose} has no output {term.output!r}; it has {', '.join(outputs) or 'none'}")
    s, t = tuple(ours[term.output].shape), tuple(theirs[term.output].shape)
    if s != t:
        raise UsageError(f"{name}: the student's {term.output} {s} do not compare with the teacher's {t}")
    if term.entry.check:
        term.entry.check(s, t)
    for whose, outputs in (("the student", ours), ("the teacher", theirs)):
        if _are_probabilities(outputs[term.output], term.entry.softmax):
            raise UsageError(
                f"{name}: {whose}'s {term.output} are probabilities, which sum to 1 over the classes; "
                f"{term.entry.name} compares what comes before the softmax"
            )


def _are_probabilities(outputs: Tensor, axis: int | None) -> bool:
    """Whether outputs, of classes on an axis, are what a softmax gives; none without an axis."""
    if axis is None or outputs.shape[axis] < 2 or not outputs.numel():
        return False
    sums = outputs.float().sum(dim=axis)
    return bool((outputs >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())


def reshard(model: nn.Module) -> None:
    """Shard again what a forward without backward leaves whole, so that an optimizer finds the shards."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # slow to import; whoever shards has done so
    if fsdp is not None:
        for module in model.modules():
            if isinstance(module, fsdp.FSDPModule):
                module.reshard()
