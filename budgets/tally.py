"""What sees every operator of a forward: counted, known to cost nothing, or refused."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from featherpress.budgets import ledger
from featherpress.budgets.activations import Lifetimes, storage_key
from featherpress.budgets.answers import ANSWERS, Answer
from featherpress.budgets.attribution import ModuleStack
from featherpress.budgets.costs import ROOT, UNATTRIBUTED
from featherpress.budgets.formulas import Formula
from featherpress.errors import CountError

__all__ = ["Tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What to do about an operator; `writes` unless its results only alias what it was given.

    `dynamic` if a result's shape may depend on values.
    """

    name: str
    formula: Formula | None
    answer: Answer | None
    known: bool
    elementwise: bool
    writes: bool
    dynamic: bool


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
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
        on_meta: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.stack = stack
        self.model = model
        self.parameters = parameters
        self.on_meta = on_meta
        self.plans: dict[Any, _Plan] = {}
        self.macs: Counter[tuple[str, str]] = Counter()
        self.elementwise: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[str] = Counter()
        #: MACs by the one parameter that an operator multiplies with, None where there is none or more than one.
        self.weight_macs: Counter[int | None] = Counter()
        self.readers: defaultdict[int, set[str]] = defaultdict(set)
        self.lifetimes = Lifetimes()
        self.value_dependent: dict[str, str] = {}
        self.refusal: CountError | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self._refuse(f"higher_order::{func}")
        kwargs = kwargs or {}
        plan = self.plans.get(func) or self._plan(func)
        if not plan.known:
            with self:
                out = func.decompose(*args, **kwargs)
            return self._refuse(plan.name) if out is NotImplemented else out
        self.lifetimes.clock += 1
        tensors = _tensors([*args, *kwargs.values()])
        keys = self._note_reads(plan.name, tensors)
        out = plan.answer(args, kwargs) if plan.answer else None
        if out is None:
            out = func(*args, **kwargs)
        self._add(plan, args, tensors, keys, out)
        if plan.dynamic and ledger.changes_shape_with_data(func, args):
            self.value_dependent.setdefault(plan.name, self._place())
        return out

    def _plan(self, func: Any) -> _Plan:
        name = ledger.operator_name(func)
        formula, free = self.table.get(name), ledger.is_free(func)
        elementwise = not free and ledger.is_elementwise(func)
        plan = _Plan(
            name=name,
            formula=formula,
            answer=ANSWERS.get(func) if self.on_meta else None,
            known=formula is not None or free or elementwise,
            elementwise=elementwise and formula is None,
            writes=not any(result.alias_info for result in func._schema.returns),
            dynamic=ledger.may_change_shape_with_data(func),
        )
        self.plans[func] = plan
        return plan

    def _note_reads(self, name: str, tensors: Sequence[Tensor]) -> list[int]:
        """Note who reads which parameter, and how long other tensors live; return the storages read."""
        keys = [storage_key(tensor) for tensor in tensors]
        for key in keys:
            parameter = self.parameters.get(key)
            if parameter is not None:
                self.readers[parameter].add(name)
            else:
                self.lifetimes.read(key)
        return keys

    def _add(self, plan: _Plan, args: Any, tensors: list[Tensor], keys: list[int], out: Any) -> None:
        path = self._path()
        self.calls[plan.name] += 1
        results = _tensors([out])
        if plan.formula is not None:
            macs = int(plan.formula(args, out))
            self._check_order(plan.name)
            self.macs[path, plan.name] += macs
            pairs = zip(tensors, keys, strict=True)
            weights = {self.parameters[key] for tensor, key in pairs if key in self.parameters and tensor.dim() > 1}
            self.weight_macs[weights.pop() if len(weights) == 1 else None] += macs
        elif plan.elementwise:
            self.elementwise[path, plan.name] += max((t.numel() for t in (*tensors, *results)), default=0)
        if plan.name == "torchvision::deform_conv2d":
            self.elementwise[path, plan.name] += _sampled(args, out)
        if plan.writes:
            for tensor in results:
                key = storage_key(tensor)
                if key not in keys and tensor.numel():
                    self.lifetimes.write(tensor, key, path)

    def _path(self) -> str:
        path = self.stack.path
        return UNATTRIBUTED if path is None else path

    def _place(self) -> str:
        path = self._path()
        kind = type(self.model if path in {"", UNATTRIBUTED} else self.model.get_submodule(path)).__name__
        return f"{path or ROOT} ({kind})"

    def _check_order(self, name: str) -> None:
        """Refuse core work whose amount depends on values."""
        if self.value_dependent:
            culprit, place = next(iter(self.value_dependent.items()))
            self.refusal = self.refusal or CountError(
                f"{name} in {self._place()} comes after {culprit} in {place}, whose result's shape depends on values, "
                "so one count would not hold for other inputs: count the part of the model before it"
            )
            raise self.refusal

    def _refuse(self, name: str) -> Any:
        remedy = f'pass count(..., formulas={{"{name}": formula}}) or ' if not name.startswith("higher_order::") else ""
        self.refusal = self.refusal or CountError(
            f"no formula for operator {name} in module {self._place()}: expected one that is counted or known to cost "
            f"nothing, {remedy}leave this module out"
        )
        raise self.refusal


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """List the tensors among values and in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _sampled(args: Sequence[Any], out: Tensor) -> int:
    """Elements a deformable convolution interpolates: one an input channel, tap and output position."""
    image, weight = args[0], args[1]
    return int(out.numel() // weight.shape[0] * image.shape[1] * weight.shape[2] * weight.shape[3])
