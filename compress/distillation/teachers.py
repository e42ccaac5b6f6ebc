"""A teacher as a Distiller holds it: never trained, tapped, run on the student's inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from featherpress.compress.distillation.taps import Gate, Path, Select, Tap

Outputs: TypeAlias = Mapping[str, Tensor]
"""A model's outputs by name: `boxes`, `logits` and `landmarks` of a detector, `logits` of a classifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherOutputs:
    """A teacher's outputs for a batch by name, and the levels of its features by the tap that caught them.

    Shapes: outputs (N, C, ...); features L times (N, C_l, H_l, W_l), or tokens, or vectors.
    """

    outputs: Outputs
    features: Mapping[str, list[Tensor]]

    def tensors(self) -> list[Tensor]:
        """List every tensor, outputs first."""
        return [*self.outputs.values(), *(level for levels in self.features.values() for level in levels)]

    def filled(self, tensors: Sequence[Tensor]) -> "TeacherOutputs":
        """Return the same with other tensors in the same places; undoes `tensors`."""
        rest = iter(tensors)
        return TeacherOutputs(
            outputs={name: next(rest) for name in self.outputs},
            features={path: [next(rest) for _ in levels] for path, levels in self.features.items()},
        )


class BoundTeacher:
    """A model in eval mode without gradient, with taps, that takes what `inputs` makes of the student's inputs.

    `name_outputs` names what it returns; `compiled` is the model as it runs in steps. It follows the inputs' device
    and keeps its own precision.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        inputs: Callable[[Any], Any] | None = None,
        name_outputs: Callable[[Any], Outputs],
        compiled: nn.Module | None = None,
    ) -> None:
        self._learned = [each for each in model.parameters() if each.requires_grad and not each.is_inference()]
        self.model = model.eval().requires_grad_(False)
        self.compiled = compiled
        self.inputs, self.name_outputs = inputs, name_outputs
        self.gate = Gate()
        self.taps: dict[str, Tap] = {}

    def tap(self, path: Path, select: Select = None) -> str:
        """Tap a path, and return the name of the tap; the same path is tapped once."""
        key = tap_key(path, select)
        while key in self.taps and self.taps[key].select != select:
            key += "'"  # two functions of one name
        if key not in self.taps:
            self.taps[key] = Tap(self.model, path, gate=self.gate, select=select)
        return key

    def ask(self, inputs: Any, *, watch: bool = False) -> TeacherOutputs:
        """Run the model without gradient; whoever called train() on it has not changed its mode."""
        self.model.eval()
        inputs = inputs if self.inputs is None else self.inputs(inputs)
        weight = next(self.model.parameters(), None)
        for tap in self.taps.values():
            tap.forget()
        self.gate.open, self.gate.watching = True, watch
        try:
            with torch.no_grad():
                if weight is not None:
                    inputs = self._follow(inputs, weight)
                run = self.model if self.compiled is None or watch else self.compiled
                outputs = self.name_outputs(call(run, inputs))
        finally:
            self.gate.open = self.gate.watching = False
        if watch:
            for tap in self.taps.values():
                tap.keep_from_change()
        features = {key: [plain(level) for level in tap.take()] for key, tap in self.taps.items()}
        return TeacherOutputs(outputs={name: plain(each) for name, each in outputs.items()}, features=features)

    def close(self) -> None:
        """Remove the hooks, and let the weights learn that did before; the model stays in eval mode."""
        for tap in self.taps.values():
            tap.close()
        for weight in self._learned:
            weight.requires_grad_()
        self._learned.clear()

    def _follow(self, inputs: Any, weight: Tensor) -> Any:
        """Move the model to its inputs' device, and cast what is not whole numbers to its precision."""
        inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs  # in which tensors are found
        device = next((each.device for each in tree_leaves(inputs) if isinstance(each, Tensor)), weight.device)
        if weight.device != device:
            self.model.to(device)
        if not weight.dtype.is_floating_point:
            return inputs
        return tree_map_only(Tensor, lambda each: each.to(weight.dtype) if each.is_floating_point() else each, inputs)


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model: a mapping is its keywords, a tuple its arguments, anything else its one argument."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def tap_key(path: Path, select: Select) -> str:
    """Return the name of a tap."""
    name = path if isinstance(path, str) else ", ".join(path)
    return name if select is None else f"{name}[{getattr(select, '__name__', select)}]"


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd may save: one made in inference mode may not be."""
    return tensor.clone() if tensor.is_inference() else tensor
