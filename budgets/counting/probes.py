"""Whether a count holds for other values: more runs of the copy, each changed in one way."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from re import sub
from typing import Any

import torch
from torch import Tensor, nan, nn

from featherpress.budgets.counting.dispatch import CountingMode
from featherpress.budgets.counting.forward import Run, Subject, Variation, run_forward
from featherpress.budgets.counting.layers import LAYERS
from featherpress.budgets.counting.surroundings import Surroundings
from featherpress.budgets.counting.tensors import TensorRows
from featherpress.budgets.counting.values import NoAnswer, differ

#: Runs on other values that must cost the same before work is called fixed: few could do so by chance.
DRAWS = 4
_LARGEST = ", and memory is of the largest"
#: In the names of switches between a fused operator and its parts.
_FUSED = ("fused", "flash", "sdpa")
_Try = Callable[[Variation], Run | None]


def verify(subject: Subject, run: Run, rows: TensorRows, surroundings: Surroundings) -> None:
    """Run again what may depend on values or be done unseen; notes go to the run's mode.

    Errors: CountError if it does, NoAnswer if tensors without values cannot tell.
    """
    mode = run.mode

    def attempt(variation: Variation) -> Run | None:
        surroundings.generators.put_back()
        try:
            return run_forward(subject, mode.method, rows, surroundings, variation)
        except Exception:
            return None

    if mode.value_dependent and _total(mode) != mode.macs_before:
        _check_sizes(mode, rows, attempt)
    elif mode.on_meta:
        mode.dependence += _LARGEST
    if mode.evidence:
        _check_unread(run, rows, attempt)
        _check_zeros(subject, mode, attempt)
    elif mode.method == "meta":
        _note_paths(subject, mode, attempt)


def _check_sizes(mode: CountingMode, rows: TensorRows, attempt: _Try) -> None:
    """Find out whether core work follows the sizes that values give: as with others, or with other values."""
    tried = (attempt(Variation(size=size)) for size in (0, 1))
    other = next((found for found in tried if found and found.mode.sizes != mode.sizes), None)
    if other and other.mode.macs == mode.macs:
        mode.dependence = f"no core work depends on it{mode.on_meta * _LARGEST}"
        return
    culprit, place = next(iter(mode.value_dependent.items()))
    sentence = (
        f"core work depends on {culprit} in {place}, whose result's shape depends on values, so one count would not "
        "hold for other inputs: count the part of the model before it"
    )
    if mode.on_meta:
        raise NoAnswer(sentence)
    runs = [mode]
    for seed in range(DRAWS):
        draw = attempt(Variation(change=_redraw(seed)))
        if draw is None or _total(draw.mode) != _total(mode):
            mode.refuse(sentence)
        else:
            runs.append(draw.mode)
    if not _vary((run.sizes, run.macs) for run in runs):
        mode.refuse(sentence)
    mode.dependence = f"its sizes differ with values, and the sum of the work does not ({DRAWS} other draws)"
    if _vary(run.macs for run in runs):
        mode.dependence += "; which modules do it depends on values"
    shares = [run.weight_macs for run in (*runs, *([other.mode] if other else []))]
    routed = {key for key in rows.names if _vary(share[key] for share in shares)}
    # An expert that no value chose is one like its siblings.
    kinds = {_kind(name) for key in routed for name in rows.names[key]}
    idle = {key: names for key, names in rows.names.items() if not any(share[key] for share in shares)}
    mode.routed |= routed | {key for key, names in idle.items() if kinds & set(map(_kind, names))}


def _kind(name: str) -> str:
    """Return a path without its numbers, by which experts differ."""
    return sub(r"\d+", "#", name)


def _total(mode: CountingMode) -> int:
    return sum(mode.macs.values())


def _vary(values: Iterable[Any]) -> bool:
    first, *others = values
    return any(each != first for each in others)


def _redraw(seed: int) -> Callable[[nn.Module, Sequence[Tensor]], None]:
    """Give a copy and its inputs other values."""

    def change(model: nn.Module, fed: Sequence[Tensor]) -> None:
        dice = torch.Generator().manual_seed(seed)
        for tensor in (*model.parameters(), *fed):
            if tensor.is_floating_point() and tensor.dim() > 1:
                tensor.data.copy_(torch.randn(tensor.shape, generator=dice))
            elif tensor.dtype == torch.int64 and not tensor.any():  # tokens that stand for others
                tensor.copy_(torch.randint(2, tensor.shape, generator=dice))

    return change


def _check_unread(run: Run, rows: TensorRows, attempt: _Try) -> None:
    """Spoil what no operator reads: if the output changes, something unseen reads it."""
    mode, evidence = run.mode, run.mode.evidence
    assert evidence is not None
    names = [name for key, names in rows.names.items() if key not in mode.readers for name in names]
    names = [name for name in names if mode.stack.calls.get(name.rpartition(".")[0])]
    dead = evidence.dead | set(evidence.unread.values())
    if not names and not dead:
        return

    def spoil(model: nn.Module, fed: Sequence[Tensor]) -> None:
        for name in names:
            if (parameter := model.get_parameter(name)).is_floating_point():
                parameter.data.fill_(nan)

    spoilt = attempt(Variation(change=spoil, poison=dead))
    if spoilt and differ(run.results, spoilt.results):
        what = ", ".join(names[:3]) or "the result of an operator"
        mode.refuse(f"no operator reads {what}, and yet the output depends on it: part of the work is done unseen")


def _check_zeros(subject: Subject, mode: CountingMode, attempt: _Try) -> None:
    """Where a forward reads values of inputs that are all zero, see that others cost the same."""
    if not mode.value_escapes and not mode.value_dependent:
        return

    def fill(model: nn.Module, fed: Sequence[Tensor]) -> None:
        if any(tensor.any() for tensor in fed):
            raise ValueError("the values are given")
        for number, tensor in enumerate(fed):
            dice = torch.Generator().manual_seed(number)
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=dice))
            else:
                tensor.fill_(1)

    other = attempt(Variation(change=fill))
    if other and _total(other.mode) != _total(mode):
        mode.refuse(
            f"{subject.name} does other work where its inputs are not all zero ({_total(other.mode):,} MACs for "
            f"{_total(mode):,}): feed it values that it meets"
        )


def _note_paths(subject: Subject, mode: CountingMode, attempt: _Try) -> None:
    """Count the other way too, where modules have a switch between a fused operator and its parts."""
    switches = list(_switches([module for _, module in subject.tree]))
    if not switches:
        return

    def turn(model: nn.Module, fed: Sequence[Tensor]) -> None:
        for module, name, value in _switches(list(model.modules())):
            setattr(module, name, not value)

    other = attempt(Variation(change=turn))
    if other and other.mode.macs != mode.macs:
        _, name, value = switches[0]
        mode.notes.append(f"{name} is {value}: the other way costs {_total(other.mode):,} MACs")


def _switches(modules: Sequence[nn.Module]) -> Iterator[tuple[nn.Module, str, bool]]:
    held = set().union(*(vars(module) for module in modules if type(module) not in LAYERS))
    names = sorted(name for name in held if any(word in name for word in _FUSED))
    for module in modules if names else ():
        for name in names:
            if type(value := vars(module).get(name)) is bool:
                yield module, name, value
