"""Terms: what a student is compared with its teacher by, at which weight and when."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from featherpress.compress.distillation.losses.registry import Kind, LossEntry, describe_loss, find_loss
from featherpress.compress.distillation.taps import Path, Select
from featherpress.errors import UsageError

Loss = str | Callable[..., Tensor]


class Term:
    """One loss between a student and its teachers, or one of them.

    `weight` scales it. `of` names the only teacher that it is about. It begins after the fraction `start` of the
    training, grows from 0 over the fraction `ramp`, and is off for the last fraction `stop`; the last two are the
    Distiller's unless given. All other keywords are options of the loss.
    """

    kind: Kind

    def __init__(
        self,
        loss: Loss,
        *,
        weight: float = 1.0,
        of: str | None = None,
        start: float = 0.0,
        ramp: float | None = None,
        stop: float | None = None,
        **options: Any,
    ) -> None:
        self.entry = self._entry(loss)
        if self.entry.kind != self.kind:
            other = "Features" if self.entry.kind == "features" else "Logits"
            raise UsageError(f"{self.entry.name} compares {self.entry.kind}; write {other}({self.entry.name!r}, ...)")
        if not 0 <= weight < float("inf"):
            raise UsageError(f"{self.entry.name}: a weight is 0 or more and finite, got {weight}")
        for name, value in (("start", start), ("ramp", ramp), ("stop", stop)):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{self.entry.name}: {name} is a fraction of the training, from 0 to 1, got {value}")
        self.weight, self.of, self.start, self.ramp, self.stop = weight, of, start, ramp, stop
        self.options = self.entry.complete(options)

    def _entry(self, loss: Loss) -> LossEntry:
        if isinstance(loss, str):
            return find_loss(loss)
        return describe_loss(loss, name=getattr(loss, "__name__", type(loss).__name__), kind=self.kind)

    def is_about(self, teacher: str) -> bool:
        """Whether a teacher is compared by it."""
        return self.of in (None, teacher)

    def factor(self, at: float | None, *, ramp: float, stop: float) -> float:
        """Return what its weight is multiplied by when the fraction `at` of the training is done; 1 without it."""
        if at is None:
            return 1.0
        ramp, stop = (own if own is not None else given for own, given in ((self.ramp, ramp), (self.stop, stop)))
        if at < self.start or (stop and at >= 1 - stop):
            return 0.0
        return min(1.0, (at - self.start) / ramp) if ramp else 1.0


class Logits(Term):
    """A loss between outputs: a registered name, or a function or module `(student, teacher, **context) -> scalar`.

    Of the context, what `step.loss` was given, it gets what its signature names, all of it by `**context`.

    `output` names which of several outputs are meant, where the Distiller's `output` returns a mapping; `logits` unless
    given. Positions whose label is `ignore_index` do not count, nor those that a `mask` leaves out.

    Shapes: (N, C, ...): classes on axis 1, further axes are positions.
    """

    kind = "logits"

    def __init__(self, loss: Loss, *, output: str = "logits", ignore_index: int = -100, **keywords: Any) -> None:
        super().__init__(loss, **keywords)
        self.output, self.ignore_index = output, ignore_index
        if self.entry.outputs and output not in self.entry.outputs:
            raise UsageError(
                f"{self.entry.name} compares {' or '.join(self.entry.outputs)}, not {output}; set `output`"
            )


class Features(Term):
    """A loss between features: what modules of the student and of the teacher return.

    `student` and `teacher` are module paths, patterns in which `*` and `?` stand for anything but a dot, or lists of
    them; of several teachers, `teacher` may be a mapping by name. Every tensor is a level, `levels` weighs them;
    `select` chooses levels of modules that return several things, and `teacher_select` where the teacher's differ.
    `adapter` is `auto`, the layer that the loss wants, or `none`.

    Shapes: maps (N, C, H, W), tokens (N, L, C) or vectors (N, C), the same kind on both sides.
    """

    kind = "features"

    def __init__(
        self,
        loss: Loss,
        *,
        student: Path,
        teacher: Path | Mapping[str, Path],
        levels: Sequence[float] = (),
        adapter: Literal["auto", "none"] = "auto",
        select: Select = None,
        teacher_select: Select = None,
        **keywords: Any,
    ) -> None:
        super().__init__(loss, **keywords)
        self.student, self.teacher, self.levels = student, teacher, tuple(levels)
        self.adapter, self.select, self.teacher_select = adapter, select, teacher_select
        if adapter not in ("auto", "none"):
            raise UsageError(f"{self.entry.name}: an adapter is auto or none, got {adapter!r}")

    def path_in(self, teacher: str) -> Path:
        """Return the path at which it taps a teacher.

        Errors: `UsageError` where none is given for it.
        """
        if not isinstance(self.teacher, Mapping):
            return self.teacher
        if teacher not in self.teacher:
            raise UsageError(f"{self.entry.name}: `teacher` has no path for {teacher}")
        return self.teacher[teacher]

    @property
    def adapter_kind(self) -> Any:
        """What kind of adapter its levels need."""
        return "none" if self.adapter == "none" and self.entry.adapter == "linear" else self.entry.adapter
