"""The oracle: in double precision, what is left computes what the original does without the channels that were cut."""

from collections.abc import Callable, Sequence
from itertools import islice
from math import isfinite, nan, prod
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from featherpress.budgets.counting.global_state import preserve_global_state
from featherpress.budgets.counting.replicas import copy_with, meta_twin, real_twin
from featherpress.budgets.counting.storage import tensors_in
from featherpress.compress.pruning.calls import in_double
from featherpress.compress.pruning.followed import Followed
from featherpress.compress.pruning.labels import Comparison
from featherpress.compress.pruning.masking import Masked
from featherpress.compress.pruning.running import run_traced
from featherpress.compress.pruning.surgery import Cut
from featherpress.compress.pruning.trace import Named, Subject, Trace

#: The largest error that is rounding, relative to the signal.
TOLERANCE = 1e-9
#: A side of an image that is as large is tried smaller: at a half, and at as much more.
_LARGE, _MORE = 96, 32
#: Below this share of the results a signal drowns in rounding.
_FAINT = 1e-5
#: Sizes of random weights, beside the root of what they add up, that are tried until a signal comes through.
_GAINS = (1.5, 2.2, 3.3)

Given = tuple[Any, Any]
Resize = Callable[[int], int]
Values = Callable[[Tensor], Tensor]


def measure_error(followed: Followed, cut: Cut) -> float:
    """Return the largest difference between the pruned model and the original with zeros for what was cut.

    It is relative to the signal between two inputs, and no number if none comes through. The weights are the model's
    own, and random ones, through which a signal is all but sure to come; sizes of images are two where the model allows
    two.
    """
    first, second = _choose_sizes(followed.subject)
    own = _compare(followed, cut, own_values, first)
    for gain in _GAINS:
        live = _compare(followed, cut, live_values(followed.space.tensors, cut, gain), second)
        if live[1]:
            return max(error for error, clear in (own, live) if clear)
    return own[0] if own[1] or own[0] >= TOLERANCE else nan


def _choose_sizes(subject: Subject) -> tuple[Resize, Resize]:
    """Find two sizes of images on which the model runs, small ones first; else the example's."""
    ways = (_half, _half_and_more, _more)
    found = islice((resize for resize in ways if _runs(subject.model, draw(subject, 1, resize))), 2)
    first, second, *_ = *found, _as_it_is, _as_it_is
    return first, second


def _half(side: int) -> int:
    return max(side // 2 // _MORE * _MORE, _MORE) if side >= _LARGE else side


def _half_and_more(side: int) -> int:
    return _half(side) + _MORE


def _more(side: int) -> int:
    return side + _MORE


def _as_it_is(side: int) -> int:
    return side


def _shape(tensor: Tensor, resize: Resize) -> tuple[int, ...]:
    """Return the shape of an input; of an image in another size."""
    if tensor.dim() == 4 and tensor.is_floating_point():
        return (*tensor.shape[:2], *map(resize, tensor.shape[2:]))
    return tuple(tensor.shape)


def draw(subject: Subject, seed: int, resize: Resize) -> Given:
    """Draw inputs like the example's, images of another size."""
    chance = torch.Generator().manual_seed(seed)

    def one(tensor: Tensor) -> Tensor:
        shape = _shape(tensor, resize)
        if tensor.is_floating_point():
            return torch.randn(shape, generator=chance, dtype=torch.float64)
        if tensor.is_meta:
            return torch.zeros(shape, dtype=tensor.dtype)
        if tensor.dtype in {torch.int64, torch.int32} and tensor.numel():
            low, high = min(int(tensor.min()), 0), max(int(tensor.max()), 1)
            return torch.randint(low, high + 1, shape, generator=chance, dtype=tensor.dtype)
        return real_twin(tensor)

    return copy_with((subject.args, dict(subject.kwargs)), one, {})


def own_values(tensor: Tensor) -> Tensor:
    """Return a tensor's values in double precision."""
    made = real_twin(tensor)
    return made.double() if made.is_floating_point() else made


def live_values(tensors: Named, cut: Cut, gain: float) -> Values:
    """Return random values for each tensor, of a size that lets signals through what is left; numbers alone stay.

    Factors and variances are about 1, biases and means about 0.
    """
    chance = torch.Generator().manual_seed(0)
    drawn: dict[int, Tensor] = {}
    for key, (tensor, names) in tensors.items():
        if not tensor.is_floating_point() or tensor.numel() < 2:
            continue
        shape = tensor.shape
        normal = torch.randn(shape, generator=chance, dtype=torch.float64)
        if tensor.dim() > 1:
            drawn[key] = normal * (gain * prod(cut.shape(tensor)[1:]) ** -0.5)
        elif names[0].endswith(("bias", "running_mean")):
            drawn[key] = normal * 0.2
        else:
            drawn[key] = torch.rand(shape, generator=chance, dtype=torch.float64) + 0.5
    return lambda tensor: drawn[id(tensor)] if id(tensor) in drawn else own_values(tensor)


def _compare(followed: Followed, cut: Cut, values: Values, resize: Resize) -> tuple[float, bool]:
    """Return the error with some values, and whether a signal came through to compare by."""
    given, other = (draw(followed.subject, seed, resize) for seed in (1, 2))
    got, second = run_pruned(followed, cut, values, given, other)
    signal, size = difference(got, second), _size(got)
    wanted = run_reference(followed, cut, values, given)
    if not (isfinite(signal) and signal > _FAINT * size):
        return difference(wanted, got) / (size or 1.0), False
    return difference(wanted, got) / signal, True


def run_pruned(followed: Followed, cut: Cut, values: Values, *inputs: Given) -> list[list[Tensor]]:
    """Run what is left of a model with some values in double precision, on each of several inputs."""
    replica = followed.build(cut, values)
    replica.eval()
    results = []
    for given in inputs:
        args, kwargs = copy_with(given, torch.clone, {})
        with preserve_global_state(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Doubled():
            torch.default_generator.manual_seed(0)
            results.append(tensors_in(replica(*args, **kwargs)))
    return results


class Doubled(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Computes in double precision where the code asks for less; what puts PyTorch's switches back stands around it."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        torch.set_default_dtype(torch.float64)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **in_double(kwargs or {}))


def _runs(model: nn.Module, given: Given) -> bool:
    """Return whether a model runs on inputs."""

    def twin(tensor: Tensor) -> Tensor:
        made = meta_twin(tensor)
        return made.double() if made.is_floating_point() else made

    fed = copy_with(given, meta_twin, {})
    replica = copy_with(model, twin, {}).eval()
    try:
        with preserve_global_state(), torch.no_grad(), torch.device("meta"), Doubled():
            replica(*fed[0], **fed[1])
    except Exception:
        return False
    return True


def run_reference(followed: Followed, cut: Cut, values: Values, given: Given) -> list[Tensor]:
    """Run the original with zeros for what was cut; what is reduced or normalised over channels is so over the rest."""
    subject = Subject(model=followed.subject.model, args=given[0], kwargs=given[1])
    trace = Trace(labels=Comparison(followed.trace.labels, followed.space.locked), params=cut.params)

    def twin(tensor: Tensor) -> Tensor:
        return cut.zeroed(tensor, values(tensor)) if id(tensor) in cut.params else own_values(tensor)

    return run_traced(subject, trace, followed.decisions, twin=twin, compute=Masked(cut))


def difference(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return the largest difference between two lists of results; infinite if their shapes differ or one is no number.

    Results that are not numbers in both, as masks, count as equal where they are.
    """
    if [each.shape for each in some] != [each.shape for each in others]:
        return float("inf")
    worst = 0.0
    for one, other in zip(some, others, strict=True):
        apart = (one.double() - other.double()).abs()
        apart = apart.masked_fill((one == other) | (one.isnan() & other.isnan()), 0)
        worst = max(worst, float(apart.max().nan_to_num(float("inf"))) if apart.numel() else 0.0)
    return worst


def _size(results: Sequence[Tensor]) -> float:
    return max((float(each.double().abs().max()) for each in results if each.numel()), default=0.0)
