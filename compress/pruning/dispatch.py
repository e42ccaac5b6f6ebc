"""What sees every operator of a copy: it runs, and its rule says what becomes of the labels."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.formulas import FORMULAS
from featherpress.budgets.counting.operators import facts_of
from featherpress.compress.pruning.calls import Call, answer, tensors_of, without_values
from featherpress.compress.pruning.comparing import Comparer
from featherpress.compress.pruning.labels import Axes
from featherpress.compress.pruning.products import note_work
from featherpress.compress.pruning.rules import RULES, follow_unknown, unknown
from featherpress.compress.pruning.trace import VIEWING, Record, describe
from featherpress.compress.pruning.tracing import Rule, Tracer
from featherpress.compress.pruning.widths import tie_width

#: Computes an operator: of a tracer, the operator and its arguments.
Compute = Callable[[Tracer, Any, Any, Any], Any]


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Follows labels through the operators of a copy, and notes what it sees.

    With a `comparer` it compares that with what was noted before, and goes on with what should have come out. With
    `compute`, which answers operators with values, it does neither.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        tracer: Tracer,
        stack: ModuleStack,
        *,
        comparer: Comparer | None,
        compute: Compute | None,
        training: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracer, self.stack, self.comparer, self.compute, self.training = tracer, stack, comparer, compute, training
        self.counts: Counter[tuple[str, int, str]] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        facts = facts_of(func)
        rule = RULES.get(facts.name)
        known = rule or facts.free or facts.elementwise or facts.name in FORMULAS
        if not known and isinstance(func, OpOverload):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if self.compute is None:
            args, kwargs = without_values(facts, args, kwargs)
        call = Call(func=func, args=args, kwargs=kwargs, tensors=tensors_of((args, kwargs)))
        originals = self.tracer.originals
        self.tracer.trace.read.update(originals[id(each)] for each in call.tensors if id(each) in originals)
        turn = self.stack.calls[self.stack.path]
        place = (self.stack.path, -turn if self.training else turn, facts.name)
        self.tracer.key = (*place, self.counts[place])
        self.counts[place] += 1
        return self._run(call, rule or follow_unknown)

    def _run(self, call: Call, rule: Rule) -> Any:
        """Run an operator and its rule; in a second trace, put right what comes out wrong, and note the fault."""
        tracer = self.tracer
        known = self.comparer.known if self.comparer else None
        taken = [tracer.of(each) for each in call.tensors]
        try:
            call.out = self.compute(tracer, *call.parts) if self.compute else answer(call, tracer.key[2])
        except Exception as error:
            if known is None:
                raise
            call.failure = error
        else:
            for each in call.results:
                tracer.hold(each)
            self._apply(rule, call)
        if self.comparer:
            return self.comparer.compare(call, known)
        if self.compute:
            tracer.labels.take_faults()
        else:
            self._note(call, taken)
        return call.out

    def _apply(self, rule: Rule, call: Call) -> None:
        """Let a rule follow an operator; one that fails locks what goes in."""
        try:
            rule(self.tracer, *call.parts, call.out)
        except Exception as error:
            if self.tracer.labels.checks:
                self.tracer.labels.note_fault(describe(error))
            else:
                unknown(self.tracer, *call.parts, call.out)

    def _note(self, call: Call, taken: list[Axes]) -> None:
        """Note what a first trace sees of an operator."""
        tracer, key = self.tracer, self.tracer.key
        decisions, trace = tracer.decisions, tracer.trace
        if key[2] in FORMULAS and not self.training:
            note_work(tracer, call.args, FORMULAS[key[2]](call.args, call.out))
        if key in decisions.widths or (key[0] in decisions.attention and key[2] in VIEWING):
            tie_width(tracer, call.out)
        given = [tracer.of(each) for each in call.results]
        if key in decisions.locked:
            for tensor in (*call.tensors, *call.results):
                tracer.lock(tensor, decisions.locked[key])
        trace.records[key] = Record(taken, given, [tuple(each.shape) for each in call.results], call.scalars)
        trace.arrays.extend(ids for axes in given for ids in axes if ids is not None)
