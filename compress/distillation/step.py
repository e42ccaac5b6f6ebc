"""One step of a Distiller: the teachers' answers, the student's features, and the loss between them."""

import itertools
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from featherpress.compress.distillation.attaching import adapter_name
from featherpress.compress.distillation.balance import gradient_ratio
from featherpress.compress.distillation.comparing import Pair, adapt_levels, kept_positions, pair_features, pair_outputs
from featherpress.compress.distillation.placebos import shuffled, smoothed
from featherpress.compress.distillation.teachers import Outputs, TeacherOutputs, plain
from featherpress.compress.distillation.terms import Features, Logits
from featherpress.errors import UsageError

if TYPE_CHECKING:
    from featherpress.compress.distillation.distiller import Distiller


class Step:
    """One step of a Distiller: run the student inside the `with` block, once, then take `loss`.

    `parts` are the weighted terms by name, detached, once there is a loss.
    """

    def __init__(
        self, kd: "Distiller", inputs: Any, *, active: Mapping[str, float], turns: Mapping[str, float], given: Any
    ) -> None:
        self.kd, self.active = kd, active
        terms = [kd.terms[name] for name in active]
        self.turns = {name: share for name, share in turns.items() if any(term.is_about(name) for term in terms)}
        self.parts: dict[str, Tensor] = {}
        self.levels: dict[str, list[Tensor]] = {}
        self.answers = self._answers(inputs, given)
        self._sum: Tensor | None = None
        self._done = False
        self._eager: AbstractContextManager[None] | None = None

    def __enter__(self) -> Self:
        kd = self.kd
        if kd.current is not None:
            raise UsageError("a step of this Distiller is open already; steps do not nest")
        for tap in kd.taps.values():
            tap.forget()
        kd.current, kd.gate.open = self, bool(self.active)
        if kd.balance and kd.balance.due(kd.steps) and "torch._dynamo" in sys.modules:
            self._eager = torch.compiler.set_stance("force_eager")
            self._eager.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        kd = self.kd
        kd.current, kd.gate.open = None, False
        if self._eager is not None:
            self._eager.__exit__(None, None, None)
        try:
            if kind is None:
                self._check_taps()
                self.levels = {name: self._take(name) for name in kd.taps if name in self.active}
                self._done = True
                kd.watch.begin()
        finally:
            for tap in kd.taps.values():
                tap.forget()

    def loss(self, outputs: Any = None, *, task: Tensor | None = None, **context: Any) -> Tensor:
        """Return the sum of all weighted terms, a scalar.

        `outputs` is what the student returned. `context` is what losses ask for by name: labels, masks, boxes. `task`
        is the task's loss, which `balance` needs.

        Errors: `UsageError` for a second call, for context that a loss needs, and for what the student in training gave
        without gradient.
        """
        kd = self.kd
        if self._sum is not None:
            raise UsageError("a step has one loss; begin another step for another forward")
        if not self._done:
            raise UsageError("a step's loss is taken after its `with` block, in which the student ran")
        kd.watch.spend()
        ours = {} if outputs is None else kd.name_outputs(outputs)
        tensors = [*itertools.chain(*self.levels.values())] or list(ours.values())
        self._tensors = [tensor for tensor in tensors if tensor.requires_grad]
        device = next(iter(tensors), torch.zeros(())).device
        with torch.autocast(device.type, enabled=False):
            sums = dict[str, Tensor]()
            for name, weight, pairs in self._pairs(ours, context):
                compute = kd.terms[name].entry.function
                values = [share * compute(student, teacher, **keywords) for share, student, teacher, keywords in pairs]
                value = weight * (torch.stack(values).sum() / sum(pair.share for pair in pairs))
                sums[name] = sums[name] + value if name in sums else value
        kd.steps += 1
        self.parts = {name: value.detach() for name, value in sums.items()}
        total = sum(sums.values(), torch.zeros((), device=device))
        if kd.balance is not None:
            if task is None:
                raise UsageError("`balance` needs the task's loss: step.loss(outputs, task=loss, ...)")
            if sums and self._tensors and torch.is_grad_enabled():
                if not task.requires_grad:
                    raise UsageError("`balance` measures the gradient of the task's loss, and `task` has none")
                whole = sum((value / self.active[name] for name, value in sums.items()), torch.zeros_like(total))
                kd.balance.update(kd.steps - 1, whole, task, self._tensors)
            total = kd.balance.factor * total
        self._sum = total
        if sums:
            kd.watch.follow(total)
        return total

    def gradient_ratio(self, task: Tensor) -> float:
        """Return the ratio of distillation's gradient norm to the task's, at the taps or else at the outputs.

        Call it after `loss` and before the backward.
        """
        assert self._sum is not None
        return gradient_ratio(self._sum, task, self._tensors)

    def _pairs(self, ours: Outputs, context: Mapping[str, Any]) -> Iterator[tuple[str, float, list[Pair]]]:
        """Yield every term with its weight and what it compares, for each teacher whose turn it is."""
        for teacher, share in self.turns.items():
            for name, factor in self.active.items():
                term = self.kd.terms[name]
                if term.is_about(teacher):
                    pairs = self._pair((self.kd.numbers[teacher], name), ours, self.answers[teacher], context)
                    yield name, factor * term.weight * (1.0 if term.of else share), pairs

    def _answers(self, inputs: Any, given: Any) -> dict[str, TeacherOutputs]:
        """Return what the teachers say whose turn it is: what was given, or else what they answer now."""
        kd = self.kd
        given = given if isinstance(given, Mapping) else {} if given is None else {next(iter(kd.teachers)): given}
        unknown = sorted(set(given) - set(kd.teachers))
        if unknown:
            raise UsageError(f"`teacher_outputs` has {unknown[0]!r}; the teachers are {', '.join(kd.teachers)}")
        if inputs is None and set(self.turns) - set(given):
            raise UsageError("a step needs the inputs, or the outputs of every teacher that is asked")
        found = {
            name: given_outputs(given[name]) if name in given else kd.teachers[name].ask(inputs) for name in self.turns
        }
        return {name: shuffled(each) for name, each in found.items()} if kd.placebo == "shuffled" else found

    def _check_taps(self) -> None:
        """Tell a student that did not run, or whose hooks nobody calls, from a module that did not."""
        taps = self.kd.taps.values()
        if self.active and taps and all(len(tap.missing) == len(tap.modules) for tap in taps):
            raise UsageError(
                f"no tap caught anything in this step ({next(iter(taps)).path!r} and others): the student did not run "
                "inside the block, or ran compiled before the Distiller was made; make the Distiller before the first "
                "compiled call"
            )

    def _take(self, name: str) -> list[Tensor]:
        """Return the levels that the student's tap caught."""
        kd, tap = self.kd, self.kd.taps[name]
        levels = tap.take()
        if len(levels) != kd.level_counts[name]:
            raise UsageError(
                f"{name}: the student's tap caught {len(levels)} levels, the example gave {kd.level_counts[name]}; a "
                "step is one forward of the student"
            )
        return levels

    def _pair(
        self, which: tuple[int, str], ours: Outputs, answers: TeacherOutputs, context: Mapping[str, Any]
    ) -> list[Pair]:
        """Return what a term compares for a teacher, by the teacher's number and the term's name."""
        (number, name), term = which, self.kd.terms[which[1]]
        given = {key: each for key, each in context.items() if key != "mask" and term.entry.takes(key)}
        keywords = term.options | given
        if "outputs" in term.entry.context:
            keywords["outputs"] = (ours, answers.outputs)
        missing = sorted(term.entry.required - set(keywords))
        if missing:
            raise UsageError(f"{name}: {term.entry.name} needs {missing[0]}: step.loss(outputs, {missing[0]}=...)")
        if isinstance(term, Logits):
            if self.kd.placebo == "smoothing":
                kept = kept_positions(term, answers.outputs["logits"], context)
                answers = smoothed(answers, context, kept=kept)
            pair = pair_outputs(name, term, ours, answers.outputs, keywords=keywords, context=context)
            if self._stuck([pair.student]):
                raise UsageError(
                    f"{name}: no gradient reaches the student through the outputs that step.loss was given; give what "
                    "the student returned, not detached, nor made without gradient"
                )
            return [pair]
        assert isinstance(term, Features)
        student = self._adapted(number, name, term)
        key = self.kd.tap_keys[number, name]
        if key not in answers.features:
            raise UsageError(f"{name}: `teacher_outputs` has no features {key!r}; give TeacherOutputs, or none")
        return pair_features(name, term, student, answers.features[key], keywords=keywords, mask=context.get("mask"))

    def _stuck(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the student, which is in training, learns nothing through tensors of its."""
        training = torch.is_grad_enabled() and self.kd.student.training
        return training and not any(tensor.requires_grad for tensor in tensors)

    def _adapted(self, number: int, name: str, term: Features) -> list[Tensor]:
        """Return the student's levels as they are compared with a teacher's of a number."""
        kd, levels, adapter = self.kd, self.levels[name], adapter_name(number, name)
        if self._stuck(levels):
            raise UsageError(
                f"{name}: no gradient reaches the student through {term.student!r}: it is frozen, or lies inside a "
                "reentrant checkpoint; tap another module, or checkpoint with use_reentrant=False"
            )
        kd.watch.use(adapter)
        seed = zlib.crc32(f"{number} {name} {kd.steps}".encode())
        return adapt_levels(term, kd.adapters[adapter], levels, seed=seed)


def given_outputs(outputs: TeacherOutputs | Tensor) -> TeacherOutputs:
    """Return outputs computed before, or logits alone, without gradient and as autograd may save them."""
    if isinstance(outputs, Tensor):
        outputs = TeacherOutputs(outputs={"logits": outputs}, features={})
    return outputs.filled([plain(tensor.detach()) for tensor in outputs.tensors()])
