"""Models built by name, and the name and settings that they remember."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import load_file
from torch import nn

from featherpress.errors import UsageError
from featherpress.models.registry import find_model, is_plain, shipped_weights

# Settings under the names that published configurations give them.
_PUBLISHED_NAMES = {"out_channel": "out_channels"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a model was built from: a registered name, and every setting with its value."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def create_model(name: str, *, pretrained: bool = False, **overrides: Any) -> nn.Module:
    """Build a registered model; keyword arguments override the preset's own.

    Its weights are fresh or, with `pretrained`, the trained ones that come with the package.

    Errors: `UsageError` for an unknown name, an unknown override or one of another kind than its default, a width a
    block cannot take, or `pretrained` where no trained weights are shipped for these settings.
    """
    entry = find_model(name)
    overrides = {key if key in entry.settings else _PUBLISHED_NAMES.get(key, key): overrides[key] for key in overrides}
    for key, value in overrides.items():
        if key not in entry.settings:
            raise UsageError(f"{name} has no setting {key!r}; it has {', '.join(entry.settings)}")
        _check_kind(name, key, value, entry.settings[key])
    trained = shipped_weights(name, overrides) if pretrained else None
    model = entry.build(**overrides)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} was built as a {type(model).__name__}, expected a torch.nn.Module")
    if trained is not None:
        model.load_state_dict(load_file(trained))
    model.__dict__["_origin"] = Origin(name=name, settings={**entry.settings, **overrides})
    return model


def origin_of(model: nn.Module) -> Origin | None:
    """Return what `create_model` built this model from, copies included; None for any other model."""
    origin: Origin | None = model.__dict__.get("_origin")
    return origin


def forget_origin(model: nn.Module) -> None:
    """Make a model forget its name and settings, because it is no longer what `create_model` builds."""
    model.__dict__.pop("_origin", None)


def _check_kind(name: str, key: str, value: object, default: object) -> None:
    """Refuse a setting of another kind than its default, and one that no weights file can name."""
    same = default is None or type(value) is type(default) or (type(value), type(default)) == (int, float)
    if not (same and is_plain(value)):
        raise UsageError(f"{key} of {name} is {default!r} by default, got {value!r}, which is of another kind")
