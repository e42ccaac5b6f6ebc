"""What can be seen to have gone wrong in a loop with a teacher, after a backward."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from featherpress.compress.distillation.taps import Tap, find_modules
from featherpress.compress.distillation.teachers import BoundTeacher
from featherpress.errors import TrainingError


class Watch:
    """Notes what happens to a student, its teachers and the adapters between them.

    Gradients are noted as they arrive: `zero_grad` leaves no evidence.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, BoundTeacher],
        adapters: nn.Module,
        taps: Mapping[str, Tap],
        *,
        moves: bool,
    ) -> None:
        self.student, self.teachers, self.adapters, self.taps, self.moves = student, teachers, adapters, taps, moves
        self._names = {id(weight): name for name, weight in adapters.named_parameters()}
        self._arrived: dict[str, Tensor] = {}
        self._cleared: set[str] = set()
        self._marks: dict[str, Tensor] = {}
        self._stale: dict[str, Tensor] = {}
        self._used: set[str] = set()
        self._versions = {name: _versions(teacher.model) for name, teacher in teachers.items()}
        self._begun = self._spent = 0
        self._followed = self._returned = False

    def begin(self) -> None:
        """Count a step."""
        self._begun += 1

    def spend(self) -> None:
        """Count a loss."""
        self._spent += 1

    def follow(self, loss: Tensor) -> None:
        """Note when a gradient comes back through a loss, which needs no adapters for it."""
        self._followed = True
        if loss.requires_grad and not self._returned:
            loss.register_hook(self._return)  # type: ignore[no-untyped-call, unused-ignore]

    def _return(self, _gradient: Tensor) -> None:
        self._returned = True

    def use(self, adapter: str) -> None:
        """Note that a loss went through an adapter; those of terms that have not begun get no gradient."""
        self._used.add(adapter)

    def precede(self, weight: Tensor) -> None:
        """Note, before a gradient is added, what is left of one after whose arrival the weight has changed.

        A weight that was cleared once is watched no more, so that sound loops pay nothing.
        """
        name = self._names[id(weight)]
        if weight.grad is None and name in self._arrived:
            self._cleared.add(name)
        elif weight.grad is not None and name in self._marks and name not in self._cleared:
            left = (weight.detach().sum() != self._marks[name]) & weight.grad.any()
            self._stale[name] = self._stale[name] | left if name in self._stale else left

    def arrive(self, weight: Tensor) -> None:
        """Note a gradient, and whether it is finite."""
        assert weight.grad is not None
        name = self._names[id(weight)]
        self._arrived[name] = weight.grad.isfinite().all()
        if name not in self._cleared:
            self._marks[name] = weight.detach().sum()

    def verify(self, optimizer: torch.optim.Optimizer | None, *, skips: bool | None = None) -> list[str]:
        """Raise for the first fault, or return what was checked.

        `skips` says whether a scaler skips steps whose gradients are not finite, None that no scaler was named.

        Errors: `TrainingError`.
        """
        checks = [self._losses(), self._teachers(), self._modules()]
        if optimizer is not None:
            checks += [self._held(optimizer), self._finite(optimizer, skips=skips)]
        if self._spent:
            checks.append(self._reached(skips=skips))
        return checks

    def _losses(self) -> str:
        if self._begun > self._spent:
            raise TrainingError(
                f"{self._begun - self._spent} of {self._begun} steps had no loss; add step.loss(...) to the task's"
            )
        return f"every one of {self._begun} steps had a loss"

    def _teachers(self) -> str:
        for name, teacher in self.teachers.items():
            if not self.moves and _versions(teacher.model) != self._versions[name]:
                raise TrainingError(f"the weights or buffers of {name} have changed; a teacher must stay as it is")
        return "the teachers are as they were"

    def _modules(self) -> str:
        taps = [(self.student, tap) for tap in self.taps.values()]
        taps += [(teacher.model, tap) for teacher in self.teachers.values() for tap in teacher.taps.values()]
        for model, tap in taps:
            if find_modules(model, tap.path) != tap.modules:
                raise TrainingError(f"a module at {tap.path!r} was replaced; make the Distiller after all changes")
        return "the tapped modules are in their places"

    def _held(self, optimizer: torch.optim.Optimizer) -> str:
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if not any(id(weight) in held for weight in self.student.parameters() if weight.requires_grad):
            raise TrainingError(
                "no weight of the student that is trained is in the optimizer: is it another model's, or is all frozen?"
            )
        for name, weight in self.adapters.named_parameters():
            if id(weight) not in held:
                raise TrainingError(f"the adapter {name} is in no optimizer; add kd.parameters() to its weights")
        for name, teacher in self.teachers.items():
            if any(id(weight) in held for weight in teacher.model.parameters()):
                raise TrainingError(f"weights of {name} are in the optimizer; leave them out")
        return "the optimizer holds the student, every adapter and no teacher"

    def _reached(self, *, skips: bool | None) -> str:
        for name, weight in self.adapters.named_parameters():
            if weight.requires_grad and name.partition(".")[0] in self._used and name not in self._arrived:
                raise TrainingError(
                    f"no gradient has reached the adapter {name}: is its loss in the one that backs up?"
                )
        if self._followed and not self._returned:
            raise TrainingError("no gradient has come back through step.loss(...): is it in the loss that backs up?")
        for name, finite in self._arrived.items():
            if not finite and not skips:
                raise TrainingError(f"the gradient of the adapter {name} is not finite{_hint(skips)}")
        for name, left in self._stale.items():
            if left:
                raise TrainingError(
                    f"the optimizer used a gradient of the adapter {name} again: clear kd.parameters() too, as "
                    "optimizer.zero_grad() does and the student's zero_grad() does not"
                )
        return "gradients have reached every adapter"

    def _finite(self, optimizer: torch.optim.Optimizer, *, skips: bool | None) -> str:
        names = {id(weight): name for name, weight in self.student.named_parameters()}
        skipped = ""
        for group in optimizer.param_groups:
            for weight in group["params"]:
                name = names.get(id(weight), "a weight")
                if not weight.isfinite().all():
                    raise TrainingError(f"{name} is not finite")
                if weight.grad is not None and not weight.grad.isfinite().all():
                    skipped = skipped or name
        if skipped and not skips:
            raise TrainingError(f"the gradient of {skipped} is not finite{_hint(skips)}")
        if skipped:
            return f"no weight is infinite or not a number; the gradient of {skipped} is: the scaler skips this step"
        return "no weight or gradient is infinite or not a number"


def _hint(skips: bool | None) -> str:
    return "; if a GradScaler skips such steps, name it: verify(optimizer, scaler=scaler)" if skips is None else ""


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """Return which tensors a model saves, and how often each was changed in place; others are caches."""
    tensors = [
        tensor
        for module in model.modules()
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if name not in module._non_persistent_buffers_set
    ]
    return [(id(each), -1 if each.is_inference() else each._version) for each in tensors]
