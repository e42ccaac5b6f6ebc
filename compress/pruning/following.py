"""From a model to what of it can be cut: traced, cut on trial, traced again, and mended until both agree."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from featherpress.compress.pruning.followed import Followed, named_axes
from featherpress.compress.pruning.labels import Axes, Labels
from featherpress.compress.pruning.mending import mend
from featherpress.compress.pruning.proof import compare, trial
from featherpress.compress.pruning.running import run_traced
from featherpress.compress.pruning.trace import Decisions, Named, Subject, Trace, describe
from featherpress.compress.pruning.units import Space
from featherpress.errors import UsageError
from featherpress.models.pruned import named_tensors

#: Trials before we give up.
_ROUNDS = 40


def name_tensors(model: nn.Module) -> Named:
    """List parameters and buffers by identity, with all their names."""
    found: dict[int, tuple[Tensor, tuple[str, ...]]] = {}
    for name, _, _, tensor in named_tensors(model):
        names = found.get(id(tensor), (tensor, ()))[1]
        found[id(tensor)] = (tensor, (*names, name))
    return found


def follow(
    subject: Subject, *, keep: Sequence[str] = (), multiple_of: int = 1, share: float = 0.1,
    decisions: Decisions | None = None,
) -> Followed:  # fmt: skip
    """Find what of a model can be cut.

    Errors: UsageError for a pattern of `keep` that matches nothing, and a model that cannot be followed at all.
    """
    decisions = decisions or Decisions()
    model = subject.model
    decisions.attention |= {path for path, each in model.named_modules() if isinstance(each, nn.MultiheadAttention)}
    tensors = name_tensors(model)
    stay = match_kept(model, tensors, keep)
    for turn in range(_ROUNDS):
        trace = trace_whole(subject, tensors, decisions, stay)
        space = Space(trace, tensors, multiple_of=multiple_of, share=share)
        followed = Followed(subject=subject, trace=trace, space=space, decisions=decisions)
        for seed in (2 * turn, 2 * turn + 1):
            kept = trial(space, seed)
            second = compare(followed, followed.cut(kept))
            if second.faults:
                mend(followed, second, kept)
                break
        else:
            return followed
    raise UsageError(f"{type(model).__name__} cannot be followed: it does something else after each trial cut")


def match_kept(model: nn.Module, tensors: Named, keep: Sequence[str]) -> set[int]:
    """Return the ids of the tensors in the modules, or of the names, that patterns match."""
    paths = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    found: set[int] = set()
    for pattern in keep:
        roots = [path for path in paths if fnmatchcase(path, pattern)]
        inside = {
            key
            for key, (_, names) in tensors.items()
            for name in names
            if fnmatchcase(name, pattern) or any(name.startswith(f"{root}.") for root in roots)
        }
        if not inside:
            children = ", ".join(list(dict.fromkeys(path.partition(".")[0] for path in paths))[:9])
            raise UsageError(f"keep {pattern!r} matches no module with tensors: expected something like {children}")
        found |= inside
    return found


def trace_whole(subject: Subject, tensors: Named, decisions: Decisions, kept: set[int]) -> Trace:
    """Run the first trace: every axis of every tensor gets labels, and the rules relate or lock them.

    Errors: UsageError for a model that fails, or that runs on its values.
    """
    trace = _label(tensors, kept)
    labels = trace.labels
    for (key, axis), reason in decisions.still.items():
        labels.lock(trace.params[key][axis], reason)
    try:
        run_traced(subject, trace, decisions)
    except UsageError:
        raise
    except Exception as error:
        name, reason = type(subject.model).__name__, describe(error)
        if "meta tensor" in reason or "register_meta" in reason:
            reason = f"its forward goes by values, and a trial cut has none ({reason}): prune the part before that"
        raise UsageError(f"{name} cannot be followed on this example: {reason}") from error
    if unread := tensors.keys() - trace.read:
        read = set(trace.read)
        try:
            run_traced(subject, trace, decisions, training=True)
            trace.trained = bool(unread & trace.read)
        except Exception:  # it may want targets, or more than one example
            trace.read = read
    for key in tensors.keys() - trace.read:
        for ids in trace.params[key]:
            labels.lock(ids, "not used by this forward")
    _tie_named(trace, decisions)
    labels.finish()
    return trace


def _label(tensors: Named, kept: set[int]) -> Trace:
    """Give labels to every axis of every tensor, and lock those that are kept."""
    labels = Labels()
    trace = Trace(labels=labels)
    for key, (tensor, names) in tensors.items():
        axes: Axes = tuple(labels.fresh(size) if size > 1 else None for size in tensor.shape)
        trace.params[key] = axes
        if isinstance(tensor, nn.Parameter):
            trace.parameters.add(key)
        if any(name.endswith("running_var") for name in names):
            trace.variances.add(key)
        if key in kept:
            for ids in axes:
                labels.lock(ids, "kept, as asked")
    return trace


def _tie_named(trace: Trace, decisions: Decisions) -> None:
    """Tie axes that one number of a module is the width of."""
    for place in decisions.attributes:
        axes = named_axes(trace, decisions, place)
        for ids in axes[1:]:
            if len(ids) == len(axes[0]):
                trace.labels.tie(axes[0], ids)
