"""What sees every operator of a forward: counted, known to cost nothing, or refused."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import ref

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from featherpress.budgets.counting.attribution import ModuleStack
from featherpress.budgets.counting.costs import ROOT, UNATTRIBUTED
from featherpress.budgets.counting.formulas import Formula
from featherpress.budgets.counting.memory import Lifetimes, storage_key
from featherpress.budgets.counting.meta_kernels import META, META_KERNELS, MetaKernel
from featherpress.budgets.counting.operators import Facts, changes_shape_with_data, facts_of
from featherpress.budgets.counting.replicas import meta_twin
from featherpress.errors import CountError

#: Operators that give values to Python.
READS_VALUES = frozenset({"aten::_local_scalar_dense", "aten::equal"})
#: What hands a tensor's values to other libraries, below which no operator is seen.
VALUE_ESCAPES = {Tensor.numpy: "numpy", Tensor.__array__: "numpy", Tensor.__dlpack__: "dlpack", Tensor.tolist: "tolist"}


#: What an operator is, what counts it and what answers it on meta tensors, where there is either.
_Plan = tuple[Facts, Formula | None, MetaKernel | None]


class CountingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Adds up what each operator costs, by the module that runs.

    `parameters` maps a storage of the copy to the id of the original's parameter. On meta tensors common operators are
    answered without PyTorch's own, general kernels.
    """

    #: Operators that take functions come to us as they are, to be refused like any other without a formula.
    supports_higher_order_operators = True

    def __init__(
        self,
        table: Mapping[str, Formula],
        stack: ModuleStack,
        model: nn.Module,
        parameters: Mapping[int, int],
        *,
        method: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.stack = stack
        self.model = model
        self.parameters = parameters
        self.method, self.on_meta, self.has_values = method, method == "meta", method == "real"
        self.plans: dict[int, _Plan] = {}
        self.macs: Counter[tuple[str, str]] = Counter()
        self.elementwise: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[str] = Counter()
        self.readers: defaultdict[int, set[str]] = defaultdict(set)
        self.lifetimes = Lifetimes()
        #: Storages that no operator may write to, and all tensors that operators made.
        self.protected: set[int] = set()
        self.made: list[ref[Tensor]] = []
        self.value_dependent: dict[str, str] = {}
        #: Parameters that operators read and the model does not name: elements by storage.
        self.foreign_params: dict[int, int] = {}
        #: How values got out of the tensors, each a sentence: the forward may depend on them.
        self.value_escapes: dict[str, str] = {}
        self.refusal: CountError | None = None
        #: Why a count on these tensors cannot go on, though one on others may.
        self.failure: RuntimeError | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Be called as it is: nothing compiles here, and to guard each call against it takes as long as the call."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if types and self.method != "fake":
            # A class of tensors with operators of its own says what it does, and we see that.
            return NotImplemented
        facts, formula, meta_kernel = self.plans.get(id(func)) or self._plan(func)
        kwargs = kwargs or {}
        if not (formula or facts.free or facts.elementwise):
            with self:
                out = func.decompose(*args, **kwargs) if isinstance(func, OpOverload) else NotImplemented
            return self._refuse(facts.name) if out is NotImplemented else out
        if facts.makes and self.on_meta:
            kwargs = {**kwargs, "device": META}
        tensors = _tensors([*(args[place] for place in facts.places if place < len(args)), *kwargs.values()])
        keys = self._note_reads(facts.name, tensors)
        if facts.mutates and not self.protected.isdisjoint(keys):
            self._refuse_writing(facts, args, kwargs)
        out = meta_kernel(args, kwargs) if meta_kernel else None
        if out is None:
            if self.on_meta and len({tensor.is_meta for tensor in tensors}) > 1:
                args, kwargs = self._without_values(func, args, kwargs)
            out = func(*args, **kwargs)
        path = self.stack.path
        self.calls[facts.name] += 1
        results = [out] if type(out) is Tensor else _tensors((out,))
        if formula:
            macs = int(formula(args, out))
            if self.value_dependent:
                self._refuse_after_values(facts.name)
            self.macs[path, facts.name] += macs
            if facts.name == "torchvision::deform_conv2d":
                self.elementwise[path, facts.name] += _sampled(args, out)
        elif facts.elementwise:
            self.elementwise[path, facts.name] += max([t.numel() for t in tensors + results], default=0)
        if facts.writes:
            self.lifetimes.write(results, keys, path)
            self.made.extend(map(ref, results))
        if facts.dynamic and changes_shape_with_data(facts, args):
            self.value_dependent.setdefault(facts.name, self._place())
        return out

    def _plan(self, func: Any) -> _Plan:
        facts = facts_of(func)
        if self.has_values and facts.name in READS_VALUES:
            self.note_values(
                facts.name, "reads a value: where the forward goes another way by it, another input costs otherwise"
            )
        meta_kernel = (META_KERNELS.get(func) or META_KERNELS.get(facts.name)) if self.on_meta else None
        plan = self.plans[id(func)] = facts, self.table.get(facts.name), meta_kernel
        return plan

    def _note_reads(self, name: str, tensors: Sequence[Tensor]) -> list[int]:
        """Note who reads which parameter, and how long other tensors live; return the storages of all."""
        parameters, lifetimes = self.parameters, self.lifetimes
        lifetimes.clock += 1
        keys = []
        for tensor in tensors:
            key = storage_key(tensor)
            keys.append(key)
            parameter = parameters.get(key)
            if parameter is None:
                lifetimes.read(key)
                if type(tensor) is nn.Parameter:
                    self.foreign_params[key] = tensor.numel()
                continue
            self.readers[parameter].add(name)
        return keys

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
        kind = type(self.model if path in {"", UNATTRIBUTED} else self.model.get_submodule(path)).__name__
        return f"{path or ROOT} ({kind})"

    def _refuse_after_values(self, name: str) -> Any:
        """Refuse core work whose amount depends on values."""
        culprit, place = next(iter(self.value_dependent.items()))
        self.refusal = self.refusal or CountError(
            f"{name} in {self._place()} comes after {culprit} in {place}, whose result's shape depends on values, "
            "so one count would not hold for other inputs: count the part of the model before it"
        )
        raise self.refusal

    def _refuse_writing(self, facts: Facts, args: Any, kwargs: Any) -> None:
        """Refuse to write to a tensor that is not of the copy."""
        if any(storage_key(tensor) in self.protected for tensor in _written(facts, args, kwargs)):
            self.refusal = self.refusal or CountError(
                f"{facts.name} in {self._place()} writes to a tensor outside the copy that is counted (of the model "
                "itself, or a global): keep what forward writes in the module"
            )
            raise self.refusal

    def _refuse(self, name: str) -> Any:
        remedy = f'give its formula (--formula "{name}=...", or formulas={{"{name}": formula}} from Python), or '
        self.refusal = self.refusal or CountError(
            f"no formula for operator {name} in module {self._place()}: expected one that is counted or known to cost "
            f"nothing; {remedy}count the model without this module"
        )
        raise self.refusal


class ValueEscapes(TorchFunctionMode):
    """Notes in a real run that values go where no operator is seen."""

    def __init__(self, mode: CountingMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass every call on."""
        way = VALUE_ESCAPES.get(func)
        if way is not None:
            self.mode.note_values(way, "takes values out of torch: work on them there is not counted")
        return func(*args, **(kwargs or {}))


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """List the tensors among values and in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += _tensors(value)
        elif value is not None and isinstance(value, Tensor):  # slow to ask of what is none
            found.append(value)
    return found


def _written(facts: Facts, args: Any, kwargs: Any) -> list[Tensor]:
    """List the tensors that an operator writes to."""
    return _tensors(args[place] if place < len(args) else kwargs.get(name) for place, name in facts.mutates)


def _sampled(args: Sequence[Any], out: Tensor) -> int:
    """Elements a deformable convolution interpolates: one an input channel, tap and output position."""
    image, weight = args[0], args[1]
    return int(out.numel() // weight.shape[0] * image.shape[1] * weight.shape[2] * weight.shape[3])
