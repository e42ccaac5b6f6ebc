"""What sees every operator of a forward: counted, known to cost nothing, or refused."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.books import ALSO, Books, Plan, Taken, given, tensors_of
from featherpress.budgets.counting.costs import ROOT, UNATTRIBUTED
from featherpress.budgets.counting.evidence import Evidence
from featherpress.budgets.counting.formulas import Formula
from featherpress.budgets.counting.layers import answer_layer
from featherpress.budgets.counting.memory import storage_key
from featherpress.budgets.counting.meta_kernels import CLASSES, META, META_KERNELS
from featherpress.budgets.counting.operators import ASKS, STORES_VALUES, Facts, changes_shape_with_data, facts_of
from featherpress.budgets.counting.replicas import meta_twin
from featherpress.budgets.counting.values import shrunk, sized
from featherpress.errors import CountError

#: Operators that give values to Python, or do as much as values say.
READS_VALUES = STORES_VALUES | {"aten::_local_scalar_dense", "aten::equal", "aten::_pack_padded_sequence"}
#: How many results as large as values say are followed without values: a loop over the largest has no end.
MOST_SIZES = 256
#: Ways by which values leave for libraries below which no operator is seen.
_LIBRARIES = frozenset({"numpy", "dlpack"})
#: Who takes the address of a tensor works where nothing is seen.
_hide_address = torch._C._set_throw_on_mutable_data_ptr


class CountingMode(TorchDispatchMode, Books):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Sees each operator and books what it costs.

    On meta tensors common operators are answered without PyTorch's own, general kernels.
    """

    #: Operators that take functions come to us as they are, to be refused like any other without a formula.
    supports_higher_order_operators = True

    def __init__(
        self,
        table: Mapping[str, Formula],
        stack: ModuleStack,
        model: nn.Module,
        parameters: dict[int, int],
        *,
        method: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        Books.__init__(self, stack, parameters)
        self.table = table
        self.model = model
        self.method, self.on_meta, self.has_values = method, method == "meta", method == "real"
        self.plans: dict[int, Plan] = {}
        #: How operators get here; where they do otherwise, layers run as they are. None: they always do.
        self.state: tuple[Any, ...] | None = None
        #: Storages that no operator may write to.
        self.protected: set[int] = set()
        #: The size asked for where values say it, and the results that were as large as they say.
        self.size: int | None = None
        self.sizes: list[Any] = []
        self.macs_before = 0
        self.value_dependent: dict[str, str] = {}
        #: What is known of work after such results, and what else a reader of the numbers has to know.
        self.dependence = "no core work follows it"
        self.notes: list[str] = []
        #: In a real run, what tells of work that no operator did.
        self.evidence: Evidence | None = None
        #: Tensors on meta that were made of numbers, by storage.
        self.constants: dict[int, Tensor] = {}
        #: How values got out of the tensors, each a sentence: the forward may depend on them.
        self.value_escapes: dict[str, str] = {}
        #: The library that values left for.
        self.left = ""
        self.refusal: CountError | None = None
        #: Why a count on these tensors cannot go on, though one on others may.
        self.failure: Exception | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Be called as it is: nothing compiles here, and to guard each call against it takes as long as the call."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if types and self.method != "fake" and not CLASSES.issuperset(types):
            # A class of tensors with operators of its own says what it does, and we see that.
            return NotImplemented
        plan = self.plans.get(id(func)) or self._plan(func)
        facts, formula, meta_kernel, _ = plan
        kwargs = kwargs or {}
        if not (formula or facts.free or facts.elementwise):
            if facts.name in ASKS:
                return func(*args, **kwargs)
            with self:
                out = func.decompose(*args, **kwargs) if isinstance(func, OpOverload) else NotImplemented
            return self._refuse(facts.name) if out is NotImplemented else out
        if facts.makes and self.on_meta:
            kwargs = {**kwargs, "device": META}
        tensors = given(facts, args, kwargs)
        keys = self._read(facts, tensors, args, kwargs)
        if self.evidence:
            self.evidence.reads(facts, tensors, keys)
        out = meta_kernel(args, kwargs) if meta_kernel else None
        if out is None:
            out = self._run(func, facts, tensors, args, kwargs)
        results = self._write(plan, self.stack.path, (args, tensors, keys), out)
        if self.evidence:
            self.evidence.writes(facts, results, keys)
        return out

    def answer(self, module: nn.Module, x: Any, path: str, usual: set[Any]) -> Tensor | None:
        """Count a call of a layer of PyTorch's without running it; None where its forward has to run."""
        answer = answer_layer(module, x, self.state, usual) if self.state else None
        if answer is None:
            return None
        for operator, args, tensors, out in answer[1]:
            plan = self.plans.get(id(operator)) or self._plan(operator)
            keys = self.read(plan.facts.name, tensors)
            if plan.facts.mutates and not self.protected.isdisjoint(keys):
                return None  # the operator will be refused where it arrives alone
            self._write(plan, path, (args, tensors, keys), out)
        return answer[0]

    def _read(self, facts: Facts, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> list[int]:
        """Note what an operator is given; return the storages."""
        keys = self.read(facts.name, tensors)
        if facts.mutates and not self.protected.isdisjoint(keys):
            self._refuse_writing(facts, args, kwargs)
        return keys

    def _write(self, plan: Plan, path: str, taken: Taken, out: Any) -> list[Tensor]:
        """Book an operator; list the tensors of its result."""
        results = self.write(plan, path, taken, out)
        for tensor in results if not self.has_values else ():
            _hide_address(tensor)
        return results

    def _run(self, func: Any, facts: Facts, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        """Let PyTorch answer; a result as large as values say may be asked for in another size."""
        changes = facts.dynamic and changes_shape_with_data(facts, args)
        out = sized(func, facts.name, args, kwargs, self.size) if changes and self.on_meta else None
        if out is None:
            if self.on_meta and len({tensor.is_meta for tensor in tensors}) > 1:
                args, kwargs = self._without_values(func, args, kwargs)
            try:
                out = func(*args, **kwargs)
            except Exception as error:
                self.fail(error)
                raise
            if changes and self.size is not None and not self.on_meta:
                out = shrunk(out, args, facts.name, self.size)
        if changes:
            if not self.value_dependent:
                self.macs_before = sum(self.macs.values())
            self.value_dependent.setdefault(facts.name, self._place())
            if self.on_meta and len(self.sizes) == MOST_SIZES:
                self.failure = RuntimeError("a loop as long as data-dependent sizes, which are the largest on meta")
                raise self.failure
            self.sizes.append([list(tensor.shape) for tensor in tensors_of((out,))])
        return out

    def _plan(self, func: Any) -> Plan:
        facts = facts_of(func)
        if self.has_values and facts.name in READS_VALUES:
            sparse = "stores as much as values say: where products follow, another input costs otherwise"
            read = "reads a value: where the forward goes another way by it, another input costs otherwise"
            self.note_values(facts.name, sparse if facts.name in STORES_VALUES else read)
        meta_kernel = (META_KERNELS.get(func) or META_KERNELS.get(facts.name)) if self.on_meta else None
        plan = self.plans[id(func)] = Plan(facts, self.table.get(facts.name), meta_kernel, ALSO.get(facts.name))
        return plan

    def note_escape(self, way: str, has_values: bool) -> None:
        """Note that values leave by a method of tensors; what is done at an address is done unseen.

        Errors: RuntimeError where there are no values, which ends the step also if the model catches that.
        """
        if way == "data_ptr":
            self.refuse(
                f"the address of a tensor is taken in {self._place()} (data_ptr): what is done there is not seen"
            )
        if self.method == "fake" or not has_values:
            self.failure = self.failure or RuntimeError(f"{way} asks for values that meta tensors do not have")
            raise self.failure
        self.note_values(way, "takes values out of torch: work on them there is not counted")
        if way in _LIBRARIES:
            self.left = way

    def note_constant(self, tensor: Tensor) -> None:
        """Note a tensor that is made of numbers, which no operator does."""
        if self.evidence:
            self.evidence.known.add(storage_key(tensor))
        elif tensor.is_meta:
            self.constants[storage_key(tensor)] = tensor

    def note_arrival(self, tensor: Tensor) -> None:
        """Refuse values that come back from another library."""
        if self.left:
            self.refuse(
                f"values leave for {self.left} and others come back in {self._place()}: the work that was done there "
                "is not seen"
            )

    def note_thread(self, name: str) -> None:
        """Note an operator that runs where none is seen."""
        self.refusal = self.refusal or CountError(
            f"{name} runs in a thread of its own, where operators are not seen: count a model that works in the thread "
            "of its forward"
        )

    def refuse(self, sentence: str) -> Any:
        """Refuse the count, also where the model would catch that; the first reason is the one that is told."""
        self.refusal = self.refusal or CountError(sentence)
        raise self.refusal

    def fail(self, error: Exception) -> None:
        """Give up a count without values, also where the model would catch that: its forward may go another way."""
        if not self.has_values:
            self.failure = self.failure or error

    def note_values(self, name: str, what: str) -> None:
        """Note, once a way, that values leave the tensors."""
        self.value_escapes.setdefault(name, f"{name} in {self._place()} {what}")

    def _without_values(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Give an operator that meets meta tensors twins of those with values; refuse to write to one of these."""
        if not all(tensor.is_meta for tensor in _written(facts_of(func), args, kwargs)):
            self.failure = RuntimeError(
                f"{func} writes values that meta tensors do not have into a tensor that has values"
            )
            raise self.failure
        twins = tree_map_only(Tensor, lambda tensor: tensor if tensor.is_meta else meta_twin(tensor), (args, kwargs))
        return twins[0], twins[1]

    def _place(self) -> str:
        path = self.stack.path
        module = self.model if path in {"", UNATTRIBUTED} else self.model.get_submodule(path)
        kind = module.__class__.__name__  # what stands for a layer says that it is one
        return f"{path or ROOT} ({kind})"

    def _refuse_writing(self, facts: Facts, args: Any, kwargs: Any) -> None:
        """Refuse to write to a tensor that is not of the copy."""
        if any(storage_key(tensor) in self.protected for tensor in _written(facts, args, kwargs)):
            self.refuse(
                f"{facts.name} in {self._place()} writes to a tensor outside the copy that is counted (of the model "
                "itself, or a global): keep what forward writes in the module"
            )

    def _refuse(self, name: str) -> Any:
        remedy = f'give its formula (--formula "{name}=...", or formulas={{"{name}": formula}} from Python), or '
        return self.refuse(
            f"no formula for operator {name} in module {self._place()}: expected one that is counted or known to cost "
            f"nothing; {remedy}count the model without this module"
        )


def see_higher_order() -> None:
    """Register the mode with each operator that takes functions: PyTorch before 2.9 asks for no less."""
    if hasattr(TorchDispatchMode, "supports_higher_order_operators"):
        return
    for operator in list(torch._ops._higher_order_ops.values()):
        operator.python_key_table.setdefault(CountingMode, partial(_as_it_is, operator))


def _as_it_is(operator: Any, mode: CountingMode, *args: Any, **kwargs: Any) -> Any:
    return mode.__torch_dispatch__(operator, [], args, kwargs)


def _written(facts: Facts, args: Any, kwargs: Any) -> list[Tensor]:
    """List the tensors that an operator writes to."""
    return tensors_of(args[place] if place < len(args) else kwargs.get(name) for place, name in facts.mutates)
