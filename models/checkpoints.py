"""Checkpoints from any source: opened safely, cleaned, mapped to our names, then loaded strictly."""

import pickle
import re
import tarfile
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from featherpress.errors import CheckpointError, FeatherpressError
from featherpress.files import require_readable
from featherpress.models.creation import create_model
from featherpress.models.mobilenet import MobileNetV1Quarter
from featherpress.models.pruned import is_pruned, plain_state
from featherpress.models.registry import list_models

_LEVELS = range(3)

# The public RetinaFace and FeatherFace checkpoints, name by name: (pattern, ours), applied in order.
PUBLIC_NAMES: tuple[tuple[str, str], ...] = (
    (r"^body\.", "backbone."),
    (r"^bacbkbone_(\d)_cbam\.", r"backbone_attention.\1."),
    (r"^bif_cbam_(\d)\.", r"pyramid_attention.\1."),
    (r"\.ChannelGate\.mlp\.1\.", ".channel.reduce."),
    (r"\.ChannelGate\.mlp\.3\.", ".channel.expand."),
    (r"\.SpatialGate\.spatial\.conv\.", ".spatial.conv."),
    (r"\.SpatialGate\.spatial\.bn\.", ".spatial.norm."),
    *((rf"^bifpn\.0\.p{i + 3}_down_channel\.", f"bifpn.laterals.{i}.") for i in _LEVELS),
    *((rf"^bifpn\.0\.p{i + 3}_down_channel_2\.", f"bifpn.bottom_up_laterals.{i - 1}.") for i in _LEVELS),
    (r"^(bifpn\.\w*laterals\.\d\.0)\.conv\.", r"\1."),
    (r"^bifpn\.(\d)\.p(\d)_w1$", r"bifpn.cells.\1.top_down_p\2.weights"),
    (r"^bifpn\.(\d)\.p(\d)_w2$", r"bifpn.cells.\1.bottom_up_p\2.weights"),
    (r"^bifpn\.(\d)\.conv(\d)_up\.", r"bifpn.cells.\1.top_down_p\2."),
    (r"^bifpn\.(\d)\.conv(\d)_down\.", r"bifpn.cells.\1.bottom_up_p\2."),
    (r"\.(depthwise|pointwise)_conv\.conv\.", r".\1."),
    (r"^(bifpn\.cells\..*)\.bn\.", r"\1.norm."),
    (r"^fpn\.merge1\.", "fpn.merge_p3."),
    (r"^fpn\.merge2\.", "fpn.merge_p4."),
    *((rf"^fpn\.output{i + 1}\.", f"fpn.laterals.{i}.") for i in _LEVELS),
    *((rf"^ssh{i + 1}\.", f"context.{i}.") for i in _LEVELS),
    (r"\.conv3X3\.", ".branch3."),
    (r"\.conv5X5_1\.", ".stem5."),
    (r"\.conv5X5_2\.", ".branch5."),
    (r"\.conv7X7_2\.", ".stem7."),
    (r"\.conv7x7_3\.", ".branch7."),
    (r"\.regular_conv\.weight$", ".weight"),
    (r"\.offset_conv\.", ".offset."),
    (r"\.modulator_conv\.", ".mask."),
    *((rf"^ssh{i + 1}_cs\.(\d)\.", rf"shuffle.{i}.cs\1.") for i in _LEVELS),
    *((rf"\.cs{2 * i + 1}\.", f".{i + 1}.0.") for i in _LEVELS),
    *((rf"\.cs{2 * i + 2}\.", f".{i + 1}.1.") for i in _LEVELS),
    (r"^ClassHead\.(\d)\.conv1x1\.", r"heads.classes.\1."),
    (r"^BboxHead\.(\d)\.conv1x1\.", r"heads.boxes.\1."),
    (r"^LandmarkHead\.(\d)\.conv1x1\.", r"heads.landmarks.\1."),
)

_PROFILER_LEFTOVERS = ("total_ops", "total_params")

# What torch's safe unpickler and zip reader raise on damaged files.
_DAMAGED = (AttributeError, EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into a model, all of it or nothing.

    Takes `.safetensors`, and `.pth`, `.pt` or `.tar` pickles of tensors alone. A nesting under `state_dict`, a
    `module.` prefix and what thop leaves behind are removed, and public names are mapped onto ours unless the file's
    names are the model's own.

    Errors: `CheckpointError` for a file that is missing, broken, unsafe, or does not fit the model; it names the
    first keys that differ, and the preset that would fit if one does.
    """
    state = _read(Path(path))
    if is_pruned(path):
        state = plain_state(model, state, path)
    if state.keys() != model.state_dict().keys():
        state = _under_our_names(state)
    if isinstance(model, MobileNetV1Quarter):
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    state = fill_tied(model, state)
    require_fit(model, state, path)
    model.load_state_dict(state)


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return the further names of tensors that a model has under several, each with the first."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {key: kept for key, value in state.items() if (kept := first.setdefault(id(value), key)) != key}


def fill_tied(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a tensor that a state has under one of its names to all that it has in the model."""
    tied, filled = tied_names(model), dict(state)
    for names in ({first: key for key, first in tied.items() if key in state}, tied):
        filled |= {key: filled[other] for key, other in names.items() if key not in filled and other in filled}
    return filled


def require_fit(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse a state whose keys are not the model's or whose values are not finite; the model may be on meta.

    Errors: `CheckpointError` that names the file and the first keys that differ.
    """
    own = model.state_dict()
    difference = _difference(own, state)
    if difference:
        fitting = _fitting_presets(state)
        hint = f"; it fits {' or '.join(fitting)}" if fitting else ""
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {difference}{hint}")
    for key, value in state.items():
        if value.is_floating_point() != own[key].is_floating_point():
            raise CheckpointError(f"{path} holds {value.dtype} under {key!r}, which is not what the model holds there")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} holds numbers that are not finite under {key!r}: the training diverged")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors under our names, on the CPU.

    Errors: `CheckpointError` for a file that is missing, broken or holds more than tensors.
    """
    return _under_our_names(_read(Path(path)))


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there is no weights file at {path}")
    return _clean(_read_safetensors(path) if path.suffix == ".safetensors" else open_pickle(path), path)


def _under_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_our_name(key): value for key, value in state.items()}


def _read_safetensors(path: Path) -> object:
    try:
        require_readable(path)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def open_pickle(path: Path) -> object:
    """Read a pickle of tensors, and of nothing that could run.

    Errors: `CheckpointError` for a file that is broken or holds more.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles by other means than torch's, which are read or refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            if not file.read(2).startswith((b"PK", b"\x80")):
                raise CheckpointError(
                    f"{path} is not a readable checkpoint; expected safetensors, or a .pth, .pt or .tar of tensors"
                ) from error
        raise CheckpointError(
            f"{path} holds more than tensors, and loading it could run code of its author's; save its state dict alone"
        ) from error
    except _DAMAGED as error:
        if tarfile.is_tarfile(path):
            raise CheckpointError(
                f"{path} is a tar archive; unpack it and give the weights file that is in it"
            ) from error
        # torch goes on with advice, such as to let a file run what it holds.
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error


def _clean(content: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file's content, without what wrappers and profilers added to its keys."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a state dict")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        name = str(key).removeprefix("module.")
        if name.rpartition(".")[2] in _PROFILER_LEFTOVERS:
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path} holds a {type(value).__name__} under {name[:80]!r}, expected a tensor")
        if value.is_meta or value.layout is not torch.strided:
            raise CheckpointError(f"{path} holds a tensor without plain numbers under {name[:80]!r}")
        state[name] = value
    return state


@cache
def _our_name(key: str) -> str:
    for pattern, ours in PUBLIC_NAMES:
        key = re.sub(pattern, ours, key)
    return key


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Name the first missing, unexpected and wrongly shaped keys; empty when there are none."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    shapes = [key for key in expected if key in found and expected[key].shape != found[key].shape]
    named = (("missing", missing), ("unexpected", unexpected))
    parts = [f"{len(keys)} {what}, first {keys[0]!r}" for what, keys in named if keys]
    if shapes:
        key = shapes[0]
        wanted, came = tuple(expected[key].shape), tuple(found[key].shape)
        parts.append(f"{len(shapes)} wrongly shaped, first {key!r} of {came}, expected {wanted}")
    return "; ".join(parts)


def _fitting_presets(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in list_models() if not _difference(_shape_of(name), state)]


@cache
def _shape_of(name: str) -> dict[str, Tensor]:
    """Build a model's state without memory; empty for one, not ours, that cannot be built so."""
    try:
        with torch.device("meta"):
            return create_model(name).state_dict()
    except (FeatherpressError, NotImplementedError, RuntimeError):
        return {}
