"""Cutting: every tensor is sliced by what it is, for all its owners at once, and known attributes follow."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featherpress.budgets.counting.meta_kernels import META
from featherpress.budgets.counting.replicas import meta_twin
from featherpress.compress.pruning.labels import Axes, Ids
from featherpress.compress.pruning.trace import Trace

Shape = tuple[int, ...]


class Cut:
    """What stays of each tensor. `alive` tells of each label whether it stays."""

    def __init__(self, trace: Trace, alive: NDArray[np.bool_], attributes: Mapping[tuple[str, str], Ids]) -> None:
        self.trace, self.alive = trace, alive
        self.params = trace.params
        self._attributes = attributes
        #: Factors of rows of tensors as they are after the cut, by id.
        self._scales: dict[int, dict[int, float]] = {}

    def scale(self, second: Trace) -> bool:
        """Make good for factors that the code computes from a width; return whether no row needs two."""
        for ratio, rows in second.scales.values():
            for owners, row in rows:
                for owner in owners:
                    if self._scales.setdefault(owner, {}).setdefault(row, ratio) != ratio:
                        return False
        return True

    def kept(self, ids: Ids) -> Ids:
        """Return the labels that stay."""
        return ids[self.alive[ids]]

    def axes(self) -> dict[int, Axes]:
        """Return the labels of the tensors as they are after the cut."""
        return {
            key: tuple(None if ids is None else self.kept(ids) for ids in axes) for key, axes in self.params.items()
        }

    def shape(self, tensor: Tensor) -> Shape:
        """Return a tensor's shape after the cut."""
        axes = self.params.get(id(tensor)) or (None,) * tensor.dim()
        return tuple(
            size if ids is None else int(self.alive[ids].sum()) for size, ids in zip(tensor.shape, axes, strict=True)
        )

    def sliced(self, tensor: Tensor, values: Tensor | None = None) -> Tensor:
        """Return a copy of what stays of a tensor, or of other values in its place."""
        made = source = (tensor if values is None else values).detach()
        for axis, ids in enumerate(self.params.get(id(tensor)) or ()):
            if ids is not None and not self.alive[ids].all():
                made = made.index_select(axis, torch.from_numpy(np.flatnonzero(self.alive[ids])).to(made.device))
        made = made.clone() if made is source else made
        for row, ratio in self._scales.get(id(tensor), {}).items():
            made[row] *= ratio
        return made

    def twin(self, tensor: Tensor) -> Tensor:
        """Return what stays of a tensor, without memory."""
        shape = self.shape(tensor)
        return meta_twin(tensor) if shape == tensor.shape else torch.empty(shape, dtype=tensor.dtype, device=META)

    def zeroed(self, tensor: Tensor, values: Tensor) -> Tensor:
        """Return a copy of a tensor's values with zeros where something is cut; variances stay."""
        made = values.clone()
        if id(tensor) not in self.trace.variances:
            for axis, ids in enumerate(self.params.get(id(tensor)) or ()):
                if ids is not None:
                    made[(slice(None),) * axis + (torch.from_numpy(np.flatnonzero(~self.alive[ids])),)] = 0
        return made

    def attributes(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """List the attributes that change, by module."""
        found: dict[str, dict[str, Any]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            changes = known_attributes(module, self.shape, self.trace.groups)
            if changes:
                found[path] = changes
        for (path, name), ids in self._attributes.items():
            found.setdefault(path, {})[name] = len(self.kept(ids))
        return found


def set_attributes(model: nn.Module, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set attributes of modules by their paths."""
    for path, attributes in changes.items():
        module = model.get_submodule(path)
        for name, value in attributes.items():
            setattr(module, name, value)


def known_attributes(
    module: nn.Module, shape: Callable[[Tensor], Shape], groups: Mapping[int, str]
) -> dict[str, int | Shape]:
    """Return the attributes of PyTorch's layers, and of those that call theirs the same, that say a tensor's size."""
    expected: dict[str, tuple[Any, Any]] = {}
    weight: Tensor | None = module._parameters.get("weight")
    if weight is None and module._buffers.get("running_mean") is not None:
        weight = module._buffers["running_mean"]
    if weight is not None:
        old, new = tuple(weight.shape), shape(weight)
        how = groups.get(id(weight), "")
        if len(old) > 2:
            expected |= _convolution(module, old, new, how)
        elif len(old) == 2:
            expected |= {
                "out_features": (old[0], new[0]),
                "in_features": (old[1], new[1]),
                "num_embeddings": (old[0], new[0]),
                "embedding_dim": (old[1], new[1]),
            }
        elif len(old) == 1:
            many = vars(module).get("num_groups", 1)
            left = new[0] // (old[0] // many) if how == "whole" else many
            expected |= dict.fromkeys(("num_features", "num_channels", "num_parameters"), (old[0], new[0]))
            expected["num_groups"] = (many, left)
        expected["normalized_shape"] = (old, new)
    if isinstance(module, nn.MultiheadAttention):
        expected |= _attention(module, shape)
    if isinstance(module, nn.RNNBase):
        expected["input_size"] = (module.input_size, shape(module._parameters["weight_ih_l0"])[1])  # type: ignore[arg-type]
    held = vars(module)
    return {
        name: after for name, (before, after) in expected.items()
        if name in held and held[name] == before and before != after
    }  # fmt: skip


def _convolution(module: nn.Module, old: Shape, new: Shape, how: str) -> dict[str, tuple[Any, Any]]:
    groups = vars(module).get("groups", 1)
    left = new[0] // (old[0] // groups) if how == "whole" else groups
    if vars(module).get("transposed", False):
        return {"in_channels": (old[0], new[0]), "out_channels": (old[1] * groups, new[1] * groups)}
    return {
        "out_channels": (old[0], new[0]),
        "in_channels": (old[1] * groups, new[1] * left),
        "groups": (groups, left),
    }


def _attention(module: nn.MultiheadAttention, shape: Callable[[Tensor], Shape]) -> dict[str, tuple[Any, Any]]:
    width = shape(module.out_proj.weight)[0]
    key, value = module.k_proj_weight, module.v_proj_weight
    return {
        "embed_dim": (module.embed_dim, width),
        "head_dim": (module.head_dim, width // module.num_heads),
        "kdim": (module.kdim, width if key is None else shape(key)[1]),
        "vdim": (module.vdim, width if value is None else shape(value)[1]),
    }
