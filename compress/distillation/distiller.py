"""Distillation in any training loop: a teacher for a student, without touching either."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, distributed, nn

from featherpress.compress.distillation.attaching import (
    adapter_name,
    build_term_adapters,
    check_outputs,
    check_settings,
    compiled_teacher,
    has_times,
    kept_terms,
    naming,
    over_batch,
    refuse_compiled,
    refuse_shared,
    reshard,
    teacher_shares,
    unwrap,
)
from featherpress.compress.distillation.balance import Balance
from featherpress.compress.distillation.step import Step
from featherpress.compress.distillation.taps import Gate, Tap, evaluating, level_shapes
from featherpress.compress.distillation.teachers import BoundTeacher, Outputs, TeacherOutputs, call
from featherpress.compress.distillation.terms import Features, Logits, Term
from featherpress.compress.distillation.verification import Watch
from featherpress.compress.runtime.distributed import process_count, process_index
from featherpress.errors import UsageError

logger = logging.getLogger("featherpress")

Output = Callable[[Any], Any] | tuple[Callable[[Any], Any], Callable[[Any], Any]] | None


class Distiller:
    """Teachers for a student in a training loop: what they say is compared with the student's outputs and features.

    Student and teachers stay as they are, but for hooks on modules of theirs, which do nothing outside a step, and for
    the teachers' weights, which need no gradient: both until `close`. Teachers are put into eval mode, and stay in it.
    Train the student and `parameters()`, which are the adapters'; `state_dict()` is for resuming.

    `terms` are `Logits` and `Features` by name. `example` is one batch of inputs: a mapping is the model's keywords, a
    tuple its arguments. `output` returns a model's logits, or several outputs by name, from what it returned; a pair is
    for student and teachers. `teacher_inputs` makes the teacher's inputs of the student's; with several teachers one by
    name. Several teachers are a mapping; their terms are averaged by `teacher_weights`, or with `order="sequential"`
    each teaches for its share of the training, which `step(at=...)` tells. `ramp` and `stop` are the fractions of the
    training over which terms grow from 0, and at whose end they are off. `balance` scales the whole so that its
    gradient, once terms have grown, is that share of the task's. A `placebo` keeps the losses and takes the knowledge
    out; an arm's name may be given. `teacher_moves` is for a teacher that is an average of the student. Adapters are
    drawn from `seed`.

    Losses that are means over examples (kl, dkd, fitnets, cwd, attention) are the same whether a batch comes whole or
    in accumulated parts with as many positions that count in each; those that compare over the batch (pkd, rkd, dist,
    binary) are not, which is logged here and said by `verify`. A teacher from `torch.compile` runs compiled in steps,
    unless it ran before and is tapped: its code then sees no hooks.

    Errors: `UsageError` for what cannot be compared, with both shapes; and where it could not work later.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Mapping[str, nn.Module],
        terms: Mapping[str, Term],
        *,
        example: Any,
        output: Output = None,
        teacher_inputs: Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]] | None = None,
        teacher_weights: Mapping[str, float] | None = None,
        order: Literal["mean", "sequential"] = "mean",
        ramp: float = 0.0,
        stop: float = 0.0,
        balance: float | None = None,
        placebo: str = "",
        teacher_moves: bool = False,
        seed: int = 0,
    ) -> None:
        self.student = unwrap(student)
        refuse_compiled(student)
        models = dict(teacher) if isinstance(teacher, Mapping) else {"teacher": teacher}
        check_settings(models, order=order, ramp=ramp, stop=stop, balance=balance, teacher_inputs=teacher_inputs)
        self.terms = kept_terms(terms, models, placebo)
        self.order, self.ramp, self.stop, self.placebo = order, ramp, stop, placebo
        self.weights = teacher_shares(models, teacher_weights)
        self.balance = None if balance is None else Balance(balance)
        ours, theirs = output if isinstance(output, tuple) else (output, output)
        self.name_outputs = naming(ours, self.terms)
        refuse_shared(self.student, {name: unwrap(model) for name, model in models.items()})
        self.teachers = {
            name: BoundTeacher(
                unwrap(model),
                inputs=teacher_inputs.get(name) if isinstance(teacher_inputs, Mapping) else teacher_inputs,
                name_outputs=naming(theirs, self.terms),
                compiled=compiled_teacher(name, model, self.terms),
            )
            for name, model in models.items()
        }
        self.numbers = {name: number for number, name in enumerate(self.teachers)}
        self.gate = Gate()
        self.taps: dict[str, Tap] = {}
        self.tap_keys: dict[tuple[int, str], str] = {}
        self.steps = 0
        self.current: Step | None = None
        self.closed = False
        try:
            self._tap()
            self.adapters = self._try(example, seed)
        except BaseException:
            self.close()
            raise
        self.watch = Watch(self.student, self.teachers, self.adapters, self.taps, moves=teacher_moves)
        for sentence in () if process_index() else over_batch(self.terms):
            logger.warning("%s", sentence)
        self._queued = False
        for weight in self.adapters.parameters():
            weight.register_hook(lambda _gradient, weight=weight: self.watch.precede(weight))  # type: ignore[no-untyped-call, unused-ignore]
            weight.register_post_accumulate_grad_hook(self._average_later)  # type: ignore[no-untyped-call, unused-ignore]

    def step(
        self,
        inputs: Any = None,
        *,
        at: float | None = None,
        teacher_outputs: TeacherOutputs | Mapping[str, TeacherOutputs] | Tensor | None = None,
        factors: Mapping[str, float] | None = None,
    ) -> Step:
        """Begin a step: the teachers run on the inputs, then the student inside the `with` block, once.

        `at` is the fraction of the training that is done. `teacher_outputs` takes what was computed before in place of
        running the teachers: logits, or all that terms need. `factors` are a schedule of your own: terms that are
        missing are off.
        """
        if self.closed:
            raise UsageError("this Distiller is closed: its hooks are gone; make another one")
        if self.current is not None:
            raise UsageError("a step of this Distiller is open already; steps do not nest")
        if at is not None and not 0 <= at <= 1:
            raise UsageError(f"`at` is the fraction of the training done, from 0 to 1, got {at}")
        unknown = sorted(set(factors or ()) - set(self.terms))
        if unknown:
            raise UsageError(f"`factors` has {unknown[0]!r}, which is no term; there are {', '.join(self.terms)}")
        for name, factor in (factors or {}).items():
            if not 0 <= factor < float("inf"):
                raise UsageError(f"`factors` has {factor} for {name}; a factor is 0 or more and finite")
        scheduled = self.ramp or self.stop or self.order == "sequential" or any(map(has_times, self.terms.values()))
        if at is None and factors is None and scheduled:
            raise UsageError("terms have a schedule, so that a step needs `at`, the fraction of the training done")
        if factors is None:
            factors = {name: term.factor(at, ramp=self.ramp, stop=self.stop) for name, term in self.terms.items()}
        active = {name: factors[name] for name in self.terms if factors.get(name, 0) > 0}
        return Step(self, inputs, active=active, turns=self.turns(at), given=teacher_outputs)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the adapters' weights, for the optimizer."""
        return self.adapters.parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the adapters' weights by name."""
        return self.adapters.named_parameters()

    def state_dict(self) -> dict[str, Any]:
        """Return the adapters, the steps taken and the balance, to resume from."""
        return {
            "adapters": self.adapters.state_dict(),
            "steps": self.steps,
            "balance": self.balance.state() if self.balance else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.adapters.load_state_dict(state["adapters"])
        self.steps = state["steps"]
        if self.balance and state["balance"]:
            self.balance.restore(state["balance"])

    def verify(
        self, optimizer: torch.optim.Optimizer | None = None, *, scaler: torch.amp.GradScaler | None = None
    ) -> list[str]:
        """Check, after a backward, that the student and the adapters learn and that nothing has moved a teacher.

        `optimizer` holds both; where there are several, give none. A `scaler` skips steps whose gradients are not
        finite, which is no fault until its scale is below 1. Returns what was checked, a sentence each. It cannot
        see a loss that is scaled wrongly, a teacher that is the wrong one or was changed through `.data`, or a student
        whose gradients are not synchronised.

        Errors: `TrainingError` with one sentence on the first fault.
        """
        skips = None if scaler is None else scaler.is_enabled() and scaler.get_scale() >= 1
        return [*self.watch.verify(optimizer, skips=skips), *over_batch(self.terms)]

    def close(self) -> None:
        """Remove all hooks, and let the teachers' weights learn that did before; there are no further steps."""
        self.closed = True
        for tap in self.taps.values():
            tap.close()
        for teacher in self.teachers.values():
            teacher.close()

    def __reduce__(self) -> Any:
        raise UsageError(
            "a Distiller cannot be copied or pickled: its hooks sit on the modules of its student and teachers; make "
            "another one of copies of these, and give it this one's `state_dict()`"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def turns(self, at: float | None) -> dict[str, float]:
        """Return which teachers are asked, and with what share."""
        if self.order == "mean" or at is None:
            return self.weights
        ends = list(itertools.accumulate(self.weights.values()))
        turn = next((number for number, end in enumerate(ends) if at < end - 1e-9), len(ends) - 1)
        return {list(self.weights)[turn]: 1.0}

    def _tap(self) -> None:
        """Set the hooks on the student and on every teacher that a term is about."""
        for name, term in self.terms.items():
            if not isinstance(term, Features):
                continue
            self.taps[name] = Tap(self.student, term.student, gate=self.gate, select=term.select)
            theirs = term.select if term.teacher_select is None else term.teacher_select
            for teacher, bound in self.teachers.items():
                if term.is_about(teacher):
                    self.tap_keys[self.numbers[teacher], name] = bound.tap(term.path_in(teacher), theirs)

    def _try(self, example: Any, seed: int) -> nn.ModuleDict:
        """Run everything once, check what can be compared, and build the adapters."""
        levels, outputs, device = self._run_example(example)
        built: dict[str, nn.Module] = {}
        with torch.random.fork_rng(devices=[]):
            for teacher, number in self.numbers.items():
                said = self.teachers[teacher].ask(example, watch=True)
                # Not torch.manual_seed, which would seed the GPUs too, and nothing would give them back what they had.
                torch.default_generator.manual_seed(seed + number)
                for name, term in self.terms.items():
                    if isinstance(term, Logits) and term.is_about(teacher):
                        check_outputs(name, term, outputs, said.outputs)
                    elif isinstance(term, Features) and term.is_about(teacher):
                        theirs = level_shapes(said.features[self.tap_keys[number, name]], term.path_in(teacher))
                        ours = level_shapes(levels[name], term.student)
                        built[adapter_name(number, name)] = build_term_adapters(name, term, ours, theirs)
        adapters = nn.ModuleDict(built).to(device)
        if process_count() > 1:
            for weight in adapters.parameters():
                distributed.broadcast(weight.detach(), src=0)
        return adapters

    def _run_example(self, example: Any) -> tuple[dict[str, list[Tensor]], Outputs, torch.device]:
        self.gate.open = self.gate.watching = True
        try:
            with evaluating(self.student):
                outputs = self.name_outputs(call(self.student, example))
        finally:
            self.gate.open = self.gate.watching = False
            reshard(self.student)
        for tap in self.taps.values():
            tap.keep_from_change()
        levels = {name: tap.take() for name, tap in self.taps.items()}
        first = next(itertools.chain(itertools.chain(*levels.values()), outputs.values()), None)
        self.level_counts = {name: len(each) for name, each in levels.items()}
        return levels, outputs, torch.device("cpu") if first is None else first.device

    def _average_later(self, weight: Tensor) -> None:
        """Note that a gradient has arrived; of several processes average all of them when the backward is done."""
        self.watch.arrive(weight)
        if process_count() > 1 and not self._queued:
            self._queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self._average)

    def _average(self) -> None:
        self._queued = False
        weights = [weight for weight in self.adapters.parameters() if weight.requires_grad]
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= process_count()
        parts = torch.split(flat, [each.numel() for each in gradients])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight)
